/** src/sys/at.ts against node:fs on the real file system. Needs root. */

import * as fs from 'node:fs'
import t from 'tap'
import * as at from '../../../src/sys/at.js'
import * as k from '../../../src/sys/constants.js'
import { E } from '../../../src/sys/errno.js'
import { close } from '../../../src/sys/io.js'
import { dropCap, raiseCap, umask } from '../../../src/sys/proc.js'
import { Stat } from '../../../src/sys/stat.js'
import { directory } from './support.js'

umask(0)

const NOT_UTF8 = 'caf\xe9-\xff\x01\n'
const NAME_255 = 'n'.repeat(255)

t.test('openat adds O_CLOEXEC and O_NOFOLLOW', async t => {
  const d = directory(t)
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
  const d = directory(t)
  const st = new Stat()
  for (const name of [NOT_UTF8, NAME_255, 'x'.repeat(22), 'x'.repeat(23), '\x80', ' ']) {
    t.equal(at.mkdirat(d.fd, name, 0o700), 0)
    t.equal(at.statxat(d.fd, name, st), 0)
    const real = fs.lstatSync(Buffer.from(`${d.path}/${name}`, 'latin1'), { bigint: true })
    t.equal(BigInt(st.ino), real.ino)
    t.equal(at.rmdirat(d.fd, name), 0)
  }
  // A short name after a long one: nothing of the long one must remain.
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
  const d = directory(t)
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
  // EAGAIN: a mount or rename elsewhere in the system happened meanwhile.
  let inRoot: number = -E.EAGAIN
  while (inRoot === -E.EAGAIN) inRoot = at.openat2(dir, '/up', k.O_RDONLY, 0, k.RESOLVE_IN_ROOT)
  d.keep(inRoot)
  t.equal(at.fstatx(inRoot, st), 0)
  t.equal(BigInt(st.ino), fs.statSync(d.at('dir'), { bigint: true }).ino)
  const file = d.keep(at.openat2(dir, 'new', k.O_CREAT | k.O_WRONLY, 0o604, 0))
  t.equal(at.fstatx(file, st), 0)
  t.equal(st.mode, k.S_IFREG | 0o604)
  t.equal(at.openat2(dir, 'new', k.O_RDONLY, 0o604, 0), -E.EINVAL, 'a mode without O_CREAT')
})

t.test('mkdir, symlink, link, unlink, rmdir', async t => {
  const d = directory(t)
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
  const d = directory(t)
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
  const d = directory(t)
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
  const d = directory(t)
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
