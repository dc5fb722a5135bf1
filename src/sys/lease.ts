/** Checks whether any process has a file open for writing, with fcntl(2) F_SETLEASE. */

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
/** The signal to a process whose lease must be broken; ignored by default. */
const SIGURG = 23

/** Opens the file again, for reading only. `flags` may add O_DIRECT. */
export const reopenForReading = (fd: number, flags = 0): Result => {
  putProcFd(fd)
  const all = O_RDONLY | O_NONBLOCK | O_NOATIME | O_CLOEXEC | flags
  const r = c.openat(AT_FDCWD, procPath, all, 0)
  return r < 0 ? fail() : r
}

/**
 * Whether any process has the file open or mapped for writing: 1 or 0. `fd` must be open for
 * reading only. The kernel grants a read lease only if no process has the file open for writing
 * (fs/locks.c:check_conflicting_open). The lease is released at once. -EINVAL: the filesystem has
 * no leases. -EACCES: this process is not the file's owner and lacks CAP_LEASE.
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
