/** unlink and rmdir. Mirrors fs/overlayfs/dir.c:ovl_do_remove(). */

import { isBulky } from '../jobs/bulky.js'
import { openat, rmdirat, unlinkat } from '../../sys/at.js'
import { O_PATH } from '../../sys/constants.js'
import { E } from '../../sys/errno.js'
import { close } from '../../sys/io.js'
import { Stat } from '../../sys/stat.js'
import { invalidateAttrs } from '../inode/invalidate.js'
import { clearWhiteoutsInBackground, isLargeDirectory } from './clear-whiteouts.js'
import { indexBeforeLoss } from '../copy-up/copy-up.js'
import { ensureUpperDir } from '../copy-up/directory.js'
import { refersTo } from '../layer/real-identity.js'
import type { RealDir } from '../layer/layer.js'
import { findForRemoval, lowerPositive } from './lookup.js'
import { throwIfBusy, type Node } from '../inode/node.js'
import type { ByteString, Result } from '../ops.js'
import { checkEmpty } from './readdir-merge.js'
import { isReadOnly } from '../inode/context.js'
import { Place } from '../inode/place.js'
import { locate, statNode } from '../inode/real-object.js'
import type { Union } from './context.js'

const st = new Stat()
const place = new Place()

/** Whether the upper directory itself has this name of the node. */
export function isNameInUpper(node: Node, parent: Node, name: ByteString): boolean {
  if (node.links === null) return node.upper
  return node.links.get(parent, name)?.inUpper === true
}

/** Whether a lower layer shows the name after the upper layer has removed it. */
export function needsWhiteout(u: Union, node: Node, parent: Node, name: ByteString): boolean {
  if (!isNameInUpper(node, parent, name)) return true
  if (parent.dirs.length === 1) return false
  if (node.links === null && node.lowerPositive === false) return false
  return lowerPositive(u, parent, name)
}

/** Checks whether this child may be removed or moved. */
export function checkRemovable(u: Union, parent: Node, node: Node): Result {
  if (isReadOnly(u)) return -E.EROFS
  if (parent.protect !== 0 || node.protect !== 0) return -E.EPERM
  return 0
}

/** @throws Pending if a large file with several links must be copied up first */
export function unlink(u: Union, parent: Node, name: ByteString): Result {
  const node = findForRemoval(u, parent, name)
  if (typeof node === 'number') return node
  if (node.isDir) return -E.EISDIR
  throwIfBusy(node)
  const bulky = isBulky(u.st)
  const allowed = checkRemovable(u, parent, node)
  const result = allowed < 0 ? allowed : removeFile(u, node, parent, name)
  if (bulky) node.bulky = true
  if (node.lookups === 0) u.nodes.release(node)
  return result
}

export function rmdir(u: Union, parent: Node, name: ByteString): Result {
  const node = findForRemoval(u, parent, name)
  if (typeof node === 'number') return node
  if (!node.isDir) return -E.ENOTDIR
  throwIfBusy(node)
  const large = isLargeDirectory(u, node)
  const allowed = checkRemovable(u, parent, node)
  let result: Result = -E.EIO
  try {
    if (allowed >= 0 && large) clearWhiteoutsInBackground(u, parent, name, node)
    result = allowed < 0 ? allowed : removeDirectory(u, node, parent, name)
  } catch (error) {
    dropOrphanFd(u, node)
    throw error
  }
  if (result >= 0) applyRmdir(u, node, parent, name)
  else dropOrphanFd(u, node)
  if (node.lookups === 0) u.nodes.release(node)
  return result
}

/** Removes one name of a non-directory. */
function removeFile(u: Union, node: Node, parent: Node, name: ByteString): Result {
  const indexed = indexBeforeLoss(u, node, parent, name)
  if (indexed < 0) return indexed
  const inUpper = isNameInUpper(node, parent, name)
  const whiteout = needsWhiteout(u, node, parent, name)
  const ready = ensureUpperDir(u, parent)
  if (ready < 0) return ready
  const upper = parent.upperDir
  if (upper === null || u.workdir === null) return -E.EIO
  const last = keepOrphanFd(u, node, parent, name)
  if (last < 0) return last
  const fd = u.fds.get(upper)
  let result: Result = fd
  if (fd >= 0) {
    result = whiteout
      ? recordWhiteout(upper, name, u.workdir.whiteout(fd, name, inUpper ? 'file' : 'nothing'), u)
      : unlinkat(fd, name)
  }
  if (result < 0) {
    dropOrphanFd(u, node)
    return result
  }
  applyUnlink(u, node, parent, name, inUpper, last > 0)
  return 0
}

/**
 * Prepares a node for the loss of a name. If no other name leads to its real object, the node keeps
 * an orphan fd, because the file may be open and must still be served.
 *
 * @returns 1 if this is the last name in the union, 0 if there are others, or -errno
 */
