/**
 * File descriptors: i/o, allocation, flags. A buffer is a Uint8Array (or Buffer) with an explicit
 * range. A range outside the buffer gives -EFAULT, as a bad address would, and nothing is read or
 * written.
 *
 * Every function mirrors the system call of its name and returns the result or -errno (`Result`).
 * EINTR is retried, except by `close`. Reads and writes may be short, as in the man pages. Offsets
 * and sizes are bytes (`Off`).
 */

import {
  F_DUPFD_CLOEXEC,
  FICLONE,
  FICLONERANGE,
  FS_IOC_GETFLAGS,
  FS_IOC_SETFLAGS,
  O_CLOEXEC,
  O_NONBLOCK,
} from './constants.js'
import { E } from './errno.js'
import * as c from './libc.js'
import { fail } from './libc.js'
import { addressOf, inBounds, put64, putOff, u32, words } from './scratch.js'
import { slowFile } from './slow.js'
import type { Off, Result } from './types.js'

export { eventfd, eventfdDrain, eventfdSignal, isBroken, poll2, watch2 } from './event.js'
export type { Result } from './types.js'

/**
 * close(2). Never retried: Linux has closed the descriptor even after EINTR or EIO, and another
 * thread may have reused its number.
 */
export const close = (fd: number): Result => {
  const slow = slowFile(fd)
  if (slow === undefined) return c.close(fd) < 0 ? fail() : 0
  slow.close()
  return 0
}

/** close(2), even if the descriptor is registered as slow (slow.ts). */
export const closeNow = (fd: number): Result => (c.close(fd) < 0 ? fail() : 0)

/** read(2): returns the bytes read, 0 at the end. */
export const read = (fd: number, buf: Uint8Array, offset: number, length: number): Result => {
  if (!inBounds(buf, offset, length)) return -E.EFAULT
  const address = addressOf(buf) + offset
  let r
  do r = c.read(fd, address, length)
  while (r < 0 && (r = fail()) === -E.EINTR)
  return r
}

/** write(2): returns the bytes written. */
export const write = (fd: number, buf: Uint8Array, offset: number, length: number): Result => {
  if (!inBounds(buf, offset, length)) return -E.EFAULT
  const address = addressOf(buf) + offset
  let r
  do r = c.write(fd, address, length)
  while (r < 0 && (r = fail()) === -E.EINTR)
  return r
}

/** pread(2) at position `pos`: returns the bytes read, 0 at or beyond the end. */
export const pread = (
  fd: number,
  buf: Uint8Array,
  offset: number,
  length: number,
  pos: Off,
): Result => {
  if (!inBounds(buf, offset, length)) return -E.EFAULT
  const slow = slowFile(fd)
  if (slow === undefined) return readAt(fd, buf, offset, length, pos)
  if (typeof pos !== 'number') return -E.EINVAL
  const out = buf.subarray(offset, offset + length)
  const call = { op: 'pread', room: length, pos } as const
  return slow.ask(call, out, () => readAt(fd, buf, offset, length, pos))
}

const readAt = (fd: number, buf: Uint8Array, offset: number, length: number, pos: Off): Result => {
  const address = addressOf(buf) + offset
  let r
  do r = c.pread(fd, address, length, pos)
  while (r < 0 && (r = fail()) === -E.EINTR)
  return r
}

/** pwrite(2) at position `pos`: returns the bytes written. With O_APPEND Linux ignores `pos`. */
export const pwrite = (
  fd: number,
  buf: Uint8Array,
  offset: number,
  length: number,
  pos: Off,
): Result => {
  if (!inBounds(buf, offset, length)) return -E.EFAULT
  const address = addressOf(buf) + offset
  let r
  do r = c.pwrite(fd, address, length, pos)
  while (r < 0 && (r = fail()) === -E.EINTR)
  return r
}

