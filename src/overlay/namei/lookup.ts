/**
 * Looks one name up in all layers: determines the real objects that make up the union's object, and
 * its node. Mirrors fs/overlayfs/namei.c:ovl_lookup().
 */

import { fstatx, statxat } from '../../sys/at.js'
import {
  S_IFDIR,
  S_IFMT,
  S_IFREG,
  STATX_ATTR_APPEND,
  STATX_ATTR_IMMUTABLE,
} from '../../sys/constants.js'
import { E } from '../../sys/errno.js'
import { Stat, type Ino } from '../../sys/stat.js'
import { setxattrat } from '../../sys/xattr.js'
import { invalidateAttrs } from '../inode/invalidate.js'
import {
  DirectoryXattrs,
  Found,
  lookupInDirectory,
  readDirectoryXattrs,
} from '../layer/lookup-layer.js'
import { withDescriptor } from '../inode/handle-list.js'
import { birthHash, identify, isSame, lowerKey, upperKey } from '../layer/real-identity.js'
import { RealDir, type Layer } from '../layer/layer.js'
import { XattrBit } from '../layer/overlay-xattrs.js'
import { topmostLowerWith } from './readdir-merge.js'
import { findData, realFile, setMetacopyData, resolveMetacopy } from '../copy-up/metacopy.js'
import { credibleAdjust } from '../copy-up/nlink.js'
import { Protect, type Node } from '../inode/node.js'
import type { ByteString, Result } from '../ops.js'
import { encodeOrigin, encodeForIndex, indexName, originIno } from '../layer/origin.js'
import { applyOverride } from '../layer/stat-override.js'
import { setImpure } from '../copy-up/publish.js'
import { followRedirect } from '../layer/redirect.js'
import { trusts } from '../layer/trust.js'
import { shownIno } from '../layer/context.js'
import { statNode } from '../inode/real-object.js'
import type { Union } from './context.js'
import { isOtherVersion, supersede, dropName, rememberVersion } from '../inode/lower-version.js'

const scratch = new Stat()
const descriptor = new Stat()
const xattrs = new DirectoryXattrs()

/**
 * The child of a directory by name: a known node, or a new one after a lookup. Its attributes are
 * in `u.st`.
 *
 * @returns the node, or -errno; -ENOENT if the union has no such name
 */
export function findChild(u: Union, parent: Node, name: ByteString): Node | Result {
  const known = parent.children?.get(name)
  if (known !== undefined) {
    const result = statNode(u, known, u.st)
    const same = result >= 0 && (u.st.mode & S_IFMT) === known.type && !known.hasStale
    if (same && isSame(known, u.st)) return known
    if (result < 0 && result !== -E.ENOENT && result !== -E.ENOTDIR && result !== -E.ESTALE)
      return result
    // A layer was changed outside of the union: the name is looked up as if for the first time.
    if (same) supersede(u, known)
    else dropName(u, known, parent, name)
  }
  return lookupInLayers(u, parent, name)
}

/**
 * As `findChild`, for an operation that removes the name. In a directory with the sticky bit, the
 * kernel has checked the owner that the union reported. If another object has the name now, the
 * kernel must look the name up again.
 *
 * @returns also -ESTALE
 */
export function findForRemoval(u: Union, parent: Node, name: ByteString): Node | Result {
  const node = findChild(u, parent, name)
  if (typeof node === 'number') return node
  if (parent.staleNames?.has(name) !== true) return checkStillNamed(u, parent, node)
  if (node.lookups === 0) u.nodes.release(node)
  return -E.ESTALE
}

/**
 * Whether a directory of the upper layer, which is open, still has its name. The attributes stay in
 * `u.st`.
 */
function checkStillNamed(u: Union, parent: Node, node: Node): Node | Result {
  const { upperDir } = node
  if (upperDir === null || parent.upperDir === null) return node
  const fd = u.fds.get(parent.upperDir)
  const stated = fd < 0 ? fd : statxat(fd, upperDir.name, scratch)
  if (stated < 0) return stated === -E.ENOENT ? -E.ESTALE : stated
  if (upperDir.layer.keepsBirthTimes) return isSame(upperDir, scratch) ? node : -E.ESTALE
  // If the upper layer lies in another union, a copied-up directory may get another number; its
  // descriptor then reports the new number too.
  const own = u.fds.get(upperDir)
  const opened = own < 0 ? own : fstatx(own, descriptor)
  if (opened < 0) return opened
  return descriptor.ino === scratch.ino && descriptor.dev === scratch.dev ? node : -E.ESTALE
}

/**
 * As `findChild`, for a request that reports the node and its attributes to the kernel. If the real
 * file is no longer the reported one, the name gets a new node (lower-version.ts).
 */
