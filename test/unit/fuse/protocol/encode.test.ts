import * as fc from 'fast-check'
import t from 'tap'

import {
  DirPacker,
  DirPlusPacker,
  forEachPlusEntry,
  Validity,
  writeAttrOut,
  writeEntry,
  writeStatx,
} from '../../../../src/fuse/protocol/encode.js'
import { devMajor, devMinor } from '../../../../src/fuse/protocol/decode.js'
import { Reply } from '../../../../src/fuse/protocol/wire.js'
import { Attr, Entry } from '../../../../src/overlay/ops.js'

const SECOND = new Validity(1)
const name = fc
  .uint8Array({ minLength: 1, maxLength: 255 })
  .map(bytes => Buffer.from(bytes).toString('latin1'))
const ino = fc.oneof(
  fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER }),
  fc.bigInt({ min: 2n ** 53n, max: 2n ** 64n - 1n }),
)
const cookie = fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER })
const entry = fc.record({
  name,
  ino,
  type: fc.integer({ min: 0, max: 15 }),
  cookie,
  node: fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 2 ** 48 - 1 })),
})

/** Parses struct fuse_dirent like the kernel. */
const dirents = (buf: Buffer, from: number, to: number, gap: number): unknown[] => {
  const found: unknown[] = []
  for (let at = from; at < to;) {
    at += gap
    const length = buf.readUInt32LE(at + 16)
    found.push({
      ino: buf.readBigUInt64LE(at),
      cookie: Number(buf.readBigUInt64LE(at + 8)),
      type: buf.readUInt32LE(at + 20),
      name: buf.latin1Slice(at + 24, at + 24 + length),
    })
    const end = at + 24 + length
    at = (end + 7) & ~7
    if (buf.subarray(end, at).some(byte => byte !== 0)) found.push('padding that is not zero')
  }
  return found
}

t.test('a validity is exact to a nanosecond and never longer than requested', async t => {
  fc.assert(
    fc.property(fc.double({ min: 0, max: 2 ** 31, noNaN: true }), seconds => {
      const { sec, nsec } = new Validity(seconds)
      const rest = seconds - sec - nsec / 1e9
      return Number.isInteger(sec) && nsec >= 0 && nsec < 1e9 && rest > -1e-6 && rest < 1e-6
    }),
  )
  t.match(new Validity(1.5), { sec: 1, nsec: 500_000_000 })
})

const show = (all: unknown[]): string =>
  JSON.stringify(all, (_, value: unknown) => (typeof value === 'bigint' ? `${value}` : value))

t.test('entries are encoded completely, and none is truncated', async () => {
  fc.assert(
    fc.property(
      fc.array(entry, { maxLength: 8 }),
      fc.integer({ min: 0, max: 1500 }),
      (list, room) => {
        const rep = new Reply(4096)
        rep.buf.fill(0xee)
        const packer = new DirPacker(rep)
        packer.begin(16, room)
        const taken = list.filter(e => packer.add(e.name, e.ino, e.type, e.cookie))
        const want = taken.map(e => ({
          ino: BigInt(e.ino),
          cookie: e.cookie,
          type: e.type,
          name: e.name,
        }))
        const got = dirents(rep.buf, 16, packer.end, 0)
        return show(got) === show(want) && packer.end <= 16 + room && rep.buf[packer.end] === 0xee
      },
    ),
  )
})

t.test('the same with attributes; the nodes can be read back', async () => {
  fc.assert(
    fc.property(
      fc.array(entry, { maxLength: 6 }),
      fc.integer({ min: 0, max: 2500 }),
      (list, room) => {
        const rep = new Reply(4096)
        rep.buf.fill(0xee)
        const packer = new DirPlusPacker(rep, SECOND, () => SECOND)
        packer.begin(16, room)
        const out = new Entry()
        const taken = list.filter(e => {
          if (!packer.room(e.name)) return false
          out.nodeId = e.node
          packer.add(e.name, e.ino, e.type, e.cookie, out)
          return true
        })
        const nodes: number[] = []
        forEachPlusEntry(rep.buf, packer.end, node => nodes.push(node))
        const names = dirents(rep.buf, 16, packer.end, 128).map(e => (e as { name: string }).name)
        return (
          packer.end <= 16 + room &&
          JSON.stringify(names) === JSON.stringify(taken.map(e => e.name)) &&
          JSON.stringify(nodes) ===
            JSON.stringify(taken.map(e => e.node).filter(node => node !== 0))
        )
      },
    ),
  )
})

t.test('a device number is preserved', async () => {
  const rep = new Reply(256)
  const attr = new Attr()
  fc.assert(
    fc.property(fc.nat({ max: 0xfff }), fc.nat({ max: 0xfffff }), (major, minor) => {
      attr.rdevMajor = major
      attr.rdevMinor = minor
      writeAttrOut(rep, 16, attr, SECOND)
      const dev = rep.buf.readUInt32LE(16 + 16 + 76)
      return devMajor(dev) === major && devMinor(dev) === minor
    }),
  )
})

t.test('times before 1970; a reply has no bytes of the previous one', async t => {
  const rep = new Reply(512)
  rep.buf.fill(0xee)
  const attr = new Attr()
  attr.mtimeSec = -1
  attr.btimeSec = -(2 ** 40)
  const length = writeStatx(rep, 16, attr, SECOND)
  t.equal(rep.buf.readBigInt64LE(16 + 32 + 112), -1n)
  t.equal(rep.buf.readBigInt64LE(16 + 32 + 80), -(2n ** 40n))
  t.notOk(rep.buf.subarray(16, 16 + length).includes(0xee), 'spare fields are zero')
  rep.buf.fill(0xee)
  writeEntry(rep, 16, new Entry(), SECOND, SECOND)
  const bytes = rep.buf.subarray(16, 16 + 128)
  t.equal(bytes.readBigUInt64LE(16), 1n, 'a name that is not there, for a second')
  t.equal(bytes.filter(byte => byte !== 0).length, 1)
})
