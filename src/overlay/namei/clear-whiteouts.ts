/**
 * Empty directories of the upper layer that hold whiteouts are replaced by really empty ones before
 * they are removed or replaced. Of a large one what is in it is looked at, and removed, in pieces
 * between which others are answered. Its caller waits, and holds the kernel's locks of the
 * directory and its parent: nobody changes what is in them through the mount.
 */

import { statxat } from '../../sys/at.js'
import { RENAME_EXCHANGE } from '../../sys/constants.js'
import { E } from '../../sys/errno.js'
import { Stat } from '../../sys/stat.js'
import { identify } from '../layer/real-identity.js'
import { series } from '../jobs/pool.js'
import { PAUSE, type IoTask } from '../jobs/task.js'
import type { RealDir } from '../layer/layer.js'
import { OWNER_LIST, renameWithOwnerAccess, withOwnerAccess } from '../owner/owner-access.js'
import { emptyInPieces } from './readdir-merge.js'
import type { Node } from '../inode/node.js'
import { Pending, type ByteString, type Result } from '../ops.js'
import { listReal } from '../../sys/real-dir.js'
import type { Union } from './context.js'

const st = new Stat()

/** Bytes of a directory, as file systems count them: it may have thousands of names. */
const LARGE = 1 << 16

/**
 * Whether to look through a directory of the upper layer may keep others waiting. Its attributes
 * are in `u.st`; once: after `clearInBackground` it is done as it can be.
 */
export function isLargeDirectory(u: Union, node: Node): boolean {
  if (!node.isDir || node.upperDir === null || u.st.size <= LARGE) return false
  // A `.wh.` form may be there since nothing can change places; what slow layers say is kept by a
  // request.
  if (u.workdir === null || u.workdir.form === 'wh' || u.slow !== null) return false
  const before = node.prepared
  node.prepared = false
  return !before
}

/**
 * Replaces a large directory, if it is empty, by a really empty one.
 *
 * @throws Pending always; it fails with -ENOTEMPTY where there is anything in it
 */
export function clearInBackground(u: Union, parent: Node, name: ByteString, node: Node): never {
  const steps = clear(u, parent, name, node)
  const job = series(
    u.pool,
    last => {
      const { done, value } = steps.next(last)
      if (done !== true) return value
      node.busy = null
      node.prepared = value >= 0
      u.nodes.release(node)
      return value
    },
    () => void steps.return(0),
  )
  node.busy = job
  throw new Pending(job, false)
}

function* clear(
  u: Union,
  parent: Node,
  name: ByteString,
  node: Node,
): Generator<IoTask, Result, Result> {
  yield PAUSE
  const empty = yield* emptyInPieces(u, node)
  if (empty < 0) return empty
  const into = parent.upperDir
  const upper = node.upperDir
  const { dirs } = node
  const old = swapForEmpty(u, parent, name, node)
  // Whoever is called again meets the error, if it is one for him.
  if (typeof old === 'number' || into === null || upper === null || u.workdir === null) return 0
  nowEmpty(u, node, upper)
  const removed = yield* u.workdir.removeExchangedInPieces(old, () => u.fds.get(into), name)
  if (removed < 0) {
    // The old one is back.
    u.fds.drop(upper)
    const stated = statxat(u.fds.get(into), name, st)
    if (stated >= 0) identify(upper, st, upper.layer)
    upper.dotWhiteouts = undefined
    node.dirs = dirs
  }
  return removed
}

/**
 * Replaces an empty merged directory in the upper layer, which may hold whiteouts, by one that is
 * really empty, so that a rename can replace it (kernel: ovl_clear_empty).
 */
export function clearEmpty(u: Union, parent: Node, name: ByteString, node: Node): Result {
  const old = swapForEmpty(u, parent, name, node)
  if (typeof old === 'number') return old
  const into = parent.upperDir
  const upper = node.upperDir
  if (into === null || upper === null || u.workdir === null) return -E.EIO
  const removed = u.workdir.removeExchanged(old, u.fds.get(into), name)
  if (removed < 0) return removed
  nowEmpty(u, node, upper)
  return 0
}

/**
 * @returns the name of the old one in the workdir; 0 where it is really empty already; or -errno
 */
function swapForEmpty(u: Union, parent: Node, name: ByteString, node: Node): ByteString | Result {
  const upper = node.upperDir
  const into = parent.upperDir
  if (upper === null || into === null) return 0
  if (rmdirIsEnough(u, upper)) return 0
  const workdir = u.workdir
  if (workdir === null) return -E.EROFS
  const fresh = workdir.stageDirectoryLike(u.fds.get(upper))
  if (typeof fresh === 'number') return fresh
  let marked = u.xattrs.setOpaque(workdir.fd, fresh)
  if (marked >= 0) marked = statxat(workdir.fd, fresh, st)
  const fd = u.fds.get(into)
  const result =
    marked < 0
      ? marked
      : fd < 0
        ? fd
        : renameWithOwnerAccess(workdir.fd, fresh, fd, name, RENAME_EXCHANGE)
  if (result < 0) {
    workdir.discard(fresh)
    return result
  }
  return fresh
}

/** The union's side of that. `st` has the attributes of the new one. */
function nowEmpty(u: Union, node: Node, upper: RealDir): void {
  u.fds.drop(upper)
  identify(upper, st, upper.layer)
  upper.dotWhiteouts = new Set()
  node.dirs = [upper]
}

function rmdirIsEnough(u: Union, upper: RealDir): boolean {
  const fd = u.fds.get(upper)
  return fd >= 0 && isReallyEmpty(fd)
}

function isReallyEmpty(fd: number): boolean {
  let empty = true
  const list = (): Result => listReal(fd, '', () => (empty = false))
  let result = list()
  if (result === -E.EACCES) result = withOwnerAccess(fd, '', OWNER_LIST, list)
  return result >= 0 && empty
}
