/**
 * One name across the layers: which real objects make up the union's object, and its node.
 * Analogous to fs/overlayfs/namei.c:ovl_lookup().
 */

import { statxat } from '../sys/at.js'
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
import { markImpure } from './copyup.js'
import { RealDir, type Layer } from './layer.js'
import { Mark } from './marks.js'
import { Protect, type Node } from './node.js'
import type { ByteString, Result } from './ops.js'
import { encodeOrigin, indexName, originIno } from './origin.js'
import { shownIno, statNode, type Union } from './union.js'
import { hasDotOpaque, hasDotWhiteout, isDotWhiteoutName, isWhiteout } from './whiteout.js'
import { parseNlink } from './work.js'

/** What one real folder has under a name. */
const Found = {
  /** Nothing: lower layers decide. */
  NOTHING: 0,
  /** A whiteout: the name ends here. */
  WHITEOUT: 1,
  /** Anything but a folder. */
  FILE: 2,
  FOLDER: 3,
} as const

/** What `examine` learns of a folder beside its being there. */
interface FolderMarks {
  /** Lower layers do not shine through. */
  opaque: boolean
  /** Where to go on in lower layers instead of the same name; '' for none. */
  redirect: ByteString
}

const folder: FolderMarks = { opaque: false, redirect: '' }
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
  for (let i = 0; i < parent.dirs.length; i++) {
    const real = parent.dirs[i] as RealDir
    const st = dirs.length === 0 ? u.st : scratch
    const found = examine(u, real, at, st)
    if (found < 0) return found
    if (found === Found.NOTHING) continue
    if (found === Found.WHITEOUT) break
    if (found === Found.FILE) {
      if (dirs.length === 0) return fileNode(u, parent, name, real, at)
      break
    }
    const child = new RealDir(real.layer, real, at)
    const last = i === parent.dirs.length - 1
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

/** What `readFolderMarks` saw on the topmost folder, kept for `readProtect`. */
const topMarks = { bits: 0 }

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

/** What the real folder has under the name, attributes in `st`; or -errno. */
function examine(u: Union, real: RealDir, name: ByteString, st: Stat): Result {
  const fd = u.fds.get(real)
  if (fd < 0) return fd === -E.ENOENT ? Found.NOTHING : fd
  const result = statxat(fd, name, st)
  if (result < 0) {
    if (result !== -E.ENOENT && result !== -E.ENOTDIR) return result
    return hasDotWhiteout(u, real, fd, name) ? Found.WHITEOUT : Found.NOTHING
  }
  if (isWhiteout(fd, name, st)) return Found.WHITEOUT
  return (st.mode & S_IFMT) === S_IFDIR ? Found.FOLDER : Found.FILE
}

/**
 * Reads the marks of a folder that was just found, into `folder` and the folder itself.
 *
 * @param real its parent, in which it is called `name`
 * @param last there is no layer below that has the parent
 */
function readFolderMarks(
  u: Union,
  child: RealDir,
  real: RealDir,
  name: ByteString,
  last: boolean,
): Result {
  folder.opaque = false
  folder.redirect = ''
  const fd = u.fds.get(real)
  if (fd < 0) return fd
  const lower = !real.layer.isUpper
  const bits = u.marks.read(fd, name, lower)
  if (!lower) topMarks.bits = bits
  child.impure = (bits & Mark.IMPURE) !== 0
  if ((bits & Mark.OPAQUE) !== 0) {
    const value = u.marks.opaque(fd, name, lower)
    if (value === 'y') folder.opaque = true
    // A move that was cut short may have left one that hides nothing, in an opaque folder too.
    child.xattrWhiteouts = value === 'x' || (!lower && u.work?.form === 'xattr')
  }
  if ((bits & Mark.REDIRECT) !== 0) {
    folder.redirect = u.marks.value(fd, name, 'redirect') ?? ''
    if (!isRedirect(folder.redirect)) return -E.EINVAL
  }
  if (!folder.opaque && (!last || folder.redirect !== ''))
    folder.opaque = hasDotOpaque(fd, name) || hasDotWhiteout(u, real, fd, name)
  return 0
}

/**
 * Whether it is a name or an absolute path (kernel: ovl_get_redirect_xattr). Nothing else may get where
 * names of layers are expected.
 */
function isRedirect(value: ByteString): boolean {
  const [first, ...rest] = value.split('/')
  const names = first === '' ? rest : [first, ...rest]
  if (first !== '' && rest.length > 0) return false
  return names.every(name => name !== '' && name !== '.' && name !== '..')
}

/**
 * Adds to `dirs` the folders that an absolute redirect leads to in the layers below `above`.
 *
 * @returns the inode number of the first of them as it is shown, or null where none was found
 */
function followRedirect(
  u: Union,
  redirect: ByteString,
  above: number,
  dirs: RealDir[],
): Ino | null {
  let path = redirect.split('/').filter(part => part !== '')
  let ino: Ino | null = null
  for (const layer of u.lowers) {
    if (layer.index <= above) continue
    const walked = walk(u, layer, path)
    if (walked.dir !== null) {
      if (ino === null) ino = shownIno(u, layer, scratch.ino)
      dirs.push(walked.dir)
    }
    if (walked.stop) break
    path = walked.below
  }
  return ino
}

/**
 * Walks a path of folders down from a layer's root (kernel: ovl_lookup_layer).
 *
 * @returns the folder, or null; whether it ends here; and the path by which the layers below know it,
 * which redirects on the way may have changed
 */
function walk(
  u: Union,
  layer: Layer,
  path: ByteString[],
): { dir: RealDir | null; stop: boolean; below: ByteString[] } {
  let at = layer.root
  let stop = false
  let below = path
  for (const [i, part] of path.entries()) {
    const found = examine(u, at, part, scratch)
    if (found === Found.NOTHING) return { dir: null, stop, below }
    const next = new RealDir(layer, at, part)
    if (found !== Found.FOLDER || readFolderMarks(u, next, at, part, false) < 0)
      return { dir: null, stop: true, below }
    const { redirect } = folder
    if (folder.opaque) stop = true
    else if (redirect !== '') {
      const rest = path.slice(i + 1)
      const absolute = redirect.startsWith('/')
      // It leads to another place below, past an opaque folder on the way (kernel: ovl_check_redirect).
      if (absolute) stop = false
      const above = absolute ? [] : below.slice(0, below.length - rest.length - 1)
      below = [...above, ...redirect.split('/').filter(step => step !== ''), ...rest]
    }
    at = next
  }
  return { dir: at, stop, below }
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
  // Blocks do not tell a metadata copy: its xattrs may have one, as many as a small file's data.
  if ((st.mode & S_IFMT) === S_IFREG && st.size > 0) {
    const fd = u.fds.get(real)
    if (fd >= 0 && (u.marks.read(fd, realName, true) & Mark.METACOPY) !== 0) {
      const result = findData(u, node, parent, name, real, realName)
      if (result < 0) return result
    }
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
      statxat(u.work.indexFd, key, scratch)
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
  if (several) {
    const known = u.nodes.byUpper(ino)
    if (known !== undefined) {
      u.nodes.addName(known, parent, name, true)
      const link = known.links?.find(l => l.parent === parent && l.name === name)
      if (link !== undefined) link.inUpper = true
      return known
    }
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

function setData(node: Node, dir: RealDir, name: ByteString): Result {
  node.metacopy = true
  node.dataDir = dir
  node.dataName = name
  return 0
}

/**
 * The data of a metadata-only copy: the first full regular file below, by redirect or by name.
 * Sets the node's lower place (kernel: ovl_lookup, metacopy).
 */
function findData(
  u: Union,
  node: Node,
  parent: Node,
  name: ByteString,
  real: RealDir,
  realName: ByteString,
): Result {
  let fd = u.fds.get(real)
  if (fd < 0) return fd
  let redirect = u.marks.value(fd, realName, 'redirect') ?? ''
  let at = name
  let path: ByteString[] | null = null
  const turn = (to: ByteString): void => {
    if (to === '') return
    if (to.startsWith('/')) path = to.split('/').filter(part => part !== '')
    else if (path !== null) path = [...path.slice(0, -1), to]
    else at = to
  }
  if (redirect !== '' && !isRedirect(redirect)) return -E.EINVAL
  turn(redirect)
  for (const layer of u.lowers) {
    if (layer.index <= real.layer.index) continue
    let dir: RealDir | null
    let leaf = at
    let stop = false
    if (path !== null) {
      const folders: ByteString[] = path
      leaf = folders[folders.length - 1] ?? ''
      const walked = walk(u, layer, folders.slice(0, -1))
      dir = walked.dir
      stop = walked.stop
      path = [...walked.below, leaf]
    } else {
      dir = parent.dirs.find(d => d.layer === layer) ?? null
    }
    const found = dir === null ? Found.NOTHING : examine(u, dir, leaf, scratch)
    if (dir === null || found === Found.NOTHING) {
      if (stop) break
      continue
    }
    if (found !== Found.FILE || (scratch.mode & S_IFMT) !== S_IFREG) break
    fd = u.fds.get(dir)
    if (fd < 0) return fd
    const bits = u.marks.read(fd, leaf, true)
    if ((bits & Mark.METACOPY) === 0) return setData(node, dir, leaf)
    redirect = u.marks.value(fd, leaf, 'redirect') ?? ''
    if (redirect !== '' && !isRedirect(redirect)) return -E.EINVAL
    if (stop && !redirect.startsWith('/')) break
    turn(redirect)
  }
  // The kernel refuses a metadata copy without data the same way.
  return -E.EIO
}

/**
 * Whether a lower layer would show this name if the upper one did not have it: removing it then takes
 * a whiteout (kernel: ovl_lower_positive).
 */
export function lowerPositive(u: Union, parent: Node, name: ByteString): boolean {
  for (const real of parent.dirs) {
    if (real.layer.isUpper) continue
    const found = examine(u, real, name, scratch)
    if (found === Found.NOTHING) continue
    return found !== Found.WHITEOUT
  }
  return false
}
