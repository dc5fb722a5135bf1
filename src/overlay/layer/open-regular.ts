/**
 * Opens a file that was a regular file at its lookup. The owner of the layer's directory may have
 * replaced it by a FIFO, whose open(2) blocks until a peer opens it, or by a device. A user that
 * owns the file may hold a lease on it (fcntl(2) F_SETLEASE), and an open(2) blocks until the lease
 * is released. The union's thread must not block on either.
 */

import { fstatx, openat, openPath, fdPath } from '../../sys/at.js'
import { O_NOATIME, O_NOCTTY, O_NOFOLLOW, O_NONBLOCK } from '../../sys/constants.js'
import { E } from '../../sys/errno.js'
import { close } from '../../sys/io.js'
import { Stat } from '../../sys/stat.js'
import { Pending, type ByteString, type Result } from '../ops.js'
import { isSame, type Identity } from './real-identity.js'
import type { LayerContext } from './context.js'

/** O_NONBLOCK has no effect on reads and writes of regular files. */
const NO_WAIT = O_NONBLOCK | O_NOCTTY

const st = new Stat()

/**
 * Opens (fd, name), or with name '' what `fd` refers to, and checks that it is a regular file. Retries without O_NOATIME if O_NOATIME is
 * refused.
 *
 * @param of the expected identity of the file
 * @returns the descriptor, or -errno: -ESTALE if another object has the name (the kernel then
 *   repeats the lookup), -EAGAIN while a lease is being broken
 */
export function openRegular(
  fd: number,
  name: ByteString,
  flags: number,
  of: Identity | null,
): Result {
  if (name === '') return reopenRegular(fd, flags, of)
  const all = flags | NO_WAIT
  let opened = openat(fd, name, all)
  if (opened === -E.EPERM && (flags & O_NOATIME) !== 0) opened = openat(fd, name, all & ~O_NOATIME)
  return opened < 0 ? asStale(opened) : check(opened, of)
}

/**
 * As `openRegular`, for the object that `fd` refers to. It opens /proc/self/fd/N and follows that
 * one magic link.
 */
export function reopenRegular(fd: number, flags: number, of: Identity | null): Result {
  const all = (flags & ~O_NOFOLLOW) | NO_WAIT
  let opened = openPath(fdPath(fd), all)
  if (opened === -E.EPERM && (flags & O_NOATIME) !== 0)
    opened = openPath(fdPath(fd), all & ~O_NOATIME)
  return opened < 0 ? asStale(opened) : check(opened, of)
}

/**
 * Errors that show another file type: ENXIO for a FIFO without a reader, a socket or a whiteout;
 * ELOOP for a symlink; EISDIR for a directory.
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
 * Converts -EAGAIN of an open into a wait. The kernel does not notify the server when a lease is
 * released, so the operation is retried at intervals. The kernel breaks a lease after at most
 * /proc/sys/fs/lease-break-time.
 *
 * @param flags the caller's open flags; a caller with O_NONBLOCK gets -EAGAIN
 * @throws Pending instead of -EAGAIN
 */
export function orPending(u: LayerContext, result: Result, flags = 0): Result {
  if (result === -E.EAGAIN && (flags & O_NONBLOCK) === 0) throw new Pending(u.pool.tick(), false)
  return result
}
