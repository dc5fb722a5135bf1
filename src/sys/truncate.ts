/**
 * truncate(2) of a name. The system call follows a symlink in the last component and has no variant
 * that does not, so the file is opened first.
 */

import {
  AT_EMPTY_PATH,
  O_CLOEXEC,
  O_NOCTTY,
  O_NOFOLLOW,
  O_NONBLOCK,
  O_WRONLY,
} from './constants.js'
import { E } from './errno.js'
import * as c from './libc.js'
import { fail, NR, syscall5 } from './libc.js'
import { emptyName, nameA, procPath, putA, putProcFd } from './scratch.js'
import { Stat } from './stat.js'
import type { ByteString, Off, Result } from './types.js'

const FLAGS = O_WRONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK

/** The statx mask for type and size. */
const STATX_TYPE_SIZE = 0x201

const st = new Stat()

/**
 * Truncates or extends the regular file (dirfd, name), or with name '' the object of the
 * descriptor, possibly O_PATH. Unlike ftruncate(2), if the size stays the same it lets the
 * filesystem decide whether the times change.
 *
 * @param size bytes
 * @returns 0 or -errno: -ESTALE if the object is not a regular file (a symlink is not followed, and
 *   a FIFO does not block); -EAGAIN while the kernel breaks another process's lease; -EACCES and
 *   -ETXTBSY as truncate(2)
 */
export const truncateat = (dirfd: number, name: ByteString, size: Off): Result => {
  const fd = openChecked(dirfd, name, st)
  if (fd < 0) return fd
  const result = truncateOpen(fd, size, st.size64 === size)
  c.close(fd)
  return result
}

/** Opens a file for `truncateat`. @returns the descriptor, or -errno as `truncateat` */
export const openToTruncate = (dirfd: number, name: ByteString): Result =>
  openChecked(dirfd, name, st)

/** As `openToTruncate`. `out` receives type and size of the file. */
const openChecked = (dirfd: number, name: ByteString, out: Stat): Result => {
  const fd = open(dirfd, name)
  if (fd < 0) return fd
  let result = syscall5(NR.statx, fd, emptyName, AT_EMPTY_PATH, STATX_TYPE_SIZE, out.address)
  if (result < 0) result = fail()
  else if (!out.isReg) result = -E.ESTALE
  if (result >= 0) return fd
  c.close(fd)
  return result
}

const open = (dirfd: number, name: ByteString): Result => {
  if (name === '') putProcFd(dirfd)
  else if (!putA(name)) return -E.ENAMETOOLONG
  let r
  do
    r =
      name === ''
        ? c.openat(dirfd, procPath, FLAGS, 0)
        : c.openat(dirfd, nameA, FLAGS | O_NOFOLLOW, 0)
  while (r < 0 && (r = fail()) === -E.EINTR)
  // ELOOP: a symlink. ENXIO: a FIFO without a reader, a socket, a whiteout. EISDIR: a directory.
  return r === -E.ELOOP || r === -E.ENXIO || r === -E.EISDIR ? -E.ESTALE : r
}

/** Truncates an open file. `stays`: it already has the size. */
const truncateOpen = (fd: number, size: Off, stays: boolean): Result => {
  // ftruncate(2) always updates ctime and mtime, so truncate(2) is used if the size stays the same.
  // The magic link leads to this file, whatever its current names.
  if (stays) putProcFd(fd)
  let r
  do r = stays ? c.truncate(procPath, size) : c.ftruncate(fd, size)
  while (r < 0 && (r = fail()) === -E.EINTR)
  return r
}
