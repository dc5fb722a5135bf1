/** rename, with RENAME_NOREPLACE and RENAME_EXCHANGE. Analogous to fs/overlayfs/dir.c:ovl_rename(). */

import { openat, renameat2, statxat, unlinkat } from '../sys/at.js'
import {
  O_CREAT,
  O_WRONLY,
  RENAME_EXCHANGE,
  RENAME_NOREPLACE,
  RENAME_WHITEOUT,
} from '../sys/constants.js'
import { E } from '../sys/errno.js'
import { close } from '../sys/io.js'
import { Stat } from '../sys/stat.js'
import { copyUp, indexBeforeLoss } from './copyup.js'
import { ensureUpperDir } from './copyup-folder.js'
import { ensureUpperName } from './hardlinks.js'
import { markImpure } from './publish.js'
import type { RealDir } from './layer.js'
import { OWNER_LIST, renameOwn, withRight } from './lend.js'
import { findChild } from './lookup.js'
import { isXattrRefusal } from './marks.js'
import { isWithin, Protect, type Node } from './node.js'
import type { ByteString, Result } from './ops.js'
import { checkEmpty } from './merge.js'
import {
  checkRemovable,
  folderGone,
  holdFolder,
  holdLast,
  isNameInUpper,
  letGo,
  nameGone,
  needsWhiteout,
} from './remove.js'
import { listReal } from './tree.js'
import { isReadOnly, type Union } from './union.js'
import { isDotWhiteoutName, isWhiteout } from './whiteout.js'
import type { Workdir } from './work.js'

const NAME_MAX = 255
/** Longest `overlay.redirect` that is written (kernel: redirect_max). */
const REDIRECT_MAX = 256
const st = new Stat()

/** A name with what the union has under it. */
interface Side {
  parent: Node
  name: ByteString
  node: Node
}

/** @throws Pending where a large file must be copied up first */
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
  if (isDotWhiteoutName(newName)) return -E.EINVAL
  if (newParent.unlinked) return -E.ENOENT
  const node = findChild(u, parent, name)
  if (typeof node === 'number') return node
  const target = findChild(u, newParent, newName)
  if (typeof target === 'number' && target !== -E.ENOENT) return target
  const old: Side = { parent, name, node }
  const replaced = typeof target === 'number' ? null : target
  const result =
    (flags & RENAME_EXCHANGE) !== 0
      ? replaced === null
        ? -E.ENOENT
        : exchange(u, old, { parent: newParent, name: newName, node: replaced })
      : move(u, old, newParent, newName, replaced, (flags & RENAME_NOREPLACE) !== 0)
  if (node.lookups === 0) u.nodes.release(node)
  if (replaced !== null && replaced.lookups === 0) u.nodes.release(replaced)
  return result
}

/** What the kernel's VFS checks too, once more where it matters for the layers. */
function checkMovable(u: Union, side: Side): Result {
  const allowed = checkRemovable(u, side.parent, side.node)
  if (allowed < 0) return allowed
  // Kernel: ovl_can_move(). Without redirects a folder of lower layers cannot be found elsewhere.
  const merged = side.node.isDir && side.node.mergeOrLower
  return merged && u.options.redirectDir !== 'on' ? -E.EXDEV : 0
}

/** Copies up everything that the rename touches; may throw `Pending`. */
function bringUp(u: Union, side: Side): Result {
  let result = copyUp(u, side.node)
  if (result < 0) return result
  result = ensureUpperDir(u, side.parent)
  if (result < 0) return result
  return side.node.isDir ? 0 : ensureUpperName(u, side.node, side.parent, side.name)
}

