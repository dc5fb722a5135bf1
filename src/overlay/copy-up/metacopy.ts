/**
 * Metadata-only copies (`overlay.metacopy`), which the kernel makes and this union reads: where
 * their data is, and giving it to them. Analogous to fs/overlayfs/namei.c:ovl_lookup() and
 * copy_up.c:ovl_copy_up_meta_inode_data().
 */

import { fstatx, futimens, openat } from '../../sys/at.js'
import { O_NOATIME, O_PATH, O_RDONLY, O_WRONLY, S_IFMT, S_IFREG } from '../../sys/constants.js'
import { E } from '../../sys/errno.js'
import { close } from '../../sys/io.js'
import { Stat } from '../../sys/stat.js'
import { removexattrat, setxattrat } from '../../sys/xattr.js'
import { invalidateAttrs } from '../inode/invalidate.js'
import { copyData } from './data.js'
import { copyInBackground, takesLong } from './data-job.js'
import { lookupInDirectory, Found } from '../layer/lookup-layer.js'
import type { RealDir } from '../layer/layer.js'
import { XattrBit } from '../layer/overlay-xattrs.js'
import { CAPABILITY } from '../owner/xattr-ids.js'
import { identify, refersTo, type Identity } from '../layer/real-identity.js'
import type { Node, RealFile } from '../inode/node.js'
import type { ByteString, Result } from '../ops.js'
import { readRedirect } from '../layer/redirect-value.js'
import { walk } from '../layer/redirect.js'
import { openRegular, orPending, reopenRegular } from '../layer/open-regular.js'
import { moveHandles } from './reopen.js'
import { readLostCapability } from '../inode/killpriv.js'
import { trusts } from '../layer/trust.js'
import { locate, Place, type Union } from '../union.js'
import { CHANGED } from '../inode/lower-version.js'

const scratch = new Stat()
const found: Identity = { real: 0, birth: 0 }

/**
 * The redirect of a metadata-only copy, '' for none; null where the file is none. All of it is read
 * from one descriptor: whoever may write to the directory may give the name to another file
 * meanwhile, whose redirect would lead to data that is shown with the owner and the mode of this
 * one.
 *
 * @returns -EPERM where it is not believed, -ESTALE where another file has the name
 */
function readCopy(
  u: Union,
  real: RealDir,
  name: ByteString,
  of: Identity,
): ByteString | Result | null {
  const fd = u.fds.get(real)
  const own = fd < 0 ? fd : openat(fd, name, O_PATH)
  if (own < 0) return own
  const { layer } = real
  try {
    if (!refersTo(own, of)) return -E.ESTALE
    const bits = layer.xattrs.read(own, '', !layer.isUpper)
    if (bits < 0) return bits
    if ((bits & XattrBit.METACOPY) === 0) return null
    // A wrong redirect comes first (kernel: ovl_lookup).
    const redirect = readRedirect(u, layer, own, '')
    return typeof redirect === 'number' || trusts(u.trust, own, '') ? redirect : -E.EPERM
  } finally {
    close(own)
  }
}

/**
 * The data of a metadata-only copy: the first full regular file below, by redirect or by name. Sets
 * the node's lower place (kernel: ovl_lookup, metacopy).
 *
 * @param of the copy, which is (real, realName)
 */
export function findData(
  u: Union,
  node: Node,
  parent: Node,
  name: ByteString,
  real: RealDir,
  realName: ByteString,
  of: Identity = node,
): Result {
  let redirect = readCopy(u, real, realName, of)
  if (typeof redirect === 'number') return redirect
  // The caller has seen the mark.
  if (redirect === null) return -E.ESTALE
  let at = name
  let path: ByteString[] | null = null
  const turn = (to: ByteString): void => {
    if (to === '') return
    if (to.startsWith('/')) path = to.split('/').filter(part => part !== '')
    else if (path !== null) path = [...path.slice(0, -1), to]
    else at = to
  }
  turn(redirect)
  for (const layer of u.lowers) {
    if (layer.index <= real.layer.index) continue
    let dir: RealDir | null
    let leaf = at
    let stop = false
    if (path !== null) {
      const directories: ByteString[] = path
      leaf = directories[directories.length - 1] ?? ''
      const walked = walk(u, layer, directories.slice(0, -1))
      dir = walked.dir
      stop = walked.stop
      path = [...walked.below, leaf]
    } else {
      dir = parent.dirs.find(d => d.layer === layer) ?? null
    }
    const kind = dir === null ? Found.NOTHING : lookupInDirectory(u, dir, leaf, scratch)
    if (dir === null || kind === Found.NOTHING) {
      if (stop) break
      continue
    }
    if (kind !== Found.FILE || (scratch.mode & S_IFMT) !== S_IFREG) break
    identify(found, scratch, layer)
    redirect = readCopy(u, dir, leaf, found)
    if (typeof redirect === 'number') return redirect
    if (redirect === null) return setData(node, dir, leaf, found)
    if (stop && !redirect.startsWith('/')) break
    turn(redirect)
  }
  // The kernel refuses a metadata copy without data the same way.
  return -E.EIO
}

