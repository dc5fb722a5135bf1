/**
 * One name across the layers: which real objects make up the union's object, and its node.
 * Analogous to fs/overlayfs/namei.c:ovl_lookup().
 */

import { fstatx, statxat } from '../sys/at.js'
import {
  S_IFDIR,
  S_IFMT,
  S_IFREG,
  STATX_ATTR_APPEND,
  STATX_ATTR_IMMUTABLE,
} from '../sys/constants.js'
import { E } from '../sys/errno.js'
import { Stat, type Ino } from '../sys/stat.js'
import { setxattrat } from '../sys/xattr.js'
import { examine, folder, Found, readFolderMarks, topMarks } from './examine.js'
import { RealDir } from './layer.js'
import { Mark } from './marks.js'
import { topmostWith } from './merge.js'
import { findData, setData, settleData } from './metacopy.js'
import { Protect, type Node } from './node.js'
import type { ByteString, Result } from './ops.js'
import { encodeOrigin, indexName, originIno } from './origin.js'
import { amend } from './override.js'
import { markImpure } from './publish.js'
import { followRedirect } from './redirects.js'
import { shownIno, statNode, type Union } from './union.js'
import { isDotWhiteoutName } from './whiteout.js'
import { parseNlink } from './work.js'

const scratch = new Stat()

/**
 * The child of a folder by name, known already or looked up, with its attributes in `u.st`.
 *
 * @returns the node, or -errno; -ENOENT where the union has no such name
 */
export function findChild(u: Union, parent: Node, name: ByteString): Node | Result {
  const known = parent.children?.get(name)
  if (known !== undefined) {
    const result = statNode(u, known, u.st)
    if (result >= 0 && (u.st.mode & S_IFMT) === known.type) return known
    if (result < 0 && result !== -E.ENOENT && result !== -E.ENOTDIR) return result
    // A layer was changed beneath us: the name is looked up as if for the first time.
    u.nodes.removeName(known, parent, name)
  }
  if (isDotWhiteoutName(name)) return -E.ENOENT
  return lookupInLayers(u, parent, name)
}

function lookupInLayers(u: Union, parent: Node, name: ByteString): Node | Result {
  const dirs: RealDir[] = []
  let at = name
  let ino: Ino = 0
  const from = topmostWith(u, parent, name)
  for (let i = 0; i < parent.dirs.length; i++) {
    const real = parent.dirs[i] as RealDir
    // What is found may have another name below it.
    if (dirs.length === 0 && real.layer.index < from && !real.layer.isUpper) continue
    const st = dirs.length === 0 ? u.st : scratch
    const last = i === parent.dirs.length - 1
    // Of an upper folder is soon known which `.wh.` names it has, which spares creations a call.
    const found = examine(u, real, at, st, last && !real.layer.isUpper)
    if (found < 0) return found
    if (found === Found.NOTHING) continue
    if (found === Found.WHITEOUT) break
    if (found === Found.FILE) {
      if (dirs.length === 0) return fileNode(u, parent, name, real, at)
      break
    }
    const child = new RealDir(real.layer, real, at)
    const result = readFolderMarks(u, child, real, at, last)
    if (result < 0) return result
    dirs.push(child)
    // A merged folder that was copied up shows the number of the topmost lower one.
    if (dirs.length === 1 || (dirs.length === 2 && (dirs[0] as RealDir).layer.isUpper))
      ino = shownIno(u, real.layer, st.ino)
    if (folder.redirect !== '') {
      if (u.options.redirectDir === 'nofollow') return -E.EPERM
      if (folder.redirect.startsWith('/')) {
        if (!folder.opaque) {
          const target = followRedirect(u, folder.redirect, real.layer.index, dirs)
          if (target !== null && real.layer.isUpper) ino = target
        }
        break
      }
      at = folder.redirect
    }
    if (folder.opaque) break
  }
  if (dirs.length === 0) return -E.ENOENT
  const node = u.nodes.create(S_IFDIR, ino, dirs)
  const top = dirs[0] as RealDir
  node.upper = top.layer.isUpper
  if (!node.upper || dirs.length > 1) node.lowerPositive = true
  if (!node.upper) node.protect = lowerProtect(u.st)
  else if (topMarks.bits & Mark.PROTATTR) node.protect = readProtect(u, top, topMarks)
  if (node.upper && dirs.length > 1 && (topMarks.bits & Mark.ORIGIN) === 0)
    fixOrigin(u, parent, top, dirs[1] as RealDir)
  u.nodes.addName(node, parent, name, node.upper)
  return node
}