function move(
  u: Union,
  old: Side,
  newParent: Node,
  newName: ByteString,
  target: Node | null,
  noReplace: boolean,
): Result {
  const { node } = old
  if (target !== null) {
    if (noReplace) return -E.EEXIST
    if (target === node) return 0
    if (node.isDir && !target.isDir) return -E.ENOTDIR
    if (!node.isDir && target.isDir) return -E.EISDIR
    const allowed = checkRemovable(u, newParent, target)
    if (allowed < 0) return allowed
  }
  // An append-only folder takes new names.
  if ((newParent.protect & Protect.IMMUTABLE) !== 0) return -E.EPERM
  if (node.isDir && isWithin(newParent, node)) return -E.EINVAL
  let result = checkMovable(u, old)
  if (result < 0) return result
  // Which of two reasons comes first is the kernel's order: only a merged target is looked into before.
  const merged = target !== null && target.isDir && target.mergeOrLower
  if (merged) result = checkEmpty(u, target)
  if (result < 0) return result
  const moved = node.isDir && node.mergeOrLower
  result = bringUp(u, old)
  if (result < 0) return result
  result = ensureUpperDir(u, newParent)
  if (result < 0) return result
  if (moved && redirectOf(u, node, old.parent === newParent, old.name) === null) return -E.EXDEV
  if (target !== null && target.isDir && !merged) result = checkEmpty(u, target)
  if (result < 0) return result
  if (target !== null) {
    result = target.isDir
      ? clearEmpty(u, newParent, newName, target)
      : indexBeforeLoss(u, target, newParent, newName)
    if (result < 0) return result
  }
  return moveReal(u, old, newParent, newName, target)
}

function moveReal(
  u: Union,
  old: Side,
  newParent: Node,
  newName: ByteString,
  target: Node | null,
): Result {
  const { node, parent, name } = old
  const work = u.work
  const from = parent.upperDir
  const into = newParent.upperDir
  if (work === null || from === null || into === null) return -E.EIO
  const whiteoutOld = needsWhiteout(u, node, parent, name)
  let result = prepareMoved(u, old, newParent)
  if (result < 0) return result
  const targetInUpper = target !== null && isNameInUpper(target, newParent, newName)
  let last = 0
  if (target !== null && target.isDir) {
    const upper = target.upperDir
    if (upper !== null) holdFolder(u, target, upper)
  } else if (target !== null) {
    last = holdLast(u, target, newParent, newName)
    if (last < 0) return last
  }
  const fromFd = u.fds.get(from)
  const intoFd = u.fds.get(into)
  if (fromFd < 0 || intoFd < 0) return Math.min(fromFd, intoFd)
  let there: RealMove['there'] = 'nothing'
  if (targetInUpper) there = target.isDir ? 'folder' : 'file'
  // A file that leaves nothing behind takes the place of whatever there is in one step.
  else if (node.isDir || whiteoutOld) there = lookAt(work, intoFd, newName)
  result = publishMove(u, work, node, {
    from,
    fromFd,
    name,
    into,
    intoFd,
    newName,
    whiteoutOld,
    there,
  })
  if (result < 0) {
    if (target !== null) letGo(u, target)
    return result
  }
  // Point of no return: the layers show the new state.
  if (target !== null) {
    if (target.isDir) folderGone(u, target, newParent, newName)
    else nameGone(u, target, newParent, newName, targetInUpper, last > 0)
  }
  relocate(u, node, parent, name, newParent, newName)
  return 0
}

interface RealMove {
  from: RealDir
  fromFd: number
  name: ByteString
  into: RealDir
  intoFd: number
  newName: ByteString
  /** A lower layer would show under the old name what is moved away. */
  whiteoutOld: boolean
  /** What the upper layer has in the new place, where that matters; `own`: a whiteout of the form that is written. */
  there: 'nothing' | 'file' | 'folder' | 'own whiteout' | 'other whiteout'
}

/** What the upper layer has at (fd, name). */
function lookAt(work: Workdir, fd: number, name: ByteString): RealMove['there'] {
  if (statxat(fd, name, st) < 0) return 'nothing'
  if (!isWhiteout(fd, name, st)) return st.isDir ? 'folder' : 'file'
  const form = st.isWhiteout ? 'char' : 'xattr'
  return form === work.form ? 'own whiteout' : 'other whiteout'
}

