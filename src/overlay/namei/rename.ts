/** rename, with RENAME_NOREPLACE and RENAME_EXCHANGE. Mirrors fs/overlayfs/dir.c:ovl_rename(). */

import { isBulky } from '../jobs/bulky.js'
import { renameat2, statxat } from '../../sys/at.js'
import { RENAME_EXCHANGE, RENAME_NOREPLACE } from '../../sys/constants.js'
import { E } from '../../sys/errno.js'
import { Stat } from '../../sys/stat.js'
import { clearEmpty, clearWhiteoutsInBackground, isLargeDirectory } from './clear-whiteouts.js'
import { copyUp, indexBeforeLoss } from '../copy-up/copy-up.js'
import { ensureUpperDir } from '../copy-up/directory.js'
import { ensureUpperName } from '../copy-up/hard-links.js'
import { setImpure } from '../copy-up/publish.js'
import { publishMove, type RealMove } from './publish-move.js'
import { findForRemoval } from './lookup.js'
import { isXattrRefusal } from '../layer/overlay-xattrs.js'
import { isWithin, throwIfBusy, Protect, type Node } from '../inode/node.js'
import type { ByteString, Result } from '../ops.js'
import { checkEmpty } from './readdir-merge.js'
import {
  checkRemovable,
  applyRmdir,
  keepOrphanDirectory,
  keepOrphanFd,
  isNameInUpper,
  dropOrphanFd,
  applyUnlink,
  needsWhiteout,
} from './remove.js'
import { isReadOnly } from '../inode/context.js'
import { Place } from '../inode/place.js'
import { locate } from '../inode/real-object.js'
import type { Union } from './context.js'
import {
  isActiveDotWhiteout,
  isDotWhiteoutName,
  isWhiteout,
  setOrdinary,
  allowsDotNames,
} from '../layer/whiteout.js'
import type { Workdir } from '../copy-up/workdir.js'

const NAME_MAX = 255
/** The longest `overlay.redirect` that is written (kernel: redirect_max). */
const REDIRECT_MAX = 256
const st = new Stat()

/** A name with its node in the union. */
interface Side {
  parent: Node
  name: ByteString
  node: Node
}

/** The new name of a move, with the node that it replaces. */
interface Target {
  parent: Node
  name: ByteString
  node: Node | null
}

/** @throws Pending if a large file must be copied up first */
export function rename(
  u: Union,
  parent: Node,
  name: ByteString,
  newParent: Node,
  newName: ByteString,
  flags: number,
): Result {
  if ((flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE)) !== 0) return -E.EINVAL
  if (isReadOnly(u)) return -E.EROFS
  if (newName.length > NAME_MAX) return -E.ENAMETOOLONG
  if (isDotWhiteoutName(newName) && !allowsDotNames(u)) return -E.EINVAL
  if (newParent.unlinked) return -E.ENOENT
  const node = findForRemoval(u, parent, name)
  if (typeof node === 'number') return node
  const target = findForRemoval(u, newParent, newName)
  if (typeof target === 'number' && target !== -E.ENOENT) return target
  throwIfBusy(node)
  if (typeof target !== 'number') throwIfBusy(target)
  if (typeof target !== 'number' && isBulky(u.st)) target.bulky = true
  const large = typeof target !== 'number' && isLargeDirectory(u, target)
  const old: Side = { parent, name, node }
  const replaced = typeof target === 'number' ? null : target
  const to: Target = { parent: newParent, name: newName, node: replaced }
  const result =
    (flags & RENAME_EXCHANGE) !== 0
      ? replaced === null
        ? -E.ENOENT
        : exchange(u, old, { ...to, node: replaced })
      : move(u, old, to, large, (flags & RENAME_NOREPLACE) !== 0)
  if (node.lookups === 0) u.nodes.release(node)
  if (replaced !== null && replaced.lookups === 0) u.nodes.release(replaced)
  return result
}

/** Repeats checks of the kernel's VFS that matter for the layers. */
function checkMovable(u: Union, side: Side): Result {
  const allowed = checkRemovable(u, side.parent, side.node)
  if (allowed < 0) return allowed
  // Kernel: ovl_can_move(). Without redirects, lower directories cannot be found under the new
  // path.
  const merged = side.node.isDir && side.node.mergeOrLower
  return merged && u.options.redirectDir !== 'on' ? -E.EXDEV : 0
}

/**
 * Copies up every object that the rename affects.
 *
 * @throws Pending if a large file must be copied up first
 */
function copyUpSide(u: Union, side: Side): Result {
  let result = copyUp(u, side.node)
  if (result < 0) return result
  result = ensureUpperDir(u, side.parent)
  if (result < 0) return result
  return side.node.isDir ? 0 : ensureUpperName(u, side.node, side.parent, side.name)
}

