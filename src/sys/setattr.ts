/**
 * Changing attributes: mode, owner, times. By name (a symlink is never followed) or by descriptor,
 * which may be O_PATH: an object need not be opened for reading or writing, which could block, have
 * side effects or be refused. Re-exported by at.ts.
 */

import {
  AT_EMPTY_PATH,
  AT_SYMLINK_NOFOLLOW,
  O_CLOEXEC,
  O_NOFOLLOW,
  O_PATH,
  S_IFLNK,
  S_IFMT,
} from './constants.js'
import { E } from './errno.js'
import { features, probeFchmodat2 } from './features.js'
import * as c from './libc.js'
import { fail, NR, syscall4, syscall5 } from './libc.js'
import { emptyName, i32, nameA, procPath, put64, putA, putProcFd, words } from './scratch.js'
import type { ByteString, Result } from './types.js'

/** chmod(2) through the magic link of `fd` in /proc. */
const chmodProc = (fd: number, mode: number): Result => {
  putProcFd(fd)
  let r
  do r = c.chmod(procPath, mode)
  while (r < 0 && (r = fail()) === -E.EINTR)
  return r === -E.ENOENT ? -E.EBADF : r
}

/** Without fchmodat2: pin the object with O_PATH, refuse a symlink, change it through /proc. */
const chmodPinned = (dirfd: number, mode: number): Result => {
  const fd = c.openat(dirfd, nameA, O_PATH | O_NOFOLLOW | O_CLOEXEC, 0)
  if (fd < 0) return fail()
  // Only stx_mask and stx_mode (STATX_TYPE) are looked at: 256 bytes of `words` are enough.
  let r: number = syscall5(NR.statx, fd, emptyName, AT_EMPTY_PATH, 1, words)
  if (r < 0) r = fail()
  else if ((i32[7]! & S_IFMT) === S_IFLNK) r = -E.EOPNOTSUPP
  else r = chmodProc(fd, mode)
  c.close(fd)
  return r
}

/**
 * fchmodat2(2): the permission bits (07777) of a name, not following a symlink: for one,
 * -EOPNOTSUPP on most file systems.
 */
export const fchmodat = (dirfd: number, name: ByteString, mode: number): Result => {
  if (!putA(name)) return -E.ENAMETOOLONG
  if (!(features.fchmodat2 ?? probeFchmodat2())) return chmodPinned(dirfd, mode)
  let r
  do r = syscall4(NR.fchmodat2, dirfd, nameA, mode, AT_SYMLINK_NOFOLLOW)
  while (r < 0 && (r = fail()) === -E.EINTR)
  return r
}

/** fchmod(2), also of an O_PATH descriptor. */
export const fchmod = (fd: number, mode: number): Result => {
  if (!(features.fchmodat2 ?? probeFchmodat2())) return chmodProc(fd, mode)
  let r
  do r = syscall4(NR.fchmodat2, fd, emptyName, mode, AT_EMPTY_PATH)
  while (r < 0 && (r = fail()) === -E.EINTR)
  return r
}

/**
 * fchownat(2), of a symlink itself. An id of -1 stays unchanged. Clears set-id bits as chown(2)
 * does.
 */
export const fchownat = (dirfd: number, name: ByteString, uid: number, gid: number): Result => {
  if (!putA(name)) return -E.ENAMETOOLONG
  let r
  do r = c.fchownat(dirfd, nameA, uid, gid, AT_SYMLINK_NOFOLLOW)
  while (r < 0 && (r = fail()) === -E.EINTR)
  return r
}

/** fchown(2), also of an O_PATH descriptor. An id of -1 stays unchanged. */
export const fchown = (fd: number, uid: number, gid: number): Result => {
  let r
  do r = c.fchownat(fd, emptyName, uid, gid, AT_EMPTY_PATH)
  while (r < 0 && (r = fail()) === -E.EINTR)
  return r
}

/** Two struct timespec at `words`. */
const putTimes = (asec: number, ansec: number, msec: number, mnsec: number): void => {
  put64(0, asec)
  put64(2, ansec)
  put64(4, msec)
  put64(6, mnsec)
}

/**
 * utimensat(2), of a symlink itself: access and modification time in seconds since 1970 (may be
 * negative) and nanoseconds (0 .. 999999999, UTIME_NOW or UTIME_OMIT; else -EINVAL). The file
 * system clamps what it cannot store.
 */
export const utimensat = (
  dirfd: number,
  name: ByteString,
  asec: number,
  ansec: number,
  msec: number,
  mnsec: number,
): Result => {
  if (!putA(name)) return -E.ENAMETOOLONG
  putTimes(asec, ansec, msec, mnsec)
  let r
  do r = c.utimensat(dirfd, nameA, words, AT_SYMLINK_NOFOLLOW)
  while (r < 0 && (r = fail()) === -E.EINTR)
  return r
}

/**
 * futimens(3), also of an O_PATH descriptor (Linux 5.8; before, -ENOENT for one). See `utimensat`.
 */
export const futimens = (
  fd: number,
  asec: number,
  ansec: number,
  msec: number,
  mnsec: number,
): Result => {
  putTimes(asec, ansec, msec, mnsec)
  let r
  do r = c.utimensat(fd, emptyName, words, AT_EMPTY_PATH)
  while (r < 0 && (r = fail()) === -E.EINTR)
  return r
}