export function keepOrphanFd(u: Union, node: Node, parent: Node, name: ByteString): Result {
  let last = true
  if (node.links !== null) {
    const stated = statNode(u, node, st)
    if (stated < 0) return stated
    last = st.nlink + node.nlinkAdjust <= 1
  }
  if (!node.upper || node.orphanFd >= 0) return last ? 1 : 0
  const others = node.links?.hasOtherInUpper(parent, name)
  if (!last && (others === true || node.indexKey !== null)) return 0
  const located = locate(u, node, place)
  if (located < 0) return located
  let orphanFd = openat(place.fd, place.name, O_PATH)
  if (orphanFd === -E.EMFILE || orphanFd === -E.ENFILE) {
    u.fds.shrink()
    if (locate(u, node, place) >= 0) orphanFd = openat(place.fd, place.name, O_PATH)
  }
  if (orphanFd < 0) return orphanFd
  if (!refersTo(orphanFd, node)) {
    close(orphanFd)
    return -E.ESTALE
  }
  node.orphanFd = orphanFd
  return last ? 1 : 0
}

/** Drops the orphan fd after a failed removal: the node is reached by name again. */
export function dropOrphanFd(u: Union, node: Node): void {
  if (node.orphanFd < 0) return
  const upper = node.upperDir
  if (node.isDir && upper !== null) u.fds.adopt(upper, node.orphanFd)
  else close(node.orphanFd)
  node.orphanFd = -1
}

/** Updates the node after a name was removed. `last` is the result of `keepOrphanFd`. */
export function applyUnlink(
  u: Union,
  node: Node,
  parent: Node,
  name: ByteString,
  inUpper: boolean,
  last: boolean,
): void {
  u.nodes.removeName(node, parent, name)
  if (!inUpper) {
    if (node.links === null || (u.workdir?.indexFd ?? -1) >= 0) node.nlinkAdjust--
    // The link count of the lower inode is shown unchanged (kernel: ovl_nlink_start), while the
    // FUSE client has decremented its copy.
    else invalidateAttrs(u, node)
  }
  if (node.indexKey !== null && u.workdir !== null) {
    // If the unlink fails, the next mount removes the entry because of its link count.
    if (last) {
      const result = unlinkat(u.workdir.indexFd, node.indexKey)
      if (result < 0) u.log.warn({ errno: -result }, 'cannot remove a stale index entry')
      node.indexKey = null
      node.nlinkAdjust = 0
    }
  }
  // The file may have names that were not looked up. The lookup of such a name revives the node.
  if (node.parent === null) node.unlinked = true
}

function removeDirectory(u: Union, node: Node, parent: Node, name: ByteString): Result {
  const upper = node.upperDir
  const whiteout = needsWhiteout(u, node, parent, name)
  const single = upper !== null && node.dirs.length === 1
  if (!single) {
    const empty = checkEmpty(u, node)
    if (empty < 0) return empty
  }
  const ready = ensureUpperDir(u, parent)
  if (ready < 0) return ready
  const into = parent.upperDir
  if (into === null || u.workdir === null) return -E.EIO
  const fd = u.fds.get(into)
  if (fd < 0) return fd
  if (upper === null) return recordWhiteout(into, name, u.workdir.whiteout(fd, name, 'nothing'), u)
  keepOrphanDirectory(u, node, upper)
  if (!whiteout) {
    let result = rmdirat(fd, name)
    if (result !== -E.ENOTEMPTY && result !== -E.EEXIST) return result
    // The directory may hold only whiteouts that hide nothing any more.
    result = checkEmpty(u, node)
    return result < 0 ? result : u.workdir.removeDirectory(fd, name)
  }
  if (single) {
    const empty = checkEmpty(u, node)
    if (empty < 0) return empty
  }
  return recordWhiteout(into, name, u.workdir.whiteout(fd, name, 'directory'), u)
}

/** Keeps an orphan fd of a removed directory, through which it is still served. */
export function keepOrphanDirectory(u: Union, node: Node, upper: RealDir): void {
  if (node.orphanFd >= 0) return
  const fd = u.fds.get(upper)
  if (fd < 0) return
  node.orphanFd = u.fds.detach(upper)
}

/** Updates the node after a directory was removed. */
export function applyRmdir(u: Union, node: Node, parent: Node, name: ByteString): void {
  const upper = node.upperDir
  if (upper !== null) {
    u.fds.drop(upper)
    upper.parent = null
  }
  u.nodes.removeName(node, parent, name)
  node.unlinked = true
}

/** Adds a `.wh.` whiteout that was just created to the directory's known ones. */
export function recordWhiteout(dir: RealDir, name: ByteString, result: Result, u: Union): Result {
  if (result >= 0 && u.workdir?.form === 'wh') dir.dotWhiteouts?.add(name)
  if (result >= 0 && u.workdir?.form === 'xattr') dir.xattrWhiteouts = true
  return result
}