/** @param large the replaced directory is large (`isLargeDirectory`) */
function move(u: Union, old: Side, to: Target, large: boolean, noReplace: boolean): Result {
  const { node } = old
  const { parent: newParent, name: newName, node: target } = to
  if (target !== null) {
    if (noReplace) return -E.EEXIST
    if (target === node) return 0
    if (node.isDir && !target.isDir) return -E.ENOTDIR
    if (!node.isDir && target.isDir) return -E.EISDIR
    const allowed = checkRemovable(u, newParent, target)
    if (allowed < 0) return allowed
  }
  // An append-only directory accepts new names.
  if ((newParent.protect & Protect.IMMUTABLE) !== 0) return -E.EPERM
  if (node.isDir && isWithin(newParent, node)) return -E.EINVAL
  let result = checkMovable(u, old)
  if (result < 0) return result
  // The order of the two checks is the kernel's: a merged target is checked for emptiness first,
  // any other later.
  const merged = target !== null && target.isDir && target.mergeOrLower
  const look = (directory: Node): Result =>
    large ? clearWhiteoutsInBackground(u, newParent, newName, directory) : checkEmpty(u, directory)
  if (merged) result = look(target)
  if (result < 0) return result
  const moved = node.isDir && node.mergeOrLower
  result = copyUpSide(u, old)
  if (result < 0) return result
  result = ensureUpperDir(u, newParent)
  if (result < 0) return result
  result = setOrdinaryIfDotName(u, node, newParent, newName, target === null)
  if (result < 0) return result
  if (moved) {
    const redirect = redirectOf(u, node, old.parent === newParent, old.name)
    if (typeof redirect !== 'string') return redirect ?? -E.EXDEV
  }
  if (target !== null && target.isDir && !merged) result = look(target)
  if (result < 0) return result
  if (target !== null) {
    result = target.isDir
      ? clearEmpty(u, newParent, newName, target)
      : indexBeforeLoss(u, target, newParent, newName)
    if (result < 0) return result
  }
  return moveReal(u, old, to)
}

function moveReal(u: Union, old: Side, to: Target): Result {
  const { node, parent, name } = old
  const { parent: newParent, name: newName, node: target } = to
  const workdir = u.workdir
  const from = parent.upperDir
  const into = newParent.upperDir
  if (workdir === null || from === null || into === null) return -E.EIO
  const whiteoutOld = needsWhiteout(u, node, parent, name)
  let result = prepareMoved(u, old, newParent)
  if (result < 0) return result
  const targetInUpper = target !== null && isNameInUpper(target, newParent, newName)
  let last = 0
  if (target !== null && target.isDir) {
    const upper = target.upperDir
    if (upper !== null) keepOrphanDirectory(u, target, upper)
  } else if (target !== null) {
    last = keepOrphanFd(u, target, newParent, newName)
    if (last < 0) return last
  }
  // `keepOrphanFd` may have closed descriptors of directories.
  const fromFd = u.fds.get(from)
  const intoFd = u.fds.get(into)
  let existing: RealMove['target'] | Result = 'nothing'
  if (fromFd < 0 || intoFd < 0) existing = Math.min(fromFd, intoFd)
  else if (targetInUpper) existing = target.isDir ? 'directory' : 'file'
  // A file that needs no whiteout replaces any object in one step.
  else if (node.isDir || whiteoutOld) existing = existingAt(u, workdir, intoFd, newName)
  if (typeof existing === 'number') {
    if (target !== null) dropOrphanFd(u, target)
    return existing
  }
  result = publishMove(u, workdir, node, {
    from,
    fromFd,
    name,
    into,
    intoFd,
    newName,
    whiteoutOld,
    target: existing,
    replacesLower: target !== null && !targetInUpper,
  })
  if (result < 0) {
    if (target !== null) dropOrphanFd(u, target)
    return result
  }
  // Point of no return: the layers show the new state.
  if (target !== null) {
    if (target.isDir) applyRmdir(u, target, newParent, newName)
    else applyUnlink(u, target, newParent, newName, targetInUpper, last > 0)
  }
  u.nodes.removeName(node, parent, name)
  attachNode(u, node, newParent, newName)
  return 0
}

/**
 * Sets the xattr that marks an object with a `.wh.` name as ordinary, so that the name acts as no
 * whiteout.
 *
 * @param isFree the union has nothing under the name. If the upper layer has an object there, that
 *   object is a whiteout of another name, and must stay
 */
function setOrdinaryIfDotName(
  u: Union,
  node: Node,
  into: Node,
  name: ByteString,
  isFree: boolean,
): Result {
  if (!isDotWhiteoutName(name)) return 0
  const upper = into.upperDir
  const fd = upper === null ? -E.EIO : u.fds.get(upper)
  if (fd < 0) return fd
  const hides = isFree ? isActiveDotWhiteout(u, false, fd, name) : 0
  if (hides !== 0) return hides < 0 ? hides : -E.EINVAL
  const at = new Place()
  const result = locate(u, node, at)
  return result < 0 ? result : setOrdinary(u, at.fd, at.name)
}