export function findCurrent(u: Union, parent: Node, name: ByteString): Node | Result {
  let node = findChild(u, parent, name)
  if (typeof node === 'number') return node
  if (isOtherVersion(u, node, u.st) && node.job === null) {
    supersede(u, node)
    node = findChild(u, parent, name)
    if (typeof node === 'number') return node
  }
  rememberVersion(u, node, u.st)
  parent.staleNames?.delete(name)
  return node
}

function lookupInLayers(u: Union, parent: Node, name: ByteString): Node | Result {
  const dirs: RealDir[] = []
  let at = name
  let ino: Ino = 0
  let topBits = 0
  const from = topmostLowerWith(u, parent, name)
  for (let i = 0; i < parent.dirs.length; i++) {
    const real = parent.dirs[i] as RealDir
    // The found object may have another name in the layers below (redirect).
    if (dirs.length === 0 && real.layer.index < from && !real.layer.isUpper) continue
    const st = dirs.length === 0 ? u.st : scratch
    const last = i === parent.dirs.length - 1
    // For an upper directory, `dotWhiteouts` is filled in early, which saves creations a system
    // call.
    const found = lookupInDirectory(u, real, at, st, last && !real.layer.isUpper)
    if (found < 0) return found
    if (found === Found.NOTHING) continue
    if (found === Found.WHITEOUT) break
    if (found === Found.FILE) {
      if (dirs.length === 0) return fileNode(u, parent, name, real, at)
      break
    }
    const child = new RealDir(real.layer, real, at)
    identify(child, st, real.layer)
    const result = readDirectoryXattrs(u, child, real, at, last, xattrs)
    if (result < 0) return result
    dirs.push(child)
    if (dirs.length === 1) topBits = xattrs.bits
    // A merged directory that was copied up shows the inode number of the topmost lower directory.
    if (dirs.length === 1 || (dirs.length === 2 && (dirs[0] as RealDir).layer.isUpper))
      ino = shownIno(u, real.layer, st.ino)
    if (xattrs.redirect !== '') {
      if (xattrs.redirect.startsWith('/')) {
        if (!xattrs.opaque) {
          const target = followRedirect(u, xattrs.redirect, real.layer.index, dirs)
          if (target !== null && real.layer.isUpper) ino = target
        }
        break
      }
      at = xattrs.redirect
    }
    if (xattrs.opaque) break
  }
  if (dirs.length === 0) return -E.ENOENT
  const top = dirs[0] as RealDir
  if (top.layer.isUpper && dirs.length > 1 && (topBits & XattrBit.ORIGIN) === 0)
    fixOrigin(u, parent, top, dirs[1] as RealDir)
  const node = u.nodes.create(S_IFDIR, ino, dirs)
  node.upper = top.layer.isUpper
  if (!node.upper || dirs.length > 1) node.lowerPositive = true
  if (!node.upper) node.protect = lowerProtect(u.st, top.layer)
  else if (topBits & XattrBit.PROTATTR) {
    const protect = readProtect(u, top)
    if (protect < 0) return protect
    node.protect = protect
  }
  u.nodes.addName(node, parent, name, node.upper)
  return node
}

/**
 * Sets the origin of a merged directory whose upper part was not copied up by a union, best effort.
 * Its inode number and its position in listings then stay the same after the layers are mounted
 * elsewhere (kernel: ovl_fix_origin). This changes the ctime of the directory and of its parent, so
 * `u.st` is filled with the new attributes.
 */
function fixOrigin(u: Union, parent: Node, top: RealDir, lower: RealDir): void {
  const into = parent.upperDir
  if (u.workdir === null || into === null) return
  const lowerFd = u.fds.get(lower)
  const origin = lowerFd < 0 ? null : encodeOrigin(lower.layer, lowerFd, '')
  const fd = u.fds.get(top)
  const parentFd = u.fds.get(into)
  if (!Buffer.isBuffer(origin) || fd < 0 || parentFd < 0) return
  if (!into.impure) invalidateAttrs(u, parent)
  let result = setImpure(u, into, parentFd)
  if (result >= 0) result = setxattrat(fd, '', u.xattrs.names.origin, origin, 0)
  if (result >= 0) result = fstatx(fd, scratch)
  if (result >= 0 && u.appliesOverrides) result = applyOverride(top.layer, fd, '', scratch)
  if (result >= 0) u.st.copyFrom(scratch)
  else u.log.debug({ errno: -result }, 'best effort: cannot set the origin of a merged directory')
}

/** The value of `overlay.protattr`, or -errno. */
function readProtect(u: Union, top: RealDir): Result {
  const fd = u.fds.get(top)
  if (fd < 0) return fd
  const value = u.xattrs.value(fd, '', 'protattr') ?? ''
  return typeof value === 'number' ? value : parseProtect(value)
}