/**
 * Lookup leaves open whether a lower file that has all its blocks is a metadata-only copy: nearly
 * none is, and most files are looked at and no more. To be called before the data of a node is
 * used.
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
  const { xattrs } = real.layer
  const bits = xattrs.read(fd, name, true)
  if (bits < 0) return bits
  u.bare = xattrs.hasNone ? node.id : 0
  if ((bits & XattrBit.METACOPY) !== 0) {
    const result = findData(u, node, parent, name, real, name)
    if (result < 0) return result
  }
  node.dataParent = null
  return 0
}

export function setData(node: Node, dir: RealDir, name: ByteString, of: Identity): Result {
  node.metacopy = true
  node.data = { dir, name, real: of.real, birth: of.birth }
  return 0
}

/**
 * Opens the data of a metadata-only copy. Where another file has its name by now, the next lookup
 * finds it anew.
 */
export function openData(u: Union, node: Node, data: RealFile, flags: number): Result {
  const fd = u.fds.get(data.dir)
  const opened = fd < 0 ? fd : openRegular(fd, data.name, flags, data)
  if (opened === -E.ESTALE) node.version = CHANGED
  return opened
}

/**
 * The file that has the data: the lower one, or the one that a metadata copy points to.
 *
 * @throws Pending while somebody has a lease on it
 */
export function openSource(u: Union, node: Node): Result {
  const flags = O_RDONLY | O_NOATIME
  if (node.metacopy)
    return node.data === null ? -E.EIO : orPending(u, openData(u, node, node.data, flags))
  if (node.lowerDir === null) return -E.EIO
  const fd = u.fds.get(node.lowerDir)
  return fd < 0 ? fd : orPending(u, openRegular(fd, node.lowerName, flags, node))
}

function openUpper(u: Union, node: Node): Result {
  const place = new Place()
  const located = locate(u, node, place)
  if (located < 0) return located
  const { fd, name } = place
  return name === '' ? reopenRegular(fd, O_WRONLY, node) : openRegular(fd, name, O_WRONLY, node)
}

/**
 * Gives a metadata-only copy in the upper layer its data. Until it has all of it the mark stays,
 * and with it the lower file is what is read. That is so where the data is about to be cut, too
 * (kernel: ovl_setattr): there is no step in which an empty copy loses its data and its mark at
 * once.
 *
 * @throws Pending while the data of a large file is being copied, or somebody has a lease on either
 *   file
 */
export function completeMetacopy(u: Union, node: Node): Result {
  const src = openSource(u, node)
  if (src < 0) return src
  const dst = openUpper(u, node)
  if (dst < 0) {
    close(src)
    return orPending(u, dst)
  }
  const before = new Stat()
  const stated = fstatx(dst, before)
  // A write takes it away (kernel: ovl_copy_up_meta_inode_data).
  const capability = readLostCapability(dst)
  if (typeof capability === 'number' && capability !== -E.ENODATA) {
    close(src)
    close(dst)
    return capability
  }
  const finish = (copied: Result): Result => {
    let result = copied
    if (typeof capability !== 'number') {
      const restored = setxattrat(dst, '', CAPABILITY, capability, 0)
      if (result >= 0) result = restored
    }
    const { atimeSec, atimeNsec, mtimeSec, mtimeNsec } = before
    const timed = futimens(dst, atimeSec, atimeNsec, mtimeSec, mtimeNsec)
    if (timed < 0) u.log.debug({ errno: -timed }, 'best effort: the time of a file stays changed')
    if (result < 0) return result
    u.copied.bytes += before.size
    return becomeWhole(u, node, dst)
  }
  const size = before.size64
  if (stated >= 0 && takesLong(u, src, size))
    copyInBackground(u, node, src, dst, size, copied => {
      const result = finish(copied)
      // Who has asked meanwhile was told of times that were not to stay.
      invalidateAttrs(u, node)
      return result
    })
  const result = stated < 0 ? stated : finish(copyData(src, dst, size, false))
  close(src)
  close(dst)
  return result
}

/** @param fd the upper file, which has all its data */
function becomeWhole(u: Union, node: Node, fd: number): Result {
  const result = removexattrat(fd, '', u.xattrs.names.metacopy)
  if (result < 0 && result !== -E.ENODATA) return result
  // It says nothing of a file that has its data.
  void removexattrat(fd, '', u.xattrs.names.redirect)
  node.metacopy = false
  invalidateAttrs(u, node)
  const place = new Place()
  if (locate(u, node, place) >= 0) moveHandles(u, node, place)
  return 0
}