function publishMove(u: Union, work: Workdir, node: Node, m: RealMove): Result {
  const result = moveOnce(u, work, node, m)
  if (result >= 0) clearMark(work, m)
  return result
}

/** The one step that publishes a move, with whatever form of whiteout. */
function moveOnce(u: Union, work: Workdir, node: Node, m: RealMove): Result {
  const { fromFd, name, intoFd, newName } = m
  const overWhiteout = m.there === 'own whiteout' || m.there === 'other whiteout'
  // A whiteout makes way for a file; with a folder it changes places, and goes then.
  const swap = overWhiteout && node.isDir
  if (work.form === 'wh' && m.whiteoutOld) return moveWithMark(work, m, swap)
  if (!m.whiteoutOld) {
    const result = renameat2(fromFd, name, intoFd, newName, swap ? RENAME_EXCHANGE : 0)
    if (result >= 0 && swap) work.removeFolder(fromFd, name)
    return result
  }
  if (work.form === 'char' && !overWhiteout) {
    const result = renameat2(fromFd, name, intoFd, newName, RENAME_WHITEOUT)
    // EINVAL: a file system without it.
    if (result !== -E.EINVAL) return result
  }
  return moveBySwap(u, work, m)
}

/** The whiteout goes to the new name first, then it and the object change places. */
function moveBySwap(u: Union, work: Workdir, m: RealMove): Result {
  const { intoFd, newName } = m
  if (work.form === 'xattr') {
    const marked = m.from === m.into ? 0 : u.marks.setXattrWhiteouts(m.fromFd)
    if (marked < 0) return marked
    m.from.xattrWhiteouts = true
    m.into.xattrWhiteouts = true
  }
  let aside: ByteString | Result = ''
  if (m.there === 'nothing') {
    const placed = work.whiteout(intoFd, newName, 'nothing')
    if (placed < 0) return placed
  } else if (m.there !== 'own whiteout') {
    aside = work.setAside(intoFd, newName)
    if (typeof aside === 'number') return aside
  }
  const result = renameat2(m.fromFd, m.name, intoFd, newName, RENAME_EXCHANGE)
  if (result < 0 && m.there === 'nothing') unlinkat(intoFd, newName)
  if (aside !== '') {
    if (result < 0) renameat2(work.fd, aside, intoFd, newName, RENAME_EXCHANGE)
    work.discard(aside)
  }
  return result
}

/** A `.wh.` mark of the new name hides nothing any more. */
function clearMark(work: Workdir, m: RealMove): void {
  if (m.into.dotWhiteouts !== undefined && !m.into.dotWhiteouts.delete(m.newName)) return
  work.clearDotWhiteout(m.intoFd, m.newName)
}

/** A `.wh.` mark of the old name is written first, so that at no time what is below it shows. */
function moveWithMark(work: Workdir, m: RealMove, swap: boolean): Result {
  const fd = openat(m.fromFd, '.wh.' + m.name, O_CREAT | O_WRONLY, 0)
  if (fd < 0) return fd
  close(fd)
  const flags = swap ? RENAME_EXCHANGE : 0
  const result = renameat2(m.fromFd, m.name, m.intoFd, m.newName, flags)
  if (result < 0) {
    work.clearDotWhiteout(m.fromFd, m.name)
    return result
  }
  if (swap) work.removeFolder(m.fromFd, m.name)
  m.from.dotWhiteouts?.add(m.name)
  return result
}

/**
 * Marks what is about to move: a folder must not merge with what happens to lie under its new name, or
 * must say where its lower part is.
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
    // Whatever lies under the new name now, or will with another lower layer (kernel: ovl_rename).
    else if (newParent.dirs.length > 1) result = u.marks.setOpaque(fd, '')
    if (result < 0) return isXattrRefusal(result) ? -E.EXDEV : result
  }
  if (!node.foreign || into.impure) return 0
  const fd = u.fds.get(into)
  return fd < 0 ? fd : markImpure(u, into, fd)
}

/**
 * What `overlay.redirect` has to say of a merged folder that moves (kernel: ovl_get_redirect): its old
 * name within the same folder, else its path as the layers right below the upper one know it, which is
 * that of the union, but for what the upper layer has itself moved before.
 *
 * @returns null where the path is too long to be written
 */
