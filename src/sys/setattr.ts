/**
 * Changes attributes: mode, owner, times. The object is given by name (a symlink is not followed)
 * or by descriptor, possibly O_PATH. So it need not be opened for reading or writing, which could
 * block, have side effects or be refused. Re-exported by at.ts.
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

/**
 * Without fchmodat2: opens the object with O_PATH, refuses a symlink, and changes it through /proc.
 */
const chmodPinned = (dirfd: number, mode: number): Result => {
  const fd = c.openat(dirfd, nameA, O_PATH | O_NOFOLLOW | O_CLOEXEC, 0)
  if (fd < 0) return fail()
  // Only stx_mask and stx_mode (STATX_TYPE) are used, so 256 bytes of `words` are enough.
  let r: number = syscall5(NR.statx, fd, emptyName, AT_EMPTY_PATH, 1, words)
  if (r < 0) r = fail()
  else if ((i32[7]! & S_IFMT) === S_IFLNK) r = -E.EOPNOTSUPP
  else r = chmodProc(fd, mode)
  c.close(fd)
  return r
}

/**
 * fchmodat2(2): sets the permission bits (07777) of a name. It does not follow a symlink: most
 * filesystems return -EOPNOTSUPP for it.
 */
export const fchmodat = (dirfd: number, name: ByteString, mode: number): Result => {
  if (name === '') return fchmod(dirfd, mode)
  if (!putA(name)) return -E.ENAMETOOLONG
  if (!(features.fchmodat2 ?? probeFchmodat2())) return chmodPinned(dirfd, mode)
  let r
  do r = syscall4(NR.fchmodat2, dirfd, nameA, mode, AT_SYMLINK_NOFOLLOW)
  while (r < 0 && (r = fail()) === -E.EINTR)
  return r
}

/** fchmod(2), possibly of an O_PATH descriptor. */
export const fchmod = (fd: number, mode: number): Result => {
  if (!(features.fchmodat2 ?? probeFchmodat2())) return chmodProc(fd, mode)
  let r
  do r = syscall4(NR.fchmodat2, fd, emptyName, mode, AT_EMPTY_PATH)
  while (r < 0 && (r = fail()) === -E.EINTR)
  return r
}

/**
 * fchownat(2); of a symlink, not its target. An id of -1 stays unchanged. Clears set-id bits as
 * chown(2) does.
 */
export const fchownat = (dirfd: number, name: ByteString, uid: number, gid: number): Result => {
  if (name === '') return fchown(dirfd, uid, gid)
  if (!putA(name)) return -E.ENAMETOOLONG
  let r
  do r = c.fchownat(dirfd, nameA, uid, gid, AT_SYMLINK_NOFOLLOW)
  while (r < 0 && (r = fail()) === -E.EINTR)
  return r
}

/** fchown(2), possibly of an O_PATH descriptor. An id of -1 stays unchanged. */
export const fchown = (fd: number, uid: number, gid: number): Result => {
  let r
  do r = c.fchownat(fd, emptyName, uid, gid, AT_EMPTY_PATH)
  while (r < 0 && (r = fail()) === -E.EINTR)
  return r
}

/** Writes two struct timespec to `words`. */
const putTimes = (asec: number, ansec: number, msec: number, mnsec: number): void => {
  put64(0, asec)
  put64(2, ansec)
  put64(4, msec)
  put64(6, mnsec)
}

/**
 * utimensat(2); of a symlink, not its target. Sets access and modification time in seconds since
 * 1970 (possibly negative) and nanoseconds (0 .. 999999999, UTIME_NOW or UTIME_OMIT; else -EINVAL).
 * The filesystem clamps times that it cannot store.
 */
export const utimensat = (
  dirfd: number,
  name: ByteString,
  asec: number,
  ansec: number,
  msec: number,
  mnsec: number,
): Result => {
  if (name === '') return futimens(dirfd, asec, ansec, msec, mnsec)
  if (!putA(name)) return -E.ENAMETOOLONG
  putTimes(asec, ansec, msec, mnsec)
  let r
  do r = c.utimensat(dirfd, nameA, words, AT_SYMLINK_NOFOLLOW)
  while (r < 0 && (r = fail()) === -E.EINTR)
  return r
}

/** futimens(3), possibly of an O_PATH descriptor (-ENOENT before Linux 5.8). See `utimensat`. */
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
