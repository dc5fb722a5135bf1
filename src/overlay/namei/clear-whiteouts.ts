/**
 * An upper directory that is empty in the union may hold whiteouts. Before it is removed or
 * replaced, it is exchanged for a directory without entries. A large one is checked and cleared in
 * pieces; the union's thread serves other requests in between. The caller waits, and holds the
 * kernel's locks of the directory and its parent, so no entry changes through the mount.
 */

import { statxat } from '../../sys/at.js'
import { RENAME_EXCHANGE } from '../../sys/constants.js'
import { E } from '../../sys/errno.js'
import { Stat } from '../../sys/stat.js'
import { identify } from '../layer/real-identity.js'
import { series } from '../jobs/pool.js'
import { YIELD, type IoTask } from '../jobs/task.js'
import type { RealDir } from '../layer/layer.js'
import { OWNER_LIST, renameWithOwnerAccess, withOwnerAccess } from '../owner/owner-access.js'
import { emptyInPieces } from './readdir-merge.js'
import type { Node } from '../inode/node.js'
import { Pending, type ByteString, type Result } from '../ops.js'
import { listReal } from '../../sys/real-dir.js'
import type { Union } from './context.js'

const st = new Stat()

/**
 * The size of a directory in bytes, as the file system reports it. A larger directory may have
 * thousands of names.
 */
const LARGE = 1 << 16

/**
 * Whether a scan of the upper directory may delay other requests. The caller has its attributes in
 * `u.st`. Returns false once after `clearWhiteoutsInBackground`, because the directory is then
 * already cleared.
 */
export function isLargeDirectory(u: Union, node: Node): boolean {
  if (!node.isDir || node.upperDir === null || u.st.size <= LARGE) return false
  // With `.wh.` files the directory cannot be exchanged. With slow layers their answers belong to
  // one request, not to a job.
  if (u.workdir === null || u.workdir.form === 'wh' || u.slow !== null) return false
  const before = node.prepared
  node.prepared = false
  return !before
}

/**
 * Exchanges a large directory for one without entries, if the union shows it as empty.
 *
 * @throws Pending always; the job fails with -ENOTEMPTY if the union shows an entry
 */
export function clearWhiteoutsInBackground(
  u: Union,
  parent: Node,
  name: ByteString,
  node: Node,
): never {
  const steps = clearWhiteouts(u, parent, name, node)
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

function* clearWhiteouts(
  u: Union,
  parent: Node,
  name: ByteString,
  node: Node,
): Generator<IoTask, Result, Result> {
  yield YIELD
  const empty = yield* emptyInPieces(u, node)
  if (empty < 0) return empty
  const into = parent.upperDir
  const upper = node.upperDir
  const { dirs } = node
  const old = exchangeForEmpty(u, parent, name, node, st)
  // The operation is started again and gets the same error then.
  if (typeof old === 'number' || into === null || upper === null || u.workdir === null) return 0
  applyCleared(u, node, upper, st)
  const removed = yield* u.workdir.removeExchangedInPieces(old, () => u.fds.get(into), name)
  if (removed < 0) {
    // The old directory is back in its place.
    u.fds.drop(upper)
    const stated = statxat(u.fds.get(into), name, st)
    if (stated >= 0) identify(upper, st, upper.layer)
    upper.dotWhiteouts = undefined
    node.dirs = dirs
  }
  return removed
}

/**
 * Exchanges an empty merged directory in the upper layer, which may hold whiteouts, for one without
 * entries, so that a rename can replace it (kernel: ovl_clear_empty).
 */
export function clearEmpty(u: Union, parent: Node, name: ByteString, node: Node): Result {
  const old = exchangeForEmpty(u, parent, name, node, st)
  if (typeof old === 'number') return old
  const into = parent.upperDir
  const upper = node.upperDir
  if (into === null || upper === null || u.workdir === null) return -E.EIO
  const removed = u.workdir.removeExchanged(old, u.fds.get(into), name)
  if (removed < 0) return removed
  applyCleared(u, node, upper, st)
  return 0
}

/**
 * @param fresh receives the attributes of the new directory
 * @returns the temporary name of the old directory in the workdir; 0 if it had no entries; or
 *   -errno
 */
function exchangeForEmpty(
  u: Union,
  parent: Node,
  name: ByteString,
  node: Node,
  fresh: Stat,
): ByteString | Result {
  const upper = node.upperDir
  const into = parent.upperDir
  if (upper === null || into === null) return 0
  if (hasNoUpperEntries(u, upper)) return 0
  const workdir = u.workdir
  if (workdir === null) return -E.EROFS
  const temp = workdir.stageDirectoryLike(u.fds.get(upper))
  if (typeof temp === 'number') return temp
  let prepared = u.xattrs.setOpaque(workdir.fd, temp)
  if (prepared >= 0) prepared = statxat(workdir.fd, temp, fresh)
  const fd = u.fds.get(into)
  const result =
    prepared < 0
      ? prepared
      : fd < 0
        ? fd
        : renameWithOwnerAccess(workdir.fd, temp, fd, name, RENAME_EXCHANGE)
  if (result < 0) {
    workdir.discard(temp)
    return result
  }
  return temp
}

/** Updates the node after the exchange. `fresh`: the attributes of the new directory. */
function applyCleared(u: Union, node: Node, upper: RealDir, fresh: Stat): void {
  u.fds.drop(upper)
  identify(upper, fresh, upper.layer)
  upper.dotWhiteouts = new Set()
  node.dirs = [upper]
}

function hasNoUpperEntries(u: Union, upper: RealDir): boolean {
  const fd = u.fds.get(upper)
  return fd >= 0 && hasNoEntries(fd)
}

function hasNoEntries(fd: number): boolean {
  let empty = true
  const list = (): Result => listReal(fd, '', () => (empty = false))
  let result = list()
  if (result === -E.EACCES) result = withOwnerAccess(fd, '', OWNER_LIST, list)
  return result >= 0 && empty
}
