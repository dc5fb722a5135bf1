/** src/sys/io.ts on the real filesystem, and the addresses of buffers (scratch.ts). */

import * as fs from 'node:fs'
import t from 'tap'
import { openat, openPath } from '../../../src/sys/at.js'
import * as k from '../../../src/sys/constants.js'
import { E } from '../../../src/sys/errno.js'
import * as io from '../../../src/sys/io.js'
import { addressOf } from '../../../src/sys/scratch.js'
import { directory, type Directory } from './support.js'

const TIB = 2 ** 40

/** Whether a descriptor has O_CLOEXEC, as the kernel shows it. */
const cloexec = (fd: number): boolean => {
  const info = fs.readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1')
  return (Number.parseInt(/flags:\s*(\d+)/.exec(info)?.[1] ?? '', 8) & k.O_CLOEXEC) !== 0
}

const create = (d: Directory, name: string, flags = 0): number =>
  d.keep(openat(d.fd, name, k.O_CREAT | k.O_RDWR | flags, 0o600))

t.test('read, write, pread, pwrite: ranges of a buffer, positions beyond 4 GiB', async t => {
  const d = directory(t)
  const fd = create(d, 'file')
  const buf = Buffer.from('0123456789')
  t.equal(io.write(fd, buf, 2, 5), 5)
  t.equal(io.pwrite(fd, buf, 0, 1, 4), 1)
  t.equal(fs.readFileSync(d.at('file'), 'latin1'), '23450')
  t.equal(io.read(fd, buf, 0, 5), 0, 'at the end')
  t.equal(io.lseek(fd, 1, k.SEEK_SET), 1)
  t.equal(io.read(fd, buf, 8, 2), 2)
  t.equal(buf.latin1Slice(), '0123456734')
  t.equal(io.pread(fd, buf, 1, 9, 3), 2, 'a short read')
  t.equal(buf.latin1Slice(), '0503456734')
  t.equal(io.pread(fd, buf, 0, 1, 5 * TIB), 0)

  const far = 7 * TIB + 3
  t.equal(io.pwrite(fd, buf, 9, 1, far), 1)
  t.equal(fs.statSync(d.at('file')).size, far + 1)
  t.equal(io.pread(fd, buf, 0, 10, far), 1)
  t.equal(io.lseek(fd, 0, k.SEEK_END), far + 1)
  t.equal(io.lseek(fd, 4096, k.SEEK_DATA), far - 3)
  t.equal(io.lseek(fd, 0, k.SEEK_HOLE), 4096)
  t.equal(io.lseek(fd, far + 1, k.SEEK_DATA), -E.ENXIO)
  t.equal(io.lseek(fd, -1, k.SEEK_SET), -E.EINVAL)
  t.equal(io.ftruncate(fd, 6 * TIB), 0)
  t.equal(fs.statSync(d.at('file')).size, 6 * TIB)
  t.equal(io.ftruncate(fd, -1), -E.EINVAL)

  t.equal(io.pread(fd, buf, 0, 1, -1), -E.EINVAL)
  t.equal(io.pread(-1, buf, 0, 1, 0), -E.EBADF)
  t.equal(io.read(d.fd, buf, 0, 1), -E.EISDIR)
  const ro = d.keep(openat(d.fd, 'file', k.O_RDONLY))
  t.equal(io.write(ro, buf, 0, 1), -E.EBADF)
  t.equal(io.pwrite(ro, buf, 0, 1, 0), -E.EBADF)
})

t.test('a range outside the buffer touches nothing', async t => {
  const d = directory(t)
  const fd = create(d, 'file')
  const buf = Buffer.alloc(8)
  for (const [offset, length] of [
    [-1, 1],
    [0, -1],
    [0, 9],
    [8, 1],
    [9, 0],
    [Number.NaN, 1],
    [0, Number.NaN],
    [0, Number.POSITIVE_INFINITY],
  ] as const) {
    t.equal(io.read(fd, buf, offset, length), -E.EFAULT)
    t.equal(io.write(fd, buf, offset, length), -E.EFAULT)
    t.equal(io.pread(fd, buf, offset, length, 0), -E.EFAULT)
    t.equal(io.pwrite(fd, buf, offset, length, 0), -E.EFAULT)
    t.equal(io.writev2(fd, buf, offset, length, buf, 0, 1), -E.EFAULT)
    t.equal(io.writev2(fd, buf, 0, 1, buf, offset, length), -E.EFAULT)
  }
  t.equal(fs.statSync(d.at('file')).size, 0)

  const moved = new Uint8Array(8)
  t.equal(io.write(fd, moved, 0, 8), 8)
  structuredClone(moved.buffer, { transfer: [moved.buffer] })
  t.equal(io.write(fd, moved, 0, 8), -E.EFAULT, 'a detached buffer')
  t.equal(io.write(fd, moved, 0, 0), 0)
})

