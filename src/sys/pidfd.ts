/**
 * Process descriptors, pidfd_open(2): unlike a pid, a descriptor cannot come to mean another
 * process. Also descriptors with a name that other processes can see, memfd_create(2).
 */

import * as c from './libc.js'
import { fail, NR } from './libc.js'
import { toByteString } from './at.js'
import { poll2 } from './event.js'
import { nameA, putA } from './scratch.js'
import { E } from './errno.js'
import type { Result } from './types.js'

const MFD_CLOEXEC = 1

/** pidfd_open(2): a descriptor of a process, O_CLOEXEC. -ESRCH: there is no such process. */
export const pidfdOpen = (pid: number): Result => {
  const fd = c.syscall3(NR.pidfdOpen, pid, 0, 0)
  return fd < 0 ? fail() : fd
}

/** pidfd_send_signal(2). -ESRCH: the process has ended. */
export const pidfdSignal = (fd: number, signal: number): Result =>
  c.syscall4(NR.pidfdSendSignal, fd, signal, 0, 0) < 0 ? fail() : 0

/** Whether the process has ended. */
export const hasEnded = (pidfd: number): boolean => poll2(pidfd, -1, 0) !== 0

/**
 * memfd_create(2): creates an empty in-memory file. /proc/PID/fd shows it as `/memfd:NAME
 * (deleted)`.
 */
export const namedDescriptor = (name: string): Result => {
  if (!putA(toByteString(name))) return -E.ENAMETOOLONG
  const fd = c.syscall3(NR.memfdCreate, nameA, MFD_CLOEXEC, 0)
  return fd < 0 ? fail() : fd
}