function parseProtect(value: string): number {
  return (value.includes('i') ? Protect.IMMUTABLE : 0) | (value.includes('a') ? Protect.APPEND : 0)
}

function lowerProtect(st: Stat, { hasFlags }: Layer): number {
  if (!hasFlags) return 0
  const bits = Number(st.attributes)
  return (
    ((bits & STATX_ATTR_IMMUTABLE) !== 0 ? Protect.IMMUTABLE : 0) |
    ((bits & STATX_ATTR_APPEND) !== 0 ? Protect.APPEND : 0)
  )
}

/**
 * The node of a non-directory whose attributes are in `u.st`; on return `u.st` has the attributes
 * that the union shows.
 */
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
  const several = st.nlink > 1 && layer.identifiesLinks
  const key = several ? lowerKey(st, layer) : 0
  if (several) {
    const known = u.nodes.byLower(layer.index, key)
    if (known !== undefined && known.lowerBirth === birthHash(st, layer)) {
      u.nodes.addName(known, parent, name, false)
      const result = statNode(u, known, st)
      return result < 0 ? result : known
    }
    const indexed = indexedNode(u, parent, name, real, realName)
    if (indexed !== null) return indexed
  }
  const node = u.nodes.create(st.mode, shownIno(u, layer, ino))
  identify(node, st, layer)
  node.lowerDir = real
  node.lowerName = realName
  node.lowerPositive = true
  node.protect = lowerProtect(st, layer)
  if ((st.mode & S_IFMT) === S_IFREG && st.size > 0) {
    node.dataParent = parent
    // The attributes of a metadata-only copy include the blocks of its data. A copy that is not
    // trusted is not shown.
    const result = st.blocks * 512 < st.size || u.trust !== 'all' ? resolveMetacopy(u, node) : 0
    if (result < 0) return releaseUnnamed(u, node, result)
  }
  u.nodes.addName(node, parent, name, false)
  if (several) u.nodes.registerLower(node, layer.index, key, node.birth)
  return node
}

/**
 * A name in a lower layer whose inode was copied up under another name: `workdir/index` leads to
 * the upper inode (kernel: ovl_lookup_index).
 *
 * @returns null if the index has no such entry
 */
function indexedNode(
  u: Union,
  parent: Node,
  name: ByteString,
  real: RealDir,
  realName: ByteString,
): Node | Result | null {
  if (u.workdir === null || u.upper === null || u.workdir.indexFd < 0) return null
  const fd = u.fds.get(real)
  if (fd < 0) return fd
  const origin = encodeForIndex(real.layer, fd, realName)
  if (!Buffer.isBuffer(origin)) return origin
  const key = indexName(origin)
  const lower = lowerKey(u.st, real.layer)
  const lowerFile = realFile(real, realName, u.st)
  const lowerLinks = u.st.nlink
  const shown = shownIno(u, real.layer, u.st.ino)
  const stated = statxat(u.workdir.indexFd, key, scratch)
  if (stated < 0) return stated === -E.ENOENT ? null : stated
  if (scratch.isWhiteout) return null
  if (u.override) {
    const amended = applyOverride(u.upper, u.workdir.indexFd, key, scratch)
    if (amended < 0) return amended
  }
  const upper = upperKey(scratch, u.upper)
  let node = u.nodes.byUpper(upper)
  if (node === undefined) {
    const { indexFd } = u.workdir
    const nlinkValue = u.xattrs.value(indexFd, key, 'nlink')
    if (typeof nlinkValue === 'number') return nlinkValue
    const protect = u.xattrs.value(indexFd, key, 'protattr') ?? ''
    if (typeof protect === 'number') return protect
    const bits = u.xattrs.read(indexFd, key, false)
    if (bits < 0) return bits
    node = u.nodes.create(scratch.mode, shown)
    identify(node, scratch, u.upper)
    node.upper = true
    node.hasOrigin = true
    node.nlinkAdjust = credibleAdjust(nlinkValue, scratch.nlink, lowerLinks)
    node.protect = parseProtect(protect)
    if ((bits & XattrBit.METACOPY) !== 0 && node.isReg) {
      if (!trusts(u.trust, u.workdir.indexFd, key)) return releaseUnnamed(u, node, -E.EPERM)
      // The data is in the layers below, under this name.
      const below = real.layer.xattrs.read(fd, realName, true)
      const result =
        below < 0
          ? below
          : (below & XattrBit.METACOPY) === 0
            ? setMetacopyData(node, lowerFile)
            : findData(u, node, parent, name, lowerFile)
      if (result < 0) return releaseUnnamed(u, node, result)
    }
    u.nodes.registerUpper(node, upper)
  }
  node.indexKey = key
  node.lowerDir = real
  node.lowerName = realName
  u.nodes.registerLower(node, real.layer.index, lower, lowerFile.birth)
  u.nodes.addName(node, parent, name, false)
  u.st.copyFrom(scratch)
  return node
}

