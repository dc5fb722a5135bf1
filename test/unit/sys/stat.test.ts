import * as fs from 'node:fs'
import * as fc from 'fast-check'
import t from 'tap'
import * as at from '../../../src/sys/at.js'
import * as k from '../../../src/sys/constants.js'
import { E } from '../../../src/sys/errno.js'
import { pwrite } from '../../../src/sys/io.js'
import { umask } from '../../../src/sys/proc.js'
import { ino64, Stat, Statx, STATX_WORDS } from '../../../src/sys/stat.js'
import { directory } from './support.js'

umask(0)

t.test('Stat against node:fs', async t => {
  const d = directory(t)
  fs.writeFileSync(d.at('file'), 'hello')
  fs.mkdirSync(d.at('dir'), { mode: 0o1751 })
  fs.symlinkSync('file', d.at('link'))
  fs.linkSync(d.at('file'), d.at('file2'))
  t.equal(at.mknodat(d.fd, 'blk', k.S_IFBLK | 0o600, 0xabc, 0xf1234), 0)
  t.equal(at.mknodat(d.fd, 'chr', k.S_IFCHR | 0o600, 1, 3), 0)
  t.equal(at.mknodat(d.fd, 'fifo', k.S_IFIFO | 0o600, 0, 0), 0)
  t.equal(at.mknodat(d.fd, 'sock', k.S_IFSOCK | 0o600, 0, 0), 0)
  t.equal(at.mknodat(d.fd, 'reg', k.S_IFREG | 0o6611, 0, 0), 0)
  t.equal(at.mknodat(d.fd, 'wh', k.S_IFCHR, 0, 0), 0)
  t.equal(at.utimensat(d.fd, 'file', 1, 500_000_000, -3, 750_000_000), 0)
  fs.chownSync(d.at('file'), 4_000_000_000, 3_000_000_000)

  const st = new Stat()
  const copy = new Stat()
  for (const name of fs.readdirSync(d.path)) {
    t.equal(at.statxat(d.fd, name, st), 0)
    const real = fs.lstatSync(d.at(name), { bigint: true })
    copy.copyFrom(st)
    const o = d.keep(at.openat(d.fd, name, k.O_PATH))
    t.equal(at.fstatx(o, st), 0)
    for (const s of [st, copy]) {
      t.strictSame(
        {
          mode: BigInt(s.mode),
          nlink: BigInt(s.nlink),
          uid: BigInt(s.uid),
          gid: BigInt(s.gid),
          ino: BigInt(s.ino),
          size: BigInt(s.size),
          blocks: BigInt(s.blocks),
          blksize: BigInt(s.blksize),
          atimeNs: BigInt(s.atimeSec) * 1_000_000_000n + BigInt(s.atimeNsec),
          mtimeNs: BigInt(s.mtimeSec) * 1_000_000_000n + BigInt(s.mtimeNsec),
          ctimeNs: BigInt(s.ctimeSec) * 1_000_000_000n + BigInt(s.ctimeNsec),
          birthtimeNs: BigInt(s.btimeSec) * 1_000_000_000n + BigInt(s.btimeNsec),
        },
        {
          mode: real.mode,
          nlink: real.nlink,
          uid: real.uid,
          gid: real.gid,
          ino: real.ino,
          size: real.size,
          blocks: real.blocks,
          blksize: real.blksize,
          atimeNs: real.atimeNs,
          mtimeNs: real.mtimeNs,
          ctimeNs: real.ctimeNs,
          birthtimeNs: real.birthtimeNs,
        },
        name,
      )
      // gnu_dev_makedev()
      const { devMajor, devMinor, rdevMajor, rdevMinor } = s
      t.equal(
        real.dev,
        BigInt((devMinor & 0xff) | (devMajor << 8)) + (BigInt(devMinor >> 8) << 20n),
      )
      t.equal(
        real.rdev,
        BigInt((rdevMinor & 0xff) | (rdevMajor << 8)) + (BigInt(rdevMinor >> 8) << 20n),
      )
      t.equal(s.dev, devMajor * 2 ** 20 + devMinor)
      t.equal(s.isDir, real.isDirectory())
      t.equal(s.isReg, real.isFile())
      t.equal(s.isLnk, real.isSymbolicLink())
      t.equal(s.isChr, real.isCharacterDevice())
      t.equal(s.isWhiteout, name === 'wh')
      t.equal(s.mask & (k.STATX_BASIC_STATS | k.STATX_BTIME), k.STATX_BASIC_STATS | k.STATX_BTIME)
      t.ok(
        new RegExp(`^${s.mntId} `, 'm').test(fs.readFileSync('/proc/self/mountinfo', 'latin1')),
        'mntId',
      )
    }
  }
  t.equal(at.statxat(d.fd, 'blk', st), 0)
  t.strictSame([st.rdevMajor, st.rdevMinor], [0xabc, 0xf1234])
  t.equal(at.statxat(d.fd, 'file', st), 0)
  t.strictSame(
    [st.mtimeSec, st.mtimeNsec, st.uid, st.gid],
    [-3, 750_000_000, 4_000_000_000, 3_000_000_000],
  )
  t.equal(at.statPath(d.at('link'), st), 0)
  t.ok(st.isReg, 'statPath follows')
  t.equal(at.statPath(d.at('none'), st), -E.ENOENT)
  t.equal(at.statPath('/proc', st), 0)
  t.ok(Number(st.attributes) & k.STATX_ATTR_MOUNT_ROOT)
  t.ok(Number(st.attributesMask) & k.STATX_ATTR_MOUNT_ROOT)
  t.equal(at.fstatx(-1, st), -E.EBADF)
  t.equal(at.statxat(d.fd, '', st), 0, 'the directory itself')
  t.equal(at.mknodat(d.fd, 'x', k.S_IFCHR, 0x1000, 0), -E.EINVAL)
  t.equal(at.mknodat(d.fd, 'x', k.S_IFCHR, 0, 0x100000), -E.EINVAL)
  t.equal(at.mknodat(d.fd, 'x', k.S_IFCHR, -1, 0), -E.EINVAL)
})