/**
 * A merged folder whose upper part was not copied up by any union gets its origin, best effort, so that
 * its number and its place in listings agree wherever the layers are mounted (kernel: ovl_fix_origin).
 */
function fixOrigin(u: Union, parent: Node, top: RealDir, lower: RealDir): void {
  const into = parent.upperDir
  if (u.work === null || into === null) return
  const lowerFd = u.fds.get(lower)
  const origin = lowerFd < 0 ? null : encodeOrigin(lower.layer, lowerFd, '')
  const fd = u.fds.get(top)
  const parentFd = u.fds.get(into)
  if (origin === null || fd < 0 || parentFd < 0) return
  if (markImpure(u, into, parentFd) < 0) return
  setxattrat(fd, '', u.marks.names.origin, origin, 0)
}

function readProtect(u: Union, top: RealDir, marks: { bits: number }): number {
  if ((marks.bits & Mark.PROTATTR) === 0) return 0
  const fd = u.fds.get(top)
  return fd < 0 ? 0 : parseProtect(u.marks.value(fd, '', 'protattr') ?? '')
}

function parseProtect(value: string): number {
  return (value.includes('i') ? Protect.IMMUTABLE : 0) | (value.includes('a') ? Protect.APPEND : 0)
}

function lowerProtect(st: Stat): number {
  const bits = Number(st.attributes)
  return (
    ((bits & STATX_ATTR_IMMUTABLE) !== 0 ? Protect.IMMUTABLE : 0) |
    ((bits & STATX_ATTR_APPEND) !== 0 ? Protect.APPEND : 0)
  )
}

/** The node of a non-folder whose attributes are in `u.st`; on return they are the union's choice. */
function fileNode(
  u: Union,
  parent: Node,
  name: ByteString,
  real: RealDir,
  realName: ByteString,
): Node | Result {
  return real.layer.isUpper
    ? upperFileNode(u, parent, name, real, realName)
    : lowerFileNode(u, parent, name, real, realName)
}

function lowerFileNode(
  u: Union,
  parent: Node,
  name: ByteString,
  real: RealDir,
  realName: ByteString,
): Node | Result {
  const st = u.st
  const layer = real.layer
  const ino = st.ino
  const several = st.nlink > 1
  if (several) {
    const known = u.nodes.byLower(layer.index, ino)
    if (known !== undefined) {
      u.nodes.addName(known, parent, name, false)
      const result = statNode(u, known, st)
      return result < 0 ? result : known
    }
    const indexed = indexedNode(u, parent, name, real, realName)
    if (indexed !== null) return indexed
  }
  const node = u.nodes.create(st.mode, shownIno(u, layer, ino))
  node.lowerDir = real
  node.lowerName = realName
  node.lowerPositive = true
  node.protect = lowerProtect(st)
  if ((st.mode & S_IFMT) === S_IFREG && st.size > 0) {
    node.dataParent = parent
    // A metadata-only copy shows the blocks of its data.
    const result = st.blocks * 512 < st.size ? settleData(u, node) : 0
    if (result < 0) return result
  }
  u.nodes.addName(node, parent, name, false)
  if (several) u.nodes.registerLower(node, layer.index, ino)
  return node
}

/**
 * A lower name whose inode was copied up under another name: `workdir/index` leads to the upper inode
 * (kernel: ovl_lookup_index).
 *
 * @returns null where there is no such entry
 */