/**
 * Whether a descriptor of the node (an open file, or the orphan fd of a removed one) refers to this
 * inode.
 */
function holdsOpen(node: Node, st: Stat): boolean {
  const { ino, devMajor, devMinor } = st
  const isOnIt = (fd: number): boolean =>
    fstatx(fd, scratch) >= 0 &&
    scratch.ino === ino &&
    scratch.devMajor === devMajor &&
    scratch.devMinor === devMinor
  if (node.orphanFd >= 0 && isOnIt(node.orphanFd)) return true
  // All descriptors of a node refer to the same inode.
  const handle = withDescriptor(node.handles)
  return handle !== undefined && isOnIt(handle.fd)
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
  const upper = upperKey(st, real.layer)
  const known = u.nodes.byUpper(upper)
  // An open file may have only this name left. The inode number alone does not identify it, because
  // the file system may have reused the number.
  if (known !== undefined && ((several && isSame(known, st)) || holdsOpen(known, st))) {
    u.nodes.addName(known, parent, name, true)
    const link = known.links?.get(parent, name)
    if (link !== undefined) known.links?.setInUpper(link)
    return known
  }
  const fd = u.fds.get(real)
  if (fd < 0) return fd
  const bits = u.xattrs.read(fd, realName, false)
  if (bits < 0) return bits
  let shown: Ino = ino
  let origin: Buffer | null = null
  let found: ReturnType<typeof originIno> = null
  if ((bits & XattrBit.ORIGIN) !== 0) {
    const value = u.xattrs.value(fd, realName, 'origin') ?? ''
    if (typeof value === 'number') return value
    origin = Buffer.from(value, 'latin1')
    found = originIno(origin, u.lowers)
    if (typeof found === 'number') return found
    if (found !== null) shown = shownIno(u, found.layer, found.ino)
  }
  const protect = (bits & XattrBit.PROTATTR) === 0 ? '' : u.xattrs.value(fd, realName, 'protattr')
  if (typeof protect === 'number') return protect
  const nlinkValue =
    several && (bits & XattrBit.NLINK) !== 0 ? u.xattrs.value(fd, realName, 'nlink') : null
  if (typeof nlinkValue === 'number') return nlinkValue
  const key = nlinkValue === null || origin === null ? null : indexName(origin)
  const indexed = key === null ? 0 : isIndexedAs(u, key, st)
  if (indexed < 0) return indexed
  const node = u.nodes.create(st.mode, shown)
  identify(node, st, real.layer)
  node.upper = true
  node.hasOrigin = found !== null
  node.protect = parseProtect(protect ?? '')
  if ((bits & XattrBit.METACOPY) !== 0 && node.isReg) {
    const result = findData(u, node, parent, name, realFile(real, realName, st))
    if (result < 0) return releaseUnnamed(u, node, result)
  }
  u.nodes.addName(node, parent, name, true)
  if (several) {
    // The nlink xattr is valid only on a copy of a lower file with several links.
    const counts = found === null ? indexed > 0 : found.nlink > 1
    if (counts) node.nlinkAdjust = credibleAdjust(nlinkValue, st.nlink, found?.nlink ?? null)
    if (indexed > 0) {
      node.indexKey = key
      if (found !== null) u.nodes.registerLower(node, found.layer.index, found.key, found.birth)
    }
    u.nodes.registerUpper(node, upper)
  }
  return node
}

/** Whether the index entry `key` is this upper inode: 1 or 0, or -errno. */
function isIndexedAs(u: Union, key: ByteString, st: Stat): Result {
  if (u.workdir === null || u.workdir.indexFd < 0) return 0
  const result = statxat(u.workdir.indexFd, key, scratch)
  if (result < 0) return result === -E.ENOENT ? 0 : result
  return scratch.ino === st.ino && scratch.dev === st.dev ? 1 : 0
}

/** Releases a node that was just created and has no name yet. */
function releaseUnnamed(u: Union, node: Node, result: Result): Result {
  u.nodes.release(node)
  return result
}

/**
 * Whether a lower layer would show this name without the upper layer. If so, its removal needs a
 * whiteout (kernel: ovl_lower_positive).
 */
export function lowerPositive(u: Union, parent: Node, name: ByteString): boolean {
  for (const [i, real] of parent.dirs.entries()) {
    if (real.layer.isUpper) continue
    const found = lookupInDirectory(u, real, name, scratch, i === parent.dirs.length - 1)
    if (found === Found.NOTHING) continue
    return found !== Found.WHITEOUT
  }
  return false
}
