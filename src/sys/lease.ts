/** Asking whether a file is open for writing anywhere, by way of fcntl(2) F_SETLEASE. */

import { AT_FDCWD, O_CLOEXEC, O_NOATIME, O_NONBLOCK, O_RDONLY } from './constants.js'
import { E } from './errno.js'
import * as c from './libc.js'
import { fail } from './libc.js'
import { procPath, putProcFd } from './scratch.js'
import type { Result } from './types.js'

const F_SETSIG = 10
const F_SETLEASE = 1024
const F_RDLCK = 0
const F_UNLCK = 2
/** Ignored by default: what a process gets whose lease someone wants to break. */
const SIGURG = 23

/** Opens the file once more, for reading only; `flags` may say O_DIRECT in addition. */
export const reopenForReading = (fd: number, flags = 0): Result => {
  putProcFd(fd)
  const all = O_RDONLY | O_NONBLOCK | O_NOATIME | O_CLOEXEC | flags
  const r = c.openat(AT_FDCWD, procPath, all, 0)
  return r < 0 ? fail() : r
}

/**
 * Whether anyone has the file open for writing, or mapped so: 1 or 0. `fd` must be open for reading
 * only. A read lease is granted to no file that is (fs/locks.c:check_conflicting_open); it is given
 * back at once. -EINVAL: the file system has no leases. -EACCES: neither owner of the file nor
 * CAP_LEASE.
 */
export const isOpenForWriting = (fd: number): Result => {
  if (c.fcntl(fd, F_SETSIG, SIGURG) < 0) return fail()
  if (c.fcntl(fd, F_SETLEASE, F_RDLCK) < 0) {
    const r = fail()
    return r === -E.EAGAIN ? 1 : r
  }
  c.fcntl(fd, F_SETLEASE, F_UNLCK)
  return 0
}