function redirectOf(
  u: Union,
  node: Node,
  sameFolder: boolean,
  name: ByteString,
): ByteString | null {
  if (sameFolder) return name
  let path = ''
  let own = name
  for (let at: Node = node; at.parent !== null; own = at.name) {
    const upper = at.upperDir
    const fd = upper === null ? -1 : u.fds.get(upper)
    const step = (fd < 0 ? null : u.marks.value(fd, '', 'redirect')) ?? own
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
  sameFolder: boolean,
  name: ByteString,
): Result {
  const present = u.marks.value(fd, '', 'redirect')
  if (present !== null && (present.startsWith('/') || sameFolder)) return 0
  const redirect = redirectOf(u, node, sameFolder, name)
  return redirect === null ? -E.EXDEV : u.marks.set(fd, '', 'redirect', redirect)
}

/**
 * Replaces an empty merged folder in the upper layer, which may hold whiteouts, by one that is really
 * empty, so that a rename can replace it (kernel: ovl_clear_empty).
 */
function clearEmpty(u: Union, parent: Node, name: ByteString, node: Node): Result {
  const upper = node.upperDir
  const into = parent.upperDir
  if (upper === null || into === null) return 0
  if (rmdirIsEnough(u, upper)) return 0
  const work = u.work
  if (work === null) return -E.EROFS
  const fresh = work.stageFolderLike(u.fds.get(upper))
  if (typeof fresh === 'number') return fresh
  const marked = u.marks.setOpaque(work.fd, fresh)
  const fd = u.fds.get(into)
  const result =
    marked < 0 ? marked : fd < 0 ? fd : renameOwn(work.fd, fresh, fd, name, RENAME_EXCHANGE)
  work.discard(fresh)
  if (result < 0) return result
  u.fds.drop(upper)
  upper.dotWhiteouts = new Set()
  node.dirs = [upper]
  return 0
}

function rmdirIsEnough(u: Union, upper: RealDir): boolean {
  const fd = u.fds.get(upper)
  return fd >= 0 && isReallyEmpty(fd)
}

function isReallyEmpty(fd: number): boolean {
  let empty = true
  const list = (): Result => listReal(fd, '', () => (empty = false))
  if (list() === -E.EACCES) withRight(fd, '', OWNER_LIST, list)
  return empty
}

/** RENAME_EXCHANGE: both must be able to live in the other's place. */
function exchange(u: Union, a: Side, b: Side): Result {
  if (a.node === b.node) return 0
  if (a.node.isDir && isWithin(b.parent, a.node)) return -E.EINVAL
  if (b.node.isDir && isWithin(a.parent, b.node)) return -E.EINVAL
  for (const side of [a, b]) {
    const result = checkMovable(u, side)
    if (result < 0) return result
  }
  for (const side of [a, b]) {
    const result = bringUp(u, side)
    if (result < 0) return result
  }
  const from = a.parent.upperDir
  const into = b.parent.upperDir
  if (from === null || into === null) return -E.EIO
  let result = prepareMoved(u, a, b.parent)
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
  place(u, a.node, b.parent, b.name)
  place(u, b.node, a.parent, a.name)
  return 0
}

/** The union's side of a move. */
function relocate(
  u: Union,
  node: Node,
  parent: Node,
  name: ByteString,
  newParent: Node,
  newName: ByteString,
): void {
  u.nodes.removeName(node, parent, name)
  place(u, node, newParent, newName)
}

function place(u: Union, node: Node, parent: Node, name: ByteString): void {
  u.nodes.addName(node, parent, name, true)
  const top = node.upperDir
  if (top !== null) {
    top.parent = parent.upperDir
    top.name = name
  }
  // What lower layers have under the new name is not known.
  node.lowerPositive = undefined
}
