/**
 * Changes of whole ranges of a file: copy_file_range(2) and fallocate(2). What may take long is
 * done by a thread of the pool, on descriptors of its own, since the handle may be closed
 * meanwhile. Whoever changes the same file by a system call waits in the kernel, which locks the
 * inode until it is answered (fs/fuse/file.c:__fuse_copy_file_range, fuse_file_fallocate); late
 * pages of it that are written back wait for `Node.busy`.
 */

import { fstatx } from '../../sys/at.js'
import {
  FALLOC_FL_COLLAPSE_RANGE,
  FALLOC_FL_INSERT_RANGE,
  FALLOC_FL_KEEP_SIZE,
} from '../../sys/constants.js'
import { E } from '../../sys/errno.js'
import { close, copyFileRange as copyRange, dup, fallocate as allocate } from '../../sys/io.js'
import { isSlow } from '../../sys/slow.js'
import { Stat } from '../../sys/stat.js'
import { offDistance, offPlus, type Off } from '../../sys/types.js'
import type { FileHandle } from '../inode/node.js'
import { realFd } from './handles.js'
import { series } from '../jobs/pool.js'
import { restoreMtime } from '../inode/killpriv.js'
import { throwIfBusy, Protect } from '../inode/node.js'
import { Pending, type Result } from '../ops.js'
import { dropCapability } from '../layer/stat-override.js'
import { orPending } from '../layer/open-regular.js'
import type { CopyUpContext } from '../copy-up/context.js'

/** So much is done at once in the union's thread: handing over costs more. */
const INLINE = 1 << 20
/** Space that is only allotted is not written. */
const INLINE_SPACE = 16 << 20
/** These move all that comes after the range. */
const MOVES = FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_INSERT_RANGE
/** After so many bytes of a copy the tasks of others have their turn. */
const PIECE = 32 << 20

const st = new Stat()

/**
 * Before a real file's data is changed: what is to be done after that, with a descriptor of it.
 * With write-back the kernel keeps the time of that itself and brings it with a request of its own,
 * before or after this: the real file's stays until then. Or -errno.
 */
function beforeChange(u: CopyUpContext, handle: FileHandle): ((fd: number) => void) | Result {
  const dropped = u.override ? dropCapability(u.upper, handle.fd, '') : 0
  if (dropped < 0) return dropped
  if (!u.writeback || fstatx(handle.fd, st) < 0) return () => {}
  const { mtimeSec, mtimeNsec } = st
  return fd => restoreMtime(u, fd, mtimeSec, mtimeNsec)
}

/** @throws Pending where that may take long */
export function fallocateFile(
  u: CopyUpContext,
  handle: FileHandle,
  mode: number,
  offset: Off,
  length: Off,
): Result {
  if (!handle.writable) return -E.EBADF
  // Kernel: vfs_fallocate(). Only growing is allowed to an append-only file.
  if ((handle.node.protect & Protect.IMMUTABLE) !== 0) return -E.EPERM
  if ((handle.node.protect & Protect.APPEND) !== 0 && (mode & ~FALLOC_FL_KEEP_SIZE) !== 0)
    return -E.EPERM
  throwIfBusy(handle.node)
  if (length <= INLINE_SPACE && (mode & MOVES) === 0) {
    const after = beforeChange(u, handle)
    if (typeof after === 'number') return after
    const result = allocate(handle.fd, mode, offset, length)
    if (result >= 0) after(handle.fd)
    return result
  }
  const fd = dup(handle.fd)
  if (fd < 0) return fd
  const { node } = handle
  const after = beforeChange(u, handle)
  if (typeof after === 'number') {
    close(fd)
    return after
  }
  const job = u.pool.submit(
    { kind: 'fallocate', fd, mode, offset, length },
    result => {
      if (result >= 0) after(fd)
      close(fd)
      node.busy = null
      u.nodes.release(node)
      return result
    },
    () => void close(fd),
  )
  node.busy = job
  throw new Pending(job, true)
}

/**
 * Copies from one open file to another; fewer bytes than asked for only at the end of the source.
 *
 * @throws Pending where that may take long
 */
export function copyFileRange(
  u: CopyUpContext,
  source: FileHandle,
  offIn: Off,
  target: FileHandle,
  offOut: Off,
  length: number,
): Result {
  if (!target.writable) return -E.EBADF
  // Kernel: generic_copy_file_checks().
  if ((target.node.protect & Protect.IMMUTABLE) !== 0) return -E.EPERM
  throwIfBusy(target.node)
  const from = orPending(u, realFd(u, source))
  if (from < 0) return from
  const result = fstatx(from, st)
  if (result < 0) return result
  // Nothing is copied from behind the end; what a program says is often no more than "all".
  const wanted = Math.min(length, Math.max(0, offDistance(offIn, st.size64)))
  if (wanted <= INLINE && !isSlow(from)) {
    const after = beforeChange(u, target)
    if (typeof after === 'number') return after
    const copied = copyRange(from, offIn, target.fd, offOut, wanted)
    if (copied >= 0) after(target.fd)
    return copied
  }
  return copyInPieces(u, from, offIn, target, offOut, wanted)
}

function copyInPieces(
  u: CopyUpContext,
  from: number,
  offIn: Off,
  target: FileHandle,
  offOut: Off,
  wanted: number,
): Result {
  const src = dup(from)
  if (src < 0) return src
  const dst = dup(target.fd)
  if (dst < 0) {
    close(src)
    return dst
  }
  const closeBoth = (): void => {
    close(src)
    close(dst)
  }
  const after = beforeChange(u, target)
  if (typeof after === 'number') {
    closeBoth()
    return after
  }
  let done = 0
  const { node } = target
  const end = (result: Result): Result => {
    if (result >= 0) after(dst)
    closeBoth()
    node.busy = null
    u.nodes.release(node)
    return result
  }
  const job = series(
    u.slow !== null && isSlow(src) ? u.slow : u.pool,
    (result, nobodyWaits) => {
      if (result < 0) return end(done > 0 ? done : result)
      done += result
      const asked = Math.min(PIECE, wanted - done)
      if (asked === 0 || nobodyWaits || (done > 0 && result === 0)) return end(done)
      return {
        kind: 'range',
        src,
        offIn: offPlus(offIn, done),
        dst,
        offOut: offPlus(offOut, done),
        length: asked,
      }
    },
    closeBoth,
  )
  node.busy = job
  throw new Pending(job, true)
}
