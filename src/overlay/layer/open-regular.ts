/**
 * Opening what was a regular file when it was looked up. The owner of a layer's directory may have
 * put something else in its place since: a FIFO, whose open(2) waits for a peer, or a device. And
 * anybody who owns the file may hold a lease on it (fcntl(2) F_SETLEASE), which makes an open wait
 * for him. The union's thread waits for neither.
 */

import { fstatx, openat, openPath, fdPath } from '../../sys/at.js'
import { O_NOATIME, O_NOCTTY, O_NOFOLLOW, O_NONBLOCK } from '../../sys/constants.js'
import { E } from '../../sys/errno.js'
import { close } from '../../sys/io.js'
import { Stat } from '../../sys/stat.js'
import { Pending, type ByteString, type Result } from '../ops.js'
import { isSame, type Identity } from './real-identity.js'
import type { LayerContext } from './context.js'

/** Regular files pay no attention to O_NONBLOCK once they are open. */
const NO_WAIT = O_NONBLOCK | O_NOCTTY

const st = new Stat()

/**
 * Opens (fd, name), which is to be a regular file; O_NOATIME is left out where it is refused.
 *
 * @param of what the file is to be
 * @returns the descriptor, or -errno: -ESTALE where something else is there now (the kernel then
 *   looks the name up again), -EAGAIN while the holder of a lease is asked to give it back
 */
export function openRegular(
  fd: number,
  name: ByteString,
  flags: number,
  of: Identity | null,
): Result {
  const all = flags | NO_WAIT
  let opened = openat(fd, name, all)
  if (opened === -E.EPERM && (flags & O_NOATIME) !== 0) opened = openat(fd, name, all & ~O_NOATIME)
  return opened < 0 ? asStale(opened) : check(opened, of)
}

/** The same for what a descriptor refers to, through /proc/self/fd: follows that one magic link. */
export function reopenRegular(fd: number, flags: number, of: Identity | null): Result {
  const all = (flags & ~O_NOFOLLOW) | NO_WAIT
  let opened = openPath(fdPath(fd), all)
  if (opened === -E.EPERM && (flags & O_NOATIME) !== 0)
    opened = openPath(fdPath(fd), all & ~O_NOATIME)
  return opened < 0 ? asStale(opened) : check(opened, of)
}

/**
 * Errors that tell of another type: a FIFO without a reader, a socket, a whiteout; a symlink; a
 * directory.
 */
const asStale = (result: Result): Result =>
  result === -E.ENXIO || result === -E.ELOOP || result === -E.EISDIR ? -E.ESTALE : result

function check(fd: number, of: Identity | null): Result {
  const result = fstatx(fd, st)
  if (result >= 0 && st.isReg && (of === null || isSame(of, st))) return fd
  close(fd)
  return result < 0 ? result : -E.ESTALE
}

/**
 * The result of an open. Nobody says when a lease is given back, so that is asked for again and
 * again: it is broken at the latest after /proc/sys/fs/lease-break-time.
 *
 * @param flags what a caller has opened the file with: with O_NONBLOCK he does not want to wait
 * @throws Pending instead of -EAGAIN
 */
export function orPending(u: LayerContext, result: Result, flags = 0): Result {
  if (result === -E.EAGAIN && (flags & O_NONBLOCK) === 0) throw new Pending(u.pool.tick(), false)
  return result
}