t.test('Stat: sizes and numbers beyond 32 and 53 bits', async t => {
  const d = directory(t)
  const fd = d.keep(at.openat(d.fd, 'big', k.O_CREAT | k.O_RDWR, 0o600))
  const size = 5 * 2 ** 40 + 12_345
  t.equal(pwrite(fd, Buffer.from('x'), 0, 1, size - 1), 1)
  const st = new Stat()
  t.equal(at.fstatx(fd, st), 0)
  t.equal(st.size, size)
  t.equal(BigInt(st.size), fs.fstatSync(fd, { bigint: true }).size)

  st.buffer.writeBigUInt64LE(0xffff_ffff_ffff_ffffn, 32)
  t.equal(st.ino, 0xffff_ffff_ffff_ffffn)
  st.buffer.writeBigUInt64LE(2n ** 53n, 32)
  t.equal(st.ino, 2n ** 53n)
  st.buffer.writeBigUInt64LE(2n ** 53n - 1n, 32)
  t.equal(st.ino, Number.MAX_SAFE_INTEGER)
  t.equal(ino64(1, 0x20_0000), 2n ** 53n + 1n)
  st.buffer.writeBigInt64LE(-62_135_596_800n, 64)
  t.equal(st.atimeSec, -62_135_596_800)
})

t.test('a copy is independent', async t => {
  const one = new Stat()
  const two = new Stat()
  one.buffer.fill(0x7f)
  two.copyFrom(one)
  t.same(two.buffer, one.buffer)
  one.buffer.fill(0)
  t.equal(two.nlink, 0x7f7f7f7f)
})

t.test('every 64-bit number is exact', async () => {
  fc.assert(
    fc.property(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), n => {
      const got = ino64(Number(n & 0xffff_ffffn), Number(n >> 32n))
      return BigInt(got) === n && (typeof got === 'number') === Number.isSafeInteger(Number(n))
    }),
  )
})

t.test('only a character device 0/0 is a whiteout', async t => {
  const st = new Stat()
  const set = (mode: number, major: number, minor: number): boolean => {
    st.buffer.writeUInt16LE(mode, 28)
    st.buffer.writeUInt32LE(major, 128)
    st.buffer.writeUInt32LE(minor, 132)
    return st.isWhiteout
  }
  t.ok(set(k.S_IFCHR, 0, 0))
  t.ok(set(k.S_IFCHR | 0o777, 0, 0))
  t.notOk(set(k.S_IFCHR, 0, 1))
  t.notOk(set(k.S_IFCHR, 1, 0))
  t.notOk(set(k.S_IFBLK, 0, 0))
})

t.test('setters and getters agree', async t => {
  const st = new Statx(new Uint32Array(STATX_WORDS))
  const values = {
    mask: 0xfff,
    blksize: 0xffff_ffff,
    attributes: 0x10_0000,
    nlink: 3,
    uid: 0xffff_fffe,
    gid: 5,
    mode: 0o100644,
    ino: 2n ** 64n - 2n,
    size: 2 ** 53 - 1,
    blocks: 2 ** 33 + 1,
    attributesMask: 2n ** 60n + 1n,
    atimeSec: -1,
    atimeNsec: 999_999_999,
    btimeSec: -(2 ** 40),
    btimeNsec: 1,
    ctimeSec: 2 ** 33,
    ctimeNsec: 2,
    mtimeSec: 1,
    mtimeNsec: 4,
    rdevMajor: 6,
    rdevMinor: 0xf_ffff,
  }
  Object.assign(st, values)
  const other = new Statx(new Uint32Array(STATX_WORDS))
  other.copyFrom(st)
  for (const [field, value] of Object.entries(values)) {
    t.equal(Reflect.get(st, field), value, field)
    t.equal(Reflect.get(other, field), value)
  }
})