function indexedNode(
  u: Union,
  parent: Node,
  name: ByteString,
  real: RealDir,
  realName: ByteString,
): Node | Result | null {
  if (u.work === null || u.work.indexFd < 0) return null
  const fd = u.fds.get(real)
  if (fd < 0) return fd
  const origin = encodeOrigin(real.layer, fd, realName)
  if (origin === null) return null
  const key = indexName(origin)
  const lowerIno = u.st.ino
  const shown = shownIno(u, real.layer, lowerIno)
  if (statxat(u.work.indexFd, key, scratch) < 0 || scratch.isWhiteout) return null
  if (u.override) {
    const amended = amend(u.upper, u.work.indexFd, key, scratch)
    if (amended < 0) return amended
  }
  let node = u.nodes.byUpper(scratch.ino)
  if (node === undefined) {
    node = u.nodes.create(scratch.mode, shown)
    node.upper = true
    node.hasOrigin = true
    node.nlinkAdjust = parseNlink(u.marks.value(u.work.indexFd, key, 'nlink') ?? '')
    node.protect = parseProtect(u.marks.value(u.work.indexFd, key, 'protattr') ?? '')
    if ((u.marks.read(u.work.indexFd, key, false) & Mark.METACOPY) !== 0 && node.isReg) {
      // The data is what the name has below.
      const result =
        (u.marks.read(fd, realName, true) & Mark.METACOPY) === 0
          ? setData(node, real, realName)
          : findData(u, node, parent, name, real, realName)
      if (result < 0) return result
    }
    u.nodes.registerUpper(node, scratch.ino)
  }
  node.indexKey = key
  node.lowerDir = real
  node.lowerName = realName
  u.nodes.registerLower(node, real.layer.index, lowerIno)
  u.nodes.addName(node, parent, name, false)
  u.st.copyFrom(scratch)
  return node
}

/** Whether a descriptor of the node, of an open file or what keeps a removed one, is open on this inode. */
function holdsOpen(node: Node, st: Stat): boolean {
  const { ino, devMajor, devMinor } = st
  const isSame = (fd: number): boolean =>
    fstatx(fd, scratch) >= 0 &&
    scratch.ino === ino &&
    scratch.devMajor === devMajor &&
    scratch.devMinor === devMinor
  return (
    (node.anchor >= 0 && isSame(node.anchor)) ||
    node.handles?.some(handle => handle.fd >= 0 && isSame(handle.fd)) === true
  )
}

function upperFileNode(
  u: Union,
  parent: Node,
  name: ByteString,
  real: RealDir,
  realName: ByteString,
): Node | Result {
  const st = u.st
  const several = st.nlink > 1
  const ino = st.ino
  const known = u.nodes.byUpper(ino)
  // The last name of an open file whose other names are gone; a number alone may have been used again.
  if (known !== undefined && (several || holdsOpen(known, st))) {
    u.nodes.addName(known, parent, name, true)
    const link = known.links?.find(l => l.parent === parent && l.name === name)
    if (link !== undefined) link.inUpper = true
    return known
  }
  const fd = u.fds.get(real)
  if (fd < 0) return fd
  const bits = u.marks.read(fd, realName, false)
  let shown: Ino = ino
  let origin: Buffer | null = null
  let found: ReturnType<typeof originIno> = null
  if ((bits & Mark.ORIGIN) !== 0) {
    origin = Buffer.from(u.marks.value(fd, realName, 'origin') ?? '', 'latin1')
    found = originIno(origin, u.lowers)
    if (found !== null) shown = shownIno(u, found.layer, found.ino)
  }
  const node = u.nodes.create(st.mode, shown)
  node.upper = true
  node.hasOrigin = found !== null
  if ((bits & Mark.PROTATTR) !== 0)
    node.protect = parseProtect(u.marks.value(fd, realName, 'protattr') ?? '')
  if ((bits & Mark.METACOPY) !== 0 && node.isReg) {
    const result = findData(u, node, parent, name, real, realName)
    if (result < 0) return result
  }
  u.nodes.addName(node, parent, name, true)
  if (several) {
    if ((bits & Mark.NLINK) !== 0) {
      node.nlinkAdjust = parseNlink(u.marks.value(fd, realName, 'nlink') ?? '')
      if (origin !== null && u.work !== null && u.work.indexFd >= 0) {
        const key = indexName(origin)
        if (statxat(u.work.indexFd, key, scratch) >= 0 && scratch.ino === ino) {
          node.indexKey = key
          if (found !== null) u.nodes.registerLower(node, found.layer.index, found.ino)
        }
      }
    }
    u.nodes.registerUpper(node, ino)
  }
  return node
}

/**
 * Whether a lower layer would show this name if the upper one did not have it: removing it then takes
 * a whiteout (kernel: ovl_lower_positive).
 */
export function lowerPositive(u: Union, parent: Node, name: ByteString): boolean {
  for (const [i, real] of parent.dirs.entries()) {
    if (real.layer.isUpper) continue
    const found = examine(u, real, name, scratch, i === parent.dirs.length - 1)
    if (found === Found.NOTHING) continue
    return found !== Found.WHITEOUT
  }
  return false
}