// Resizable buffers: Node 20 has them, but the types of ES2023 do not.
const growing = (size: number, maxByteLength: number): ArrayBuffer =>
  Reflect.construct(ArrayBuffer, [size, { maxByteLength }]) as ArrayBuffer
const resize = (view: Uint8Array, size: number): void => {
  ;(view.buffer as unknown as { resize(size: number): void }).resize(size)
}

t.test('every kind of buffer', async t => {
  const d = directory(t)
  const fd = create(d, 'file')
  const text = Buffer.from('abcdefghijklmnopqrstuvwxyz'.repeat(10))
  t.equal(io.write(fd, text, 0, text.length), 260)
  const small = new Uint8Array(16)
  const shared = new Uint8Array(new SharedArrayBuffer(64), 8)
  const resizable = new Uint8Array(growing(16, 1 << 20))
  const views = {
    pooled: Buffer.allocUnsafe(32),
    'slow, small': Buffer.allocUnsafeSlow(32),
    'slow, large': Buffer.allocUnsafeSlow(100_000),
    'in the JS heap': small,
    'part of a large one': Buffer.alloc(100_000).subarray(777, 820),
    shared,
    resizable,
  }
  for (const [name, view] of Object.entries(views)) {
    const address = addressOf(view)
    t.equal(addressOf(view), address)
    t.equal(addressOf(view.subarray(3)), address + 3)
    // Again after calls for other views, and after a collection if there is one.
    for (const other of Object.values(views)) addressOf(other)
    ;(globalThis as { gc?: () => void }).gc?.()
    t.equal(addressOf(view), address, name)
    t.equal(io.pread(fd, view, 2, 5, 25), 5)
    t.equal(Buffer.from(view.subarray(2, 7)).latin1Slice(), 'zabcd', name)
  }
  t.equal(addressOf(new Uint8Array(0)), 0)
  t.equal(io.pread(fd, new Uint8Array(0), 0, 0, 0), 0)
  resize(resizable, 1 << 20)
  t.equal(io.pread(fd, resizable, (1 << 20) - 3, 3, 0), 3)
  t.equal(Buffer.from(resizable.subarray(-3)).latin1Slice(), 'abc')
  resize(resizable, 2)
  t.equal(io.pread(fd, resizable, 2, 1, 0), -E.EFAULT)
})

t.test('writev2', async t => {
  const d = directory(t)
  const fd = create(d, 'file')
  const a = Buffer.from('header')
  const b = Buffer.from('some data')
  t.equal(io.writev2(fd, a, 1, 4, b, 5, 4), 8)
  t.equal(io.writev2(fd, a, 0, 1, a, 5, 1), 2)
  t.equal(io.writev2(fd, a, 0, 1, b, 0, 0), 1)
  t.equal(fs.readFileSync(d.at('file'), 'latin1'), 'eadedatahrh')
  t.equal(io.writev2(-1, a, 0, 1, b, 0, 1), -E.EBADF)
})

t.test('fallocate, fsync, copy_file_range, clone', async t => {
  const d = directory(t)
  const fd = create(d, 'file')
  t.equal(io.fallocate(fd, k.FALLOC_FL_KEEP_SIZE, 0, 65_536), 0)
  t.equal(fs.statSync(d.at('file')).size, 0)
  t.ok(fs.statSync(d.at('file')).blocks >= 128)
  t.equal(io.fallocate(fd, 0, 5 * TIB, 4096), 0)
  t.equal(fs.statSync(d.at('file')).size, 5 * TIB + 4096)
  t.equal(io.fallocate(fd, k.FALLOC_FL_PUNCH_HOLE, 0, 4096), -E.EOPNOTSUPP, 'without KEEP_SIZE')
  t.equal(io.fallocate(fd, k.FALLOC_FL_PUNCH_HOLE | k.FALLOC_FL_KEEP_SIZE, 0, 65_536), 0)
  t.equal(io.fallocate(fd, 0, 0, 0), -E.EINVAL)

  t.equal(io.fsync(fd), 0)
  t.equal(io.fdatasync(fd), 0)
  t.equal(io.syncfs(fd), 0)
  t.equal(io.fsync(d.fd), 0, 'a directory')
  for (const call of [io.fsync, io.fdatasync, io.syncfs]) t.equal(call(-1), -E.EBADF)

  const out = create(d, 'copy')
  t.equal(io.pwrite(fd, Buffer.from('abcdef'), 0, 6, 5 * TIB), 6)
  t.equal(io.copyFileRange(fd, 5 * TIB + 1, out, 6 * TIB, 3), 3)
  const buf = Buffer.alloc(8)
  t.equal(io.pread(out, buf, 0, 8, 6 * TIB), 3)
  t.equal(buf.latin1Slice(0, 3), 'bcd')
  t.equal(io.copyFileRange(fd, 6 * TIB, out, 0, 3), 0, 'at the end')
  t.equal(io.copyFileRange(fd, 0, out, 0, 3, 1), -E.EINVAL)
  t.equal(io.copyFileRange(fd, 0, d.fd, 0, 3), -E.EISDIR)

  const cloned = io.ficlone(out, fd)
  if (cloned < 0) t.match([-E.EOPNOTSUPP, -E.EXDEV], new Set([cloned]), 'not on this file system')
  else t.equal(fs.statSync(d.at('copy')).size, 5 * TIB + 4096)
  t.equal(io.ficlone(out, -1), -E.EBADF)
  t.equal(io.ficloneRange(out, 0, -1, 0, 4096), -E.EBADF)
})