/** writev(2) of two ranges: a header and its data. */
export const writev2 = (
  fd: number,
  bufA: Uint8Array,
  offA: number,
  lenA: number,
  bufB: Uint8Array,
  offB: number,
  lenB: number,
): Result => {
  if (!inBounds(bufA, offA, lenA) || !inBounds(bufB, offB, lenB)) return -E.EFAULT
  // struct iovec {base, length}
  put64(0, addressOf(bufA) + offA)
  put64(2, lenA)
  put64(4, addressOf(bufB) + offB)
  put64(6, lenB)
  let r
  do r = c.writev(fd, words, 2)
  while (r < 0 && (r = fail()) === -E.EINTR)
  return r
}

/**
 * lseek(2) with SEEK_*: the new position, or -errno. -EINVAL for a position from 2^63 on, which
 * tmpfs returns as a negative number. On a slow file, also -EINVAL from 2^53 on.
 */
export const lseek = (fd: number, pos: Off, whence: number): Off => {
  const slow = slowFile(fd)
  if (slow === undefined) return seek(fd, pos, whence)
  if (typeof pos !== 'number') return -E.EINVAL
  const narrow = (): Result => {
    const r = seek(fd, pos, whence)
    return typeof r === 'number' ? r : -E.EINVAL
  }
  return slow.ask({ op: 'lseek', pos, whence }, null, narrow)
}

const seek = (fd: number, pos: Off, whence: number): Off => {
  const r = c.lseek(fd, pos, whence)
  return r === -1 ? fail() : r < 0 ? -E.EINVAL : r
}

/** lseek(2) of a directory to a cookie of `Dirents.off` (0: the start). Returns 0 or -errno. */
export const seekdir = (fd: number, cookie: number | bigint): Result => {
  const r = c.lseek(fd, cookie, 0)
  return typeof r === 'number' && r < 0 ? fail() : 0
}

/** ftruncate(2). */
export const ftruncate = (fd: number, size: Off): Result => {
  let r
  do r = c.ftruncate(fd, size)
  while (r < 0 && (r = fail()) === -E.EINTR)
  return r
}

/** fallocate(2) with FALLOC_FL_*. */
export const fallocate = (fd: number, mode: number, off: Off, len: Off): Result => {
  let r
  do r = c.fallocate(fd, mode, off, len)
  while (r < 0 && (r = fail()) === -E.EINTR)
  return r
}

/**
 * fsync(2), possibly of a directory (not O_PATH). An error means that data may be lost; it is
 * reported only once.
 */
export const fsync = (fd: number): Result => {
  let r
  do r = c.fsync(fd)
  while (r < 0 && (r = fail()) === -E.EINTR)
  return r
}

/** fdatasync(2). */
export const fdatasync = (fd: number): Result => {
  let r
  do r = c.fdatasync(fd)
  while (r < 0 && (r = fail()) === -E.EINTR)
  return r
}

/** syncfs(2) of the filesystem of `fd` (not O_PATH). */
export const syncfs = (fd: number): Result => {
  let r
  do r = c.syncfs(fd)
  while (r < 0 && (r = fail()) === -E.EINTR)
  return r
}

/**
 * copy_file_range(2) between explicit offsets. Returns the bytes copied, possibly fewer than `len`;
 * 0 at the end of the source. -EXDEV or -EOPNOTSUPP: not supported between these files; the caller
 * must read and write.
 */
export const copyFileRange = (
  fdIn: number,
  offIn: Off,
  fdOut: number,
  offOut: Off,
  len: number,
  flags = 0,
): Result => {
  let r
  do {
    putOff(0, offIn)
    putOff(2, offOut)
    r = c.copyFileRange(fdIn, words, fdOut, words + 8, len, flags)
  } while (r < 0 && (r = fail()) === -E.EINTR)
  return r
}

const ioctlRaw = (fd: number, request: number, arg: number): Result => {
  let r
  do r = c.ioctl(fd, request, arg)
  while (r < 0 && (r = fail()) === -E.EINTR)
  return r
}

/**
 * ioctl(2) with a buffer, or null for none. -EFAULT: the buffer is shorter than the size that the
 * request number encodes (_IOC_SIZE). If a request encodes no size, the caller must ensure it.
 */
export const ioctl = (fd: number, request: number, buf: Uint8Array | null): Result => {
  if (buf === null) return ioctlRaw(fd, request, 0)
  if (buf.length < ((request >>> 16) & 0x3fff)) return -E.EFAULT
  return ioctlRaw(fd, request, addressOf(buf))
}

