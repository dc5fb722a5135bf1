/**
 * Operations on ranges of a file: copy_file_range(2) and fallocate(2). A long one runs on a job
 * thread, with its own descriptors, because the handle may be closed in the meantime. Another
 * system call that changes the same file waits in the kernel, which holds the inode lock until the
 * answer (fs/fuse/file.c:__fuse_copy_file_range, fuse_file_fallocate). Late pages of the file wait
 * for `Node.busy`.
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

/** A copy up to this size runs on the union's thread, because a job would cost more. */
const INLINE = 1 << 20
/** The limit for space that is only allocated, not written. */
const INLINE_SPACE = 16 << 20
/** These modes move all data after the range. */
const MOVES = FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_INSERT_RANGE
/** The size of one piece of a copy, after which other jobs get their turn. */
const PIECE = 32 << 20

const st = new Stat()

/**
 * Called before a real file's data is changed. Returns the function to call after the change, with
 * a descriptor of the file, or -errno. With write-back the kernel keeps the mtime and sends it in a
 * separate SETATTR, before or after this request, so the real file keeps its mtime until then.
 */
function beforeChange(u: CopyUpContext, handle: FileHandle): ((fd: number) => void) | Result {
  const dropped = u.override ? dropCapability(u.upper, handle.fd, '') : 0
  if (dropped < 0) return dropped
  if (!u.writeback || fstatx(handle.fd, st) < 0) return () => {}
  const { mtimeSec, mtimeNsec } = st
  return fd => restoreMtime(u, fd, mtimeSec, mtimeNsec)
}

/** @throws Pending if the operation may take long */
export function fallocateFile(
  u: CopyUpContext,
  handle: FileHandle,
  mode: number,
  offset: Off,
  length: Off,
): Result {
  if (!handle.writable) return -E.EBADF
  // Kernel: vfs_fallocate(). An append-only file may only grow.
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
 * Copies from one open file to another. Copies fewer bytes than requested only at the end of the
 * source.
 *
 * @throws Pending if the copy may take long
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
  // Data after the end of the source is never copied, and programs often pass a huge length that
  // means "all".
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