t.test('ioctl and inode flags', async t => {
  const d = directory(t)
  const fd = create(d, 'file')
  const flags = io.getFlags(fd)
  t.ok(flags >= 0)
  t.equal(io.setFlags(fd, flags | k.FS_NODUMP_FL), 0)
  t.equal(io.getFlags(fd), flags | k.FS_NODUMP_FL)
  t.equal(io.setFlags(fd, flags | k.FS_IMMUTABLE_FL), 0)
  t.equal(openat(d.fd, 'file', k.O_WRONLY), -E.EPERM)
  t.equal(io.setFlags(fd, flags), 0)
  t.equal(io.getFlags(-1), -E.EBADF)
  const dev = d.keep(openPath('/dev/null', k.O_RDONLY))
  t.equal(io.getFlags(dev), -E.ENOTTY)
  t.equal(io.setFlags(dev, 0), -E.ENOTTY)

  const buf = Buffer.alloc(8)
  t.equal(io.ioctl(fd, k.FS_IOC_GETFLAGS, buf), 0)
  t.equal(buf.readUInt32LE(), flags)
  t.equal(
    io.ioctl(fd, k.FS_IOC_GETFLAGS, buf.subarray(0, 4)),
    -E.EFAULT,
    'too short for the request',
  )
  t.equal(io.ioctl(fd, k.FS_IOC_GETFLAGS, null), -E.EFAULT)
  const FIONREAD = 0x541b
  const read = new Uint8Array(4)
  t.equal(io.write(fd, Buffer.from('hello'), 0, 5), 5)
  t.equal(io.lseek(fd, 2, k.SEEK_SET), 2)
  t.equal(io.ioctl(fd, FIONREAD, read), 0)
  t.equal(read[0], 3)
})

t.test('descriptors: close, dup, flags, locks', async t => {
  const d = directory(t)
  const fd = create(d, 'file')
  const copy = io.dup(fd)
  t.ok(cloexec(copy))
  t.equal(io.setCloexec(copy, false), 0)
  t.notOk(cloexec(copy))
  t.equal(io.setCloexec(copy, true), 0)
  t.ok(cloexec(copy))
  t.equal(io.setNonblock(copy), 0)
  t.equal(io.getStatusFlags(fd) & k.O_NONBLOCK, k.O_NONBLOCK, 'of the open file, so of both')
  t.equal(io.setNonblock(copy, false), 0)
  t.equal(io.getStatusFlags(fd) & k.O_NONBLOCK, 0)
  t.equal(io.getStatusFlags(fd) & k.O_ACCMODE, k.O_RDWR)

  const other = create(d, 'file')
  t.equal(io.flock(fd, k.LOCK_EX), 0)
  t.equal(io.flock(other, k.LOCK_EX | k.LOCK_NB), -E.EAGAIN)
  t.equal(io.flock(fd, k.LOCK_UN), 0)
  t.equal(io.flock(other, k.LOCK_EX | k.LOCK_NB), 0)

  t.equal(io.close(copy), 0)
  t.equal(io.close(copy), -E.EBADF)
  for (const call of [io.dup, io.setNonblock, io.getStatusFlags]) t.equal(call(copy), -E.EBADF)
  t.equal(io.setCloexec(copy, true), -E.EBADF)
  t.equal(io.flock(copy, k.LOCK_SH), -E.EBADF)
})