/**
 * FICLONE, ioctl_ficlone(2): makes `dstFd` share all data of `srcFd`. -EOPNOTSUPP, -EXDEV: not
 * supported.
 */
export const ficlone = (dstFd: number, srcFd: number): Result => ioctlRaw(dstFd, FICLONE, srcFd)

/**
 * FICLONERANGE. `length` 0 means up to the source's end. All numbers must be multiples of the block
 * size.
 */
export const ficloneRange = (
  dstFd: number,
  dstOff: number,
  srcFd: number,
  srcOff: number,
  length: number,
): Result => {
  put64(0, srcFd)
  put64(2, srcOff)
  put64(4, length)
  put64(6, dstOff)
  return ioctlRaw(dstFd, FICLONERANGE, words)
}

/**
 * FS_IOC_GETFLAGS: the inode's FS_*_FL, 32 bits unsigned. -ENOTTY, -EOPNOTSUPP: the filesystem has
 * no such flags.
 */
export const getFlags = (fd: number): Result => {
  const slow = slowFile(fd)
  return slow === undefined ? flagsOf(fd) : slow.ask({ op: 'flags' }, null, () => flagsOf(fd))
}

const flagsOf = (fd: number): Result => {
  u32[0] = 0
  const r = ioctlRaw(fd, FS_IOC_GETFLAGS, words)
  return r < 0 ? r : u32[0]
}

/** FS_IOC_SETFLAGS. */
export const setFlags = (fd: number, flags: number): Result => {
  put64(0, flags)
  return ioctlRaw(fd, FS_IOC_SETFLAGS, words)
}

/** flock(2): LOCK_SH, LOCK_EX, LOCK_UN. With LOCK_NB it returns -EAGAIN instead of waiting. */
export const flock = (fd: number, op: number): Result => {
  let r
  do r = c.flock(fd, op)
  while (r < 0 && (r = fail()) === -E.EINTR)
  return r
}

// fcntl(2)
const F_GETFD = 1
const F_SETFD = 2
const F_GETFL = 3
const F_SETFL = 4
const FD_CLOEXEC = 1

const fcntl = (fd: number, cmd: number, arg: number): Result => {
  const r = c.fcntl(fd, cmd, arg)
  return r < 0 ? fail() : r
}

/** Duplicates a descriptor, with O_CLOEXEC. Both share the position and the status flags. */
export const dup = (fd: number): Result => {
  const copy = fcntl(fd, F_DUPFD_CLOEXEC, 0)
  if (copy >= 0) slowFile(fd)?.copied(copy)
  return copy
}

/**
 * dup3(2) with O_CLOEXEC: makes `to` a duplicate of `fd` and closes `fd`. Returns 0, or -errno
 * without any change.
 */
export const moveTo = (fd: number, to: number): Result => {
  let r
  do r = c.dup3(fd, to, O_CLOEXEC)
  while (r < 0 && (r = fail()) === -E.EINTR)
  if (r < 0) return r
  c.close(fd)
  return 0
}

/**
 * dup2(2): makes `to` a duplicate of `fd` that child processes inherit. The previous `to` is closed
 * atomically.
 */
export const dup2 = (fd: number, to: number): Result => {
  let r
  do r = c.dup2(fd, to)
  while (r < 0 && (r = fail()) === -E.EINTR)
  return r
}

/** Sets (or clears) O_NONBLOCK of the open file. */
export const setNonblock = (fd: number, on = true): Result => {
  const flags = fcntl(fd, F_GETFL, 0)
  if (flags < 0) return flags
  return fcntl(fd, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK)
}

/** The status flags (O_*) of the open file: F_GETFL. */
export const getStatusFlags = (fd: number): Result => fcntl(fd, F_GETFL, 0)

/** Sets or clears FD_CLOEXEC. Without it, child processes inherit the descriptor. */
export const setCloexec = (fd: number, on: boolean): Result => {
  const flags = fcntl(fd, F_GETFD, 0)
  if (flags < 0) return flags
  return fcntl(fd, F_SETFD, on ? flags | FD_CLOEXEC : flags & ~FD_CLOEXEC)
}