/** The kind of object that the upper layer has at (fd, name), or -errno. */
function existingAt(
  u: Union,
  workdir: Workdir,
  fd: number,
  name: ByteString,
): RealMove['target'] | Result {
  const stated = statxat(fd, name, st)
  if (stated < 0) return stated === -E.ENOENT ? 'nothing' : stated
  const whiteout = isWhiteout(u.xattrs, fd, name, st, false)
  if (whiteout < 0) return whiteout
  if (whiteout === 0) return st.isDir ? 'directory' : 'file'
  const form = st.isWhiteout ? 'char' : 'xattr'
  return form === workdir.form ? 'own whiteout' : 'other whiteout'
}

/**
 * Prepares the xattrs of the object that moves. A directory must not merge with lower directories
 * under its new name, or needs a redirect to its lower part.
 */
function prepareMoved(u: Union, old: Side, newParent: Node): Result {
  const { node, parent } = old
  const into = newParent.upperDir
  const top = node.upperDir
  if (into === null) return -E.EIO
  if (node.isDir && top !== null) {
    const fd = u.fds.get(top)
    if (fd < 0) return fd
    let result = 0
    if (node.dirs.length > 1) result = setRedirect(u, node, fd, parent === newParent, old.name)
    // Hides lower directories under the new name, also those of a lower layer added later (kernel:
    // ovl_rename).
    else if (newParent.dirs.length > 1) result = u.xattrs.setOpaque(fd, '')
    if (result < 0) return isXattrRefusal(result) ? -E.EXDEV : result
  }
  if (!node.hasForeignIno || into.impure) return 0
  const fd = u.fds.get(into)
  return fd < 0 ? fd : setImpure(u, into, fd)
}

/**
 * The redirect of a merged directory that moves (kernel: ovl_get_redirect). Within the same
 * directory it is the old name. Otherwise it is the path in the layers below the upper one: the
 * path in the union, unless the upper layer has itself moved an ancestor.
 *
 * @returns null if the path is too long; or -errno
 */
function redirectOf(
  u: Union,
  node: Node,
  sameDirectory: boolean,
  name: ByteString,
): ByteString | Result | null {
  if (sameDirectory) return name
  let path = ''
  let own = name
  for (let at: Node = node; at.parent !== null; own = at.name) {
    const upper = at.upperDir
    const fd = upper === null ? -1 : u.fds.get(upper)
    if (upper !== null && fd < 0) return fd
    const step = (fd < 0 ? null : u.xattrs.value(fd, '', 'redirect')) ?? own
    if (typeof step === 'number') return step
    path = (step.startsWith('/') ? step : '/' + step) + path
    if (step.startsWith('/')) break
    at = at.parent
  }
  return path.length > REDIRECT_MAX ? null : path
}

/** Writes `overlay.redirect` (kernel: ovl_set_redirect). */
function setRedirect(
  u: Union,
  node: Node,
  fd: number,
  sameDirectory: boolean,
  name: ByteString,
): Result {
  const present = u.xattrs.value(fd, '', 'redirect')
  if (typeof present === 'number') return present
  if (present !== null && (present.startsWith('/') || sameDirectory)) return 0
  const redirect = redirectOf(u, node, sameDirectory, name)
  if (typeof redirect === 'number') return redirect
  return redirect === null ? -E.EXDEV : u.xattrs.set(fd, '', 'redirect', redirect)
}

/** RENAME_EXCHANGE: each object must be valid under the other's name. */
function exchange(u: Union, a: Side, b: Side): Result {
  if (a.node === b.node) return 0
  if (a.node.isDir && isWithin(b.parent, a.node)) return -E.EINVAL
  if (b.node.isDir && isWithin(a.parent, b.node)) return -E.EINVAL
  for (const side of [a, b]) {
    const result = checkMovable(u, side)
    if (result < 0) return result
  }
  for (const side of [a, b]) {
    const result = copyUpSide(u, side)
    if (result < 0) return result
  }
  const from = a.parent.upperDir
  const into = b.parent.upperDir
  if (from === null || into === null) return -E.EIO
  let result = setOrdinaryIfDotName(u, a.node, b.parent, b.name, false)
  if (result >= 0) result = setOrdinaryIfDotName(u, b.node, a.parent, a.name, false)
  if (result >= 0) result = prepareMoved(u, a, b.parent)
  if (result >= 0) result = prepareMoved(u, b, a.parent)
  if (result < 0) return result
  const fromFd = u.fds.get(from)
  const intoFd = u.fds.get(into)
  if (fromFd < 0 || intoFd < 0) return Math.min(fromFd, intoFd)
  result = renameat2(fromFd, a.name, intoFd, b.name, RENAME_EXCHANGE)
  if (result < 0) return result
  // Point of no return.
  u.nodes.removeName(a.node, a.parent, a.name)
  u.nodes.removeName(b.node, b.parent, b.name)
  attachNode(u, a.node, b.parent, b.name)
  attachNode(u, b.node, a.parent, a.name)
  return 0
}

/** Updates the node after a rename. */
function attachNode(u: Union, node: Node, parent: Node, name: ByteString): void {
  u.nodes.addName(node, parent, name, true)
  const top = node.upperDir
  if (top !== null) {
    top.parent = parent.upperDir
    top.name = name
  }
  // Unknown: lower layers may have an object under the new name.
  node.lowerPositive = undefined
}
