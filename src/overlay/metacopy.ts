/**
 * Metadata-only copies (`overlay.metacopy`), which the kernel makes and this union reads: where their
 * data is, and giving it to them. Analogous to fs/overlayfs/namei.c:ovl_lookup() and
 * copy_up.c:ovl_copy_up_meta_inode_data().
 */

import { fstatx, futimens, openat } from '../sys/at.js'
import { O_WRONLY, S_IFMT, S_IFREG } from '../sys/constants.js'
import { E } from '../sys/errno.js'
import { close } from '../sys/io.js'
import { Stat } from '../sys/stat.js'
import { getxattrValue, removexattrat, setxattrat } from '../sys/xattr.js'
import { copyData } from './copydata.js'
import { copyInBackground, takesLong } from './copyjob.js'
import { examine, Found, isRedirect } from './examine.js'
import type { RealDir } from './layer.js'
import { Mark } from './marks.js'
import { CAPABILITY } from './id-values.js'
import type { Node } from './node.js'
import type { ByteString, Result } from './ops.js'
import { walk } from './redirects.js'
import { fdPathOpen, moveHandles } from './reopen.js'
import { openRead } from './tree.js'
import { locate, Place, type Union } from './union.js'

const scratch = new Stat()

/**
 * The data of a metadata-only copy: the first full regular file below, by redirect or by name.
 * Sets the node's lower place (kernel: ovl_lookup, metacopy).
 */
export function findData(
  u: Union,
  node: Node,
  parent: Node,
  name: ByteString,
  real: RealDir,
  realName: ByteString,
): Result {
  let fd = u.fds.get(real)
  if (fd < 0) return fd
  let redirect = u.marks.value(fd, realName, 'redirect', !real.layer.isUpper) ?? ''
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
    redirect = u.marks.value(fd, leaf, 'redirect', true) ?? ''
    if (redirect !== '' && !isRedirect(redirect)) return -E.EINVAL
    if (stop && !redirect.startsWith('/')) break
    turn(redirect)
  }
  // The kernel refuses a metadata copy without data the same way.
  return -E.EIO
}

/**
 * Lookup leaves open whether a lower file that has all its blocks is a metadata-only copy: nearly none is, and most files are
 * looked at and no more. To be called before the data of a node is used.
 *
 * @returns 0, or -errno (-EIO: it is one, and its data is nowhere)
 */
export function settleData(u: Union, node: Node): Result {
  const parent = node.dataParent
  const real = node.lowerDir
  if (parent === null || real === null) return 0
  const fd = u.fds.get(real)
  if (fd < 0) return fd
  const name = node.lowerName
  const bits = u.marks.read(fd, name, true)
  u.bare = u.marks.bare ? node.id : 0
  if ((bits & Mark.METACOPY) !== 0) {
    const result = findData(u, node, parent, name, real, name)
    if (result < 0) return result
  }
  node.dataParent = null
  return 0
}

export function setData(node: Node, dir: RealDir, name: ByteString): Result {
  node.metacopy = true
  node.dataDir = dir
  node.dataName = name
  return 0
}

/** The file that has the data: the lower one, or the one that a metadata copy points to. */
export function openSource(u: Union, node: Node): Result {
  const dir = node.metacopy ? node.dataDir : node.lowerDir
  if (dir === null) return -E.EIO
  const fd = u.fds.get(dir)
  return fd < 0 ? fd : openRead(fd, node.metacopy ? node.dataName : node.lowerName)
}

/**
 * Gives a metadata-only copy in the upper layer its data. Until it has all of it the mark stays, and
 * with it the lower file is what is read.
 *
 * @throws Pending while the data of a large file is being copied
 */
export function completeMetacopy(u: Union, node: Node, withData: boolean): Result {
  const place = new Place()
  const located = locate(u, node, place)
  if (located < 0) return located
  const dst =
    place.name === '' ? fdPathOpen(place.fd, O_WRONLY) : openat(place.fd, place.name, O_WRONLY)
  if (dst < 0) return dst
  if (!withData) {
    const result = becomeWhole(u, node, dst)
    close(dst)
    return result
  }
  const src = openSource(u, node)
  if (src < 0) {
    close(dst)
    return src
  }
  const before = new Stat()
  const stated = fstatx(dst, before)
  // A write takes it away (kernel: ovl_copy_up_meta_inode_data).
  const capability = getxattrValue(dst, '', CAPABILITY)
  const finish = (copied: Result): Result => {
    let result = copied
    if (typeof capability !== 'number') {
      const restored = setxattrat(dst, '', CAPABILITY, capability, 0)
      if (result >= 0) result = restored
    }
    futimens(dst, before.atimeSec, before.atimeNsec, before.mtimeSec, before.mtimeNsec)
    return result < 0 ? result : becomeWhole(u, node, dst)
  }
  const { size } = before
  if (stated >= 0 && takesLong(u, size))
    copyInBackground(u, node, src, dst, size, copied => {
      const result = finish(copied)
      // Who has asked meanwhile was told of times that were not to stay.
      if (node.lookups > 0) u.notifier.attrChanged(node.id)
      return result
    })
  const result = stated < 0 ? stated : finish(copyData(src, dst, size, false))
  close(src)
  close(dst)
  return result
}

/** @param fd the upper file, which has all its data, or is about to lose it */
function becomeWhole(u: Union, node: Node, fd: number): Result {
  const result = removexattrat(fd, '', u.marks.names.metacopy)
  if (result < 0 && result !== -E.ENODATA) return result
  removexattrat(fd, '', u.marks.names.redirect)
  node.metacopy = false
  const place = new Place()
  if (locate(u, node, place) >= 0) moveHandles(u, node, place)
  return 0
}
