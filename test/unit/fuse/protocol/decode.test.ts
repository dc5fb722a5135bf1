import * as fc from 'fast-check'
import t from 'tap'

import {
  decodeCaller,
  decodeName,
  decodeSetAttr,
  decodeText,
} from '../../../../src/fuse/protocol/decode.js'
import { SetAttr } from '../../../../src/overlay/ops.js'
import { cstr, GID, join, PID, request, u32, u64, UID } from '../../../helpers/frames.js'
import { load } from '../support.js'

const bodyOf = (body: Buffer) => load(request(1, body))

t.test('a name is any bytes but a slash, up to its NUL', async t => {
  const bytes = fc
    .uint8Array({ maxLength: 20 })
    .map(array => Buffer.from(array).toString('latin1'))
    .filter(text => !text.includes('\0'))
  fc.assert(
    fc.property(bytes, bytes, (name, other) => {
      const req = bodyOf(join(cstr(other), cstr(name)))
      const at = other.length + 1
      const good = !['', '.', '..'].includes(name) && !name.includes('/')
      return (
        decodeName(req, at) === (good ? name : undefined) &&
        decodeText(req, at) === (name === '' ? undefined : name)
      )
    }),
  )
  for (const decode of [decodeName, decodeText]) {
    t.equal(decode(bodyOf(Buffer.from('endless')), 0), undefined, 'cut off')
    t.equal(decode(bodyOf(cstr('a')), 2), undefined, 'beyond the end')
    t.equal(decode(bodyOf(Buffer.alloc(0)), 0), undefined)
  }
})

t.test('the caller', async t => {
  const caller = { uid: 0, gid: 0, pid: 0, umask: 0 }
  decodeCaller(bodyOf(Buffer.alloc(0)), caller, 0xffff_ffff)
  t.strictSame(caller, { uid: UID, gid: GID, pid: PID, umask: 0o777 })
})

/** struct fuse_setattr_in */
const setattrIn = (valid: number, fh: bigint, size: bigint, sec: bigint, mode: number): Buffer =>
  join(
    u32(valid), // valid
    u32(0), // padding
    u64(fh), // fh
    u64(size), // size
    u64(0x1234), // lock_owner
    u64(sec), // atime
    u64(-sec), // mtime
    u64(7), // ctime
    u32(1), // atimensec
    u32(999_999_999), // mtimensec
    u32(3), // ctimensec
    u32(mode), // mode
    u32(0), // unused4
    u32(0xffff_fffe), // uid
    u32(5), // gid
    u32(0), // unused5
  )

t.test('attributes to set', async t => {
  const out = new SetAttr()
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 0xffff_ffff }),
      fc.bigInt({ min: 0n, max: 2n ** 53n - 1n }),
      fc.bigInt({ min: -(2n ** 53n) + 1n, max: 2n ** 53n - 1n }),
      (valid, size, sec) => {
        decodeSetAttr(bodyOf(setattrIn(valid, 9n, size, sec, valid)), out)
        // FATTR_FH is 1 << 6, FATTR_LOCKOWNER 1 << 9.
        return (
          (out.valid & ~0xfff) === 0 &&
          (out.valid & 0x200) === 0 &&
          out.valid === (valid & 0xdff) &&
          out.fh === ((valid & 0x40) !== 0 ? 9 : 0) &&
          out.size === Number(size) &&
          out.atimeSec === Number(sec) &&
          out.mtimeSec === Number(-sec) &&
          out.mode === (valid & 0o7777)
        )
      },
    ),
  )
  t.match(out, { uid: 0xffff_fffe, gid: 5, atimeNsec: 1, mtimeNsec: 999_999_999 })
})
