/**
 * src/sys/at.ts and what it re-exports, against node:fs on the real file system. Needs root.
 */

import * as fs from 'node:fs'
import t from 'tap'
import * as at from '../../../src/sys/at.js'
import * as k from '../../../src/sys/constants.js'
import { E } from '../../../src/sys/errno.js'
import { features } from '../../../src/sys/features.js'
import { close, fsync, pwrite, seekdir } from '../../../src/sys/io.js'
import { dropCap, raiseCap, umask } from '../../../src/sys/proc.js'
import { ino64, Stat } from '../../../src/sys/stat.js'
import { folder } from './support.js'

umask(0)

const NOT_UTF8 = 'caf\xe9-\xff\x01\n'
const NAME_255 = 'n'.repeat(255)

t.test('openat adds O_CLOEXEC and O_NOFOLLOW', async t => {
  const d = folder(t)
  const fd = d.keep(at.openat(d.fd, 'file', k.O_CREAT | k.O_EXCL | k.O_RDWR, 0o640))
  t.equal(fs.statSync(d.at('file')).mode, k.S_IFREG | 0o640)
  t.match(fs.readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1'), /flags:\t02\d*2\n/)
  t.equal(at.openat(d.fd, 'file', k.O_CREAT | k.O_EXCL, 0o600), -E.EEXIST)
  t.equal(at.openat(d.fd, 'none', k.O_RDONLY), -E.ENOENT)
  t.equal(at.openat(d.fd, '', k.O_RDONLY), -E.ENOENT)
  t.equal(at.openat(-1, 'file', k.O_RDONLY), -E.EBADF)
  t.equal(at.openat(fd, 'file', k.O_RDONLY), -E.ENOTDIR)
  t.equal(at.openat(d.fd, 'file', k.O_RDONLY | k.O_DIRECTORY), -E.ENOTDIR)

  fs.symlinkSync('file', d.at('link'))
  t.equal(at.openat(d.fd, 'link', k.O_RDONLY), -E.ELOOP)
  const link = d.keep(at.openat(d.fd, 'link', k.O_PATH))
  const st = new Stat()
  t.equal(at.fstatx(link, st), 0)
  t.ok(st.isLnk)

  const followed = d.keep(at.openPath(d.at('link'), k.O_RDONLY))
  t.equal(at.fstatx(followed, st), 0)
  t.ok(st.isReg)
  t.equal(at.openPath(d.at('none'), k.O_RDONLY), -E.ENOENT)
  t.equal(fs.readlinkSync(at.fdPath(followed)), d.at('file'))
  fs.mkdirSync(d.at('größe'))
  t.ok(d.keep(at.openPath(d.at('größe'), k.O_PATH)))
  t.equal(at.toByteString('ö'), '\xc3\xb6')
})

t.test('names: any byte, lengths up to the limits', async t => {
  const d = folder(t)
  const st = new Stat()
  for (const name of [NOT_UTF8, NAME_255, 'x'.repeat(22), 'x'.repeat(23), '\x80', ' ']) {
    t.equal(at.mkdirat(d.fd, name, 0o700), 0)
    t.equal(at.statxat(d.fd, name, st), 0)
    const real = fs.lstatSync(Buffer.from(`${d.path}/${name}`, 'latin1'), { bigint: true })
    t.equal(BigInt(st.ino), real.ino)
    t.equal(at.rmdirat(d.fd, name), 0)
  }
  // A short name after a long one leaves nothing of it.
  t.equal(at.statxat(d.fd, 'n', st), -E.ENOENT)
  t.equal(at.statxat(d.fd, `${NAME_255}n`, st), -E.ENAMETOOLONG)

  const long = 'n'.repeat(5000)
  const slashes = `${'/'.repeat(4090)}tmp`
  t.equal(at.statxat(d.fd, slashes, st), 0)
  t.equal(at.statxat(d.fd, `//${slashes}`, st), 0, '4095 bytes')
  t.equal(at.statxat(d.fd, `///${slashes}`, st), -E.ENAMETOOLONG, '4096 bytes')
  const calls: Record<string, () => number> = {
    openat: () => at.openat(d.fd, long, 0),
    openPath: () => at.openPath(long, 0),
    openat2: () => at.openat2(d.fd, long, 0, 0, 0),
    statxat: () => at.statxat(d.fd, long, st),
    statPath: () => at.statPath(long, st),
    mkdirat: () => at.mkdirat(d.fd, long, 0),
    mknodat: () => at.mknodat(d.fd, long, k.S_IFREG, 0, 0),
    symlinkat: () => at.symlinkat(long, d.fd, 'a'),
    'symlinkat name': () => at.symlinkat('a', d.fd, long),
    linkat: () => at.linkat(d.fd, long, d.fd, 'a'),
    'linkat to': () => at.linkat(d.fd, 'a', d.fd, long),
    linkFd: () => at.linkFd(d.fd, d.fd, long),
    unlinkat: () => at.unlinkat(d.fd, long),
    rmdirat: () => at.rmdirat(d.fd, long),
    renameat2: () => at.renameat2(d.fd, long, d.fd, 'a', 0),
    'renameat2 to': () => at.renameat2(d.fd, 'a', d.fd, long, 0),
    readlinkat: () => at.readlinkat(d.fd, long, Buffer.alloc(10)),
    fchmodat: () => at.fchmodat(d.fd, long, 0),
    fchownat: () => at.fchownat(d.fd, long, 0, 0),
    utimensat: () => at.utimensat(d.fd, long, 0, 0, 0, 0),
    nameToHandle: () => at.nameToHandle(d.fd, long, Buffer.alloc(128)),
  }
  for (const [name, call] of Object.entries(calls)) t.equal(call(), -E.ENAMETOOLONG, name)
})

t.test('openat2', async t => {
  const d = folder(t)
  fs.mkdirSync(d.at('dir'))
  fs.symlinkSync('..', d.at('dir/up'))
  const dir = d.keep(at.openat2(d.fd, 'dir', k.O_PATH | k.O_DIRECTORY, 0, 0))
  t.match(fs.readFileSync(`/proc/self/fdinfo/${dir}`, 'latin1'), /flags:\t012/, 'O_CLOEXEC')
  const follow = at.openat2(dir, 'up', k.O_RDONLY, 0, 0)
  t.ok(follow >= 0, 'follows symlinks unless told otherwise')
  close(follow)
  t.equal(at.openat2(dir, 'up', k.O_RDONLY, 0, k.RESOLVE_BENEATH), -E.EXDEV)
  t.equal(at.openat2(dir, 'up', k.O_RDONLY, 0, k.RESOLVE_NO_SYMLINKS), -E.ELOOP)
  const st = new Stat()
  const inRoot = d.keep(at.openat2(dir, '/up', k.O_RDONLY, 0, k.RESOLVE_IN_ROOT))
  t.equal(at.fstatx(inRoot, st), 0)
  t.equal(BigInt(st.ino), fs.statSync(d.at('dir'), { bigint: true }).ino)
  const file = d.keep(at.openat2(dir, 'new', k.O_CREAT | k.O_WRONLY, 0o604, 0))
  t.equal(at.fstatx(file, st), 0)
  t.equal(st.mode, k.S_IFREG | 0o604)
  t.equal(at.openat2(dir, 'new', k.O_RDONLY, 0o604, 0), -E.EINVAL, 'a mode without O_CREAT')
})

t.test('Stat against node:fs', async t => {
  const d = folder(t)
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
  t.equal(at.statxat(d.fd, '', st), -E.ENOENT)
  t.equal(at.mknodat(d.fd, 'x', k.S_IFCHR, 0x1000, 0), -E.EINVAL)
  t.equal(at.mknodat(d.fd, 'x', k.S_IFCHR, 0, 0x100000), -E.EINVAL)
  t.equal(at.mknodat(d.fd, 'x', k.S_IFCHR, -1, 0), -E.EINVAL)
})

t.test('Stat: sizes and numbers beyond 32 and 53 bits', async t => {
  const d = folder(t)
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

t.test('mkdir, symlink, link, unlink, rmdir', async t => {
  const d = folder(t)
  t.equal(at.mkdirat(d.fd, 'dir', 0o2770), 0)
  t.equal(fs.statSync(d.at('dir')).mode & 0o777, 0o770)
  t.equal(at.mkdirat(d.fd, 'dir', 0o700), -E.EEXIST)
  t.equal(at.symlinkat(NOT_UTF8, d.fd, 'link'), 0)
  t.same(fs.readlinkSync(d.at('link'), { encoding: 'buffer' }), Buffer.from(NOT_UTF8, 'latin1'))
  t.equal(at.symlinkat('', d.fd, 'empty'), -E.ENOENT)
  t.equal(at.linkat(d.fd, 'link', d.fd, 'link2'), 0)
  t.ok(fs.lstatSync(d.at('link2')).isSymbolicLink(), 'a link to the symlink itself')
  t.equal(at.linkat(d.fd, 'dir', d.fd, 'dir2'), -E.EPERM)
  t.equal(at.unlinkat(d.fd, 'dir'), -E.EISDIR)
  t.equal(at.rmdirat(d.fd, 'link'), -E.ENOTDIR)
  t.equal(at.unlinkat(d.fd, 'link'), 0)
  t.equal(at.unlinkat(d.fd, 'link'), -E.ENOENT)
  fs.writeFileSync(d.at('dir/file'), '')
  t.equal(at.rmdirat(d.fd, 'dir'), -E.ENOTEMPTY)
  fs.unlinkSync(d.at('dir/file'))
  t.equal(at.rmdirat(d.fd, 'dir'), 0)
})

t.test('linkFd', async t => {
  const d = folder(t)
  const tmp = d.keep(at.openat(d.fd, '.', k.O_TMPFILE | k.O_RDWR, 0o600))
  t.equal(at.linkFd(tmp, d.fd, 'tmp'), 0)
  t.equal(fs.statSync(d.at('tmp')).nlink, 1)
  t.equal(at.linkFd(tmp, d.fd, 'tmp'), -E.EEXIST)
  const path = d.keep(at.openat(d.fd, 'tmp', k.O_PATH))
  t.equal(at.linkFd(path, d.fd, 'tmp2'), 0)
  t.equal(fs.statSync(d.at('tmp')).nlink, 2)
  t.equal(at.linkFd(d.fd, d.fd, 'self'), -E.EPERM)
  dropCap(k.CAP_DAC_READ_SEARCH)
  t.equal(at.linkFd(path, d.fd, 'tmp3'), 0, 'without CAP_DAC_READ_SEARCH')
  raiseCap(k.CAP_DAC_READ_SEARCH)
  fs.mkdirSync(d.at('gone'))
  const gone = d.keep(at.openat(d.fd, 'gone', k.O_PATH))
  fs.rmdirSync(d.at('gone'))
  t.equal(at.linkFd(path, gone, 'x'), -E.ENOENT)
})

t.test('renameat2', async t => {
  const d = folder(t)
  fs.writeFileSync(d.at('a'), 'a')
  fs.writeFileSync(d.at('b'), 'b')
  t.equal(at.renameat2(d.fd, 'a', d.fd, 'b', k.RENAME_NOREPLACE), -E.EEXIST)
  t.equal(at.renameat2(d.fd, 'a', d.fd, 'b', k.RENAME_EXCHANGE), 0)
  t.equal(fs.readFileSync(d.at('a'), 'latin1'), 'b')
  t.equal(at.renameat2(d.fd, 'a', d.fd, 'b', 0), 0)
  t.equal(fs.readFileSync(d.at('b'), 'latin1'), 'b')
  t.equal(at.renameat2(d.fd, 'b', d.fd, 'c', k.RENAME_WHITEOUT), 0)
  const st = new Stat()
  t.equal(at.statxat(d.fd, 'b', st), 0)
  t.ok(st.isWhiteout)
  t.equal(at.renameat2(d.fd, 'none', d.fd, 'c', 0), -E.ENOENT)
  t.equal(at.renameat2(d.fd, 'b', d.fd, 'c', 0x100), -E.EINVAL)
})

t.test('readlinkat', async t => {
  const d = folder(t)
  const buf = Buffer.alloc(4096, 0x21)
  fs.symlinkSync('to/where', d.at('link'))
  t.equal(at.readlinkat(d.fd, 'link', buf), 8)
  t.equal(buf.toString('latin1', 0, 9), 'to/where!')
  t.equal(at.readlinkat(d.fd, 'link', buf.subarray(100, 103)), 3, 'cut')
  t.equal(buf.toString('latin1', 99, 104), '!to/!')
  const fd = d.keep(at.openat(d.fd, 'link', k.O_PATH))
  t.equal(at.readlinkat(fd, '', buf), 8)
  t.equal(at.readlinkat(d.fd, '.', buf), -E.EINVAL)
  t.equal(at.readlinkat(d.fd, '', buf), -E.ENOENT)
  t.equal(at.readlinkat(d.fd, 'none', buf), -E.ENOENT)
})

// With fchmodat2 where the kernel has it, then as on a kernel without.
for (const kernel of ['this', 'older']) {
  t.test(`mode, owner, times; ${kernel} kernel`, async t => {
    const before = features.fchmodat2
    t.teardown(() => (features.fchmodat2 = before))
    if (kernel === 'older') features.fchmodat2 = false

    const d = folder(t)
    fs.writeFileSync(d.at('file'), '')
    fs.symlinkSync('file', d.at('link'))
    const rw = d.keep(at.openat(d.fd, 'file', k.O_RDWR))
    const path = d.keep(at.openat(d.fd, 'file', k.O_PATH))
    const link = d.keep(at.openat(d.fd, 'link', k.O_PATH))
    const mode = (): number => fs.statSync(d.at('file')).mode & 0o7777

    t.equal(at.fchmodat(d.fd, 'file', 0o4711), 0)
    t.equal(mode(), 0o4711)
    t.equal(at.fchmodat(d.fd, 'link', 0o600), -E.EOPNOTSUPP)
    t.equal(at.fchmodat(d.fd, 'none', 0o600), -E.ENOENT)
    t.equal(mode(), 0o4711, 'the symlink was not followed')
    t.equal(at.fchmod(rw, 0o640), 0)
    t.equal(mode(), 0o640)
    t.equal(at.fchmod(path, 0o604), 0)
    t.equal(mode(), 0o604)
    t.equal(at.fchmod(link, 0o600), -E.EOPNOTSUPP)
    t.equal(at.fchmod(-1, 0o600), -E.EBADF)
    t.equal(at.fchmod(999_999, 0o600), -E.EBADF)

    const owner = (name: string): number[] => {
      const s = fs.lstatSync(d.at(name))
      return [s.uid, s.gid]
    }
    t.equal(at.fchownat(d.fd, 'file', 1, 4_294_967_294), 0)
    t.strictSame(owner('file'), [1, 4_294_967_294])
    t.equal(at.fchownat(d.fd, 'link', 5, -1), 0)
    t.strictSame(
      [owner('link'), owner('file')],
      [
        [5, 0],
        [1, 4_294_967_294],
      ],
    )
    t.equal(at.fchown(path, -1, 7), 0)
    t.equal(at.fchown(rw, 8, 0xffff_ffff), 0)
    t.strictSame(owner('file'), [8, 7])
    t.equal(at.fchown(link, 9, 9), 0)
    t.strictSame(
      [owner('link'), owner('file')],
      [
        [9, 9],
        [8, 7],
      ],
    )
    t.equal(at.fchownat(d.fd, 'none', 1, 1), -E.ENOENT)

    const times = (name: string): string => {
      const s = fs.lstatSync(d.at(name), { bigint: true })
      return `${s.atimeNs} ${s.mtimeNs}`
    }
    t.equal(at.utimensat(d.fd, 'file', 1, 123_456_789, -1_000_000_000, 999_999_999), 0)
    t.equal(times('file'), '1123456789 -999999999000000001')
    t.equal(at.utimensat(d.fd, 'link', 7_000_000_000, 1, 7, 0), 0, 'beyond 32 bits')
    t.equal(times('link'), '7000000000000000001 7000000000')
    t.equal(times('file'), '1123456789 -999999999000000001')
    t.equal(at.futimens(path, 0, k.UTIME_OMIT, 42, 0), 0)
    t.equal(times('file'), '1123456789 42000000000')
    t.equal(at.futimens(rw, 43, 1, 0, k.UTIME_OMIT), 0)
    t.equal(times('file'), '43000000001 42000000000')
    t.equal(at.futimens(link, 1, 0, 2, 0), 0)
    t.equal(times('link'), '1000000000 2000000000')
    t.equal(at.utimensat(d.fd, 'file', 0, k.UTIME_NOW, 0, k.UTIME_NOW), 0)
    t.ok(Math.abs(fs.statSync(d.at('file')).mtimeMs - Date.now()) < 5000)
    t.equal(at.utimensat(d.fd, 'file', 0, 1_000_000_000, 0, 0), -E.EINVAL)
    t.equal(at.utimensat(d.fd, 'none', 0, 0, 0, 0), -E.ENOENT)
    t.equal(at.futimens(-1, 0, 0, 0, 0), -E.EBADF)
  })
}

t.test('getdents64 and Dirents', async t => {
  const d = folder(t)
  fs.mkdirSync(d.at('many'))
  const dir = d.keep(at.openat(d.fd, 'many', k.O_RDONLY | k.O_DIRECTORY))
  const want = new Map<string, number>([
    ['.', k.DT_DIR],
    ['..', k.DT_DIR],
    ['.x', k.DT_REG],
    ['...', k.DT_REG],
  ])
  for (let i = 1; i < 40; i++) want.set('n'.repeat(i), k.DT_REG)
  want.set(NAME_255, k.DT_REG).set(NOT_UTF8, k.DT_REG)
  for (const [name, type] of want) {
    if (type === k.DT_REG) close(at.openat(dir, name, k.O_CREAT | k.O_WRONLY, 0o600))
  }
  want.set('dir', k.DT_DIR).set('link', k.DT_LNK).set('fifo', k.DT_FIFO).set('wh', k.DT_CHR)
  at.mkdirat(dir, 'dir', 0o700)
  at.symlinkat('x', dir, 'link')
  at.mknodat(dir, 'fifo', k.S_IFIFO, 0, 0)
  at.mknodat(dir, 'wh', k.S_IFCHR, 0, 0)

  // A small buffer with old bytes in it, so that there are several calls and padding is not zero.
  const dirents = new at.Dirents(Buffer.alloc(600, 0xaa))
  const got = new Map<string, number>()
  const after = new Map<string, number | bigint>()
  const order: string[] = []
  const st = new Stat()
  let n
  while ((n = dirents.fill(dir)) > 0) {
    while (dirents.next()) {
      const { name } = dirents
      got.set(name, dirents.type)
      order.push(name)
      after.set(name, dirents.off)
      t.equal(dirents.name, name)
      t.equal(dirents.isDots, name === '.' || name === '..', name)
      if (at.statxat(dir, name, st) === 0 && name !== '..') t.equal(dirents.ino, st.ino)
    }
    t.notOk(dirents.next())
  }
  t.equal(n, 0)
  t.notOk(dirents.next())
  t.strictSame(got, want)

  // From each cookie on, the same entries follow.
  for (const i of [0, 7, 30, order.length - 2]) {
    t.equal(seekdir(dir, after.get(order[i]!)!), 0)
    t.ok(dirents.fill(dir) > 0)
    t.ok(dirents.next())
    t.equal(dirents.name, order[i + 1])
  }
  t.equal(seekdir(dir, 0), 0)
  const buf = Buffer.alloc(32_768)
  const length = at.getdents64(dir, buf)
  t.ok(length > 0)
  const all = new at.Dirents(buf, length)
  let count = 0
  while (all.next()) count++
  t.equal(count, want.size)

  t.equal(at.getdents64(dir, Buffer.alloc(8)), 0)
  t.equal(seekdir(dir, 0), 0)
  t.equal(at.getdents64(dir, Buffer.alloc(8)), -E.EINVAL)
  t.equal(at.getdents64(-1, buf), -E.EBADF)
  t.equal(dirents.fill(-1), -E.EBADF)
  t.notOk(dirents.next())
})

t.test('statfs', async t => {
  const d = folder(t)
  const out = new at.StatFs()
  const real = fs.statfsSync(d.path)
  t.equal(at.statfs(d.fd, out), 0)
  t.strictSame(
    [out.type, out.bsize, out.blocks, out.files],
    [real.type, real.bsize, real.blocks, real.files],
  )
  t.ok(out.bavail <= out.bfree && out.bfree <= out.blocks && out.ffree <= out.files)
  t.equal(out.namelen, 255)
  t.equal(out.frsize, 4096)
  const proc = d.keep(at.openPath('/proc', k.O_PATH))
  t.equal(at.statfs(proc, out), 0, 'O_PATH')
  t.equal(out.type, k.PROC_SUPER_MAGIC)
  t.equal(at.statfs(-1, out), -E.EBADF)
})

t.test('file handles', async t => {
  const d = folder(t)
  fs.writeFileSync(d.at('file'), 'hello')
  fs.symlinkSync('file', d.at('link'))
  const st = new Stat()
  const st2 = new Stat()
  const buf = Buffer.alloc(at.MAX_HANDLE_SIZE)
  for (const name of ['file', 'link', '.']) {
    const n = at.nameToHandle(d.fd, name, buf)
    t.ok(n > 0)
    const type = at.lastHandleType
    const handle = Buffer.from(buf.subarray(0, n))
    const o = at.openat(d.fd, name, k.O_PATH)
    t.equal(at.nameToHandle(o, '', buf), n, 'the descriptor itself')
    t.same(buf.subarray(0, n), handle)
    const fd = at.openByHandle(d.fd, type, handle, k.O_PATH)
    at.statxat(d.fd, name, st)
    at.fstatx(fd, st2)
    t.equal(st2.ino, st.ino)
    t.equal(st2.mode, st.mode)
    t.equal(close(o), 0)
    t.equal(close(fd), 0)
  }
  const n = at.nameToHandle(d.fd, 'file', buf)
  const handle = buf.subarray(0, n)
  const fd = at.openByHandle(d.fd, at.lastHandleType, handle, k.O_RDONLY)
  t.match(fs.readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1'), /flags:\t02/, 'O_CLOEXEC')
  t.equal(fs.readFileSync(fd, 'latin1'), 'hello')
  t.equal(at.nameToHandle(d.fd, 'file', Buffer.alloc(3)), -E.EOVERFLOW)
  t.equal(at.nameToHandle(d.fd, 'none', buf), -E.ENOENT)
  const proc = d.keep(at.openPath('/proc', k.O_PATH))
  t.equal(at.nameToHandle(proc, 'stat', Buffer.alloc(128)), -E.EOPNOTSUPP)
  t.equal(at.openByHandle(d.fd, at.lastHandleType, Buffer.alloc(129), 0), -E.EINVAL)
  const path = d.keep(at.openat(d.fd, '.', k.O_PATH))
  t.equal(at.openByHandle(path, at.lastHandleType, handle, 0), -E.EBADF)

  close(fd)
  at.unlinkat(d.fd, 'file')
  fsync(d.fd)
  t.equal(at.openByHandle(d.fd, at.lastHandleType, handle, k.O_RDONLY), -E.ESTALE)
})
