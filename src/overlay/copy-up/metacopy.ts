/**
 * Metadata-only copies (`overlay.metacopy`). The kernel makes them; this union reads them, finds
 * their data, and completes them. Mirrors fs/overlayfs/namei.c:ovl_lookup() and
 * copy_up.c:ovl_copy_up_meta_inode_data().
 */

import { fstatx, futimens, openat } from '../../sys/at.js'
import { O_NOATIME, O_PATH, O_RDONLY, O_WRONLY, S_IFMT, S_IFREG } from '../../sys/constants.js'
import { E } from '../../sys/errno.js'
import { close } from '../../sys/io.js'
import { Stat } from '../../sys/stat.js'
import { removexattrat, setxattrat } from '../../sys/xattr.js'
import { invalidateAttrs } from '../inode/invalidate.js'
import { copyData } from '../jobs/copy-data.js'
import { copyInBackground, takesLong } from './data-job.js'
import { lookupInDirectory, Found } from '../layer/lookup-layer.js'
import type { RealDir } from '../layer/layer.js'
import { XattrBit } from '../layer/overlay-xattrs.js'
import { CAPABILITY } from '../owner/xattr-ids.js'
import { birthHash, refersTo } from '../layer/real-identity.js'
import type { Node, RealFile } from '../inode/node.js'
import type { ByteString, Result } from '../ops.js'
import { readRedirect } from '../layer/redirect-value.js'
import { walk } from '../layer/redirect.js'
import { openRegular, orPending } from '../layer/open-regular.js'
import { reopenHandles } from './reopen.js'
import { readLostCapability } from '../inode/killpriv.js'
import { trusts } from '../layer/trust.js'
import { Place } from '../inode/place.js'
import { locate } from '../inode/real-object.js'
import type { CopyUpContext } from './context.js'
import { CHANGED } from '../inode/lower-version.js'

const scratch = new Stat()

/**
 * The redirect of a metadata-only copy: '' if it has none, null if the file is not a metadata-only
 * copy. Everything is read from one descriptor, because a process that may write to the directory
 * can give the name to another file. The redirect of that file would lead to data that is shown
 * with the owner and mode of this file.
 *
 * @returns -EPERM if the redirect is not trusted, -ESTALE if the name belongs to another file
 */
function readCopy(u: CopyUpContext, file: RealFile): ByteString | Result | null {
  const fd = u.fds.get(file.dir)
  const own = fd < 0 ? fd : openat(fd, file.name, O_PATH)
  if (own < 0) return own
  const { layer } = file.dir
  try {
    if (!refersTo(own, file)) return -E.ESTALE
    const bits = layer.xattrs.read(own, '', !layer.isUpper)
    if (bits < 0) return bits
    if ((bits & XattrBit.METACOPY) === 0) return null
    // An invalid redirect is reported first (kernel: ovl_lookup).
    const redirect = readRedirect(u, layer, own, '')
    return typeof redirect === 'number' || trusts(u.trust, own, '') ? redirect : -E.EPERM
  } finally {
    close(own)
  }
}

/**
 * Finds the data of a metadata-only copy: the first full regular file below, by redirect or by
 * name. Sets the data file of the node (kernel: ovl_lookup, metacopy).
 *
 * @param copy the metadata-only copy that has the name
 */
export function findData(
  u: CopyUpContext,
  node: Node,
  parent: Node,
  name: ByteString,
  copy: RealFile,
): Result {
  let redirect = readCopy(u, copy)
  if (typeof redirect === 'number') return redirect
  // The caller has seen the metacopy xattr, so the file has changed since.
  if (redirect === null) return -E.ESTALE
  let at = name
  let path: ByteString[] | null = null
  const applyRedirect = (to: ByteString): void => {
    if (to === '') return
    if (to.startsWith('/')) path = to.split('/').filter(part => part !== '')
    else if (path !== null) path = [...path.slice(0, -1), to]
    else at = to
  }
  applyRedirect(redirect)
  for (const layer of u.lowers) {
    if (layer.index <= copy.dir.layer.index) continue
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
    const file = realFile(dir, leaf, scratch)
    redirect = readCopy(u, file)
    if (typeof redirect === 'number') return redirect
    if (redirect === null) return setMetacopyData(node, file)
    if (stop && !redirect.startsWith('/')) break
    applyRedirect(redirect)
  }
  // The kernel fails with the same errno for a metadata-only copy without data.
  return -E.EIO
}

/**
 * Determines whether a lower file is a metadata-only copy. Lookup skips this check for a file that
 * has all its blocks: hardly any such file is one, and most files are only stat'ed. Must be called
 * before the data of a node is used.
 *
 * @returns 0, or -errno (-EIO: the file is a metadata-only copy without data)
 */
export function resolveMetacopy(u: CopyUpContext, node: Node): Result {
  const parent = node.dataParent
  const real = node.lowerDir
  if (parent === null || real === null) return 0
  const fd = u.fds.get(real)
  if (fd < 0) return fd
  const name = node.lowerName
  const { xattrs } = real.layer
  const bits = xattrs.read(fd, name, true)
  if (bits < 0) return bits
  u.nodeWithoutXattrs = xattrs.hasNone ? node.id : 0
  if ((bits & XattrBit.METACOPY) !== 0) {
    const { real: ino, birth } = node
    const result = findData(u, node, parent, name, { dir: real, name, real: ino, birth })
    if (result < 0) return result
  }
  node.dataParent = null
  return 0
}

export function setMetacopyData(node: Node, file: RealFile): Result {
  node.metacopy = true
  node.data = file
  return 0
}

/** The file (dir, name) that has the attributes `st`. */
export const realFile = (dir: RealDir, name: ByteString, st: Stat): RealFile => ({
  dir,
  name,
  real: st.ino,
  birth: birthHash(st, dir.layer),
})

/**
 * Opens the data of a metadata-only copy. If another file has the name now, the next lookup
 * searches again.
 */
export function openData(u: CopyUpContext, node: Node, data: RealFile, flags: number): Result {
  const fd = u.fds.get(data.dir)
  const opened = fd < 0 ? fd : openRegular(fd, data.name, flags, data)
  if (opened === -E.ESTALE) node.version = CHANGED
  return opened
}

/**
 * Opens the file that has the data: the lower file, or the data file of a metadata-only copy.
 *
 * @throws Pending while another process holds a lease on the file
 */
export function openSource(u: CopyUpContext, node: Node): Result {
  const flags = O_RDONLY | O_NOATIME
  if (node.metacopy)
    return node.data === null ? -E.EIO : orPending(u, openData(u, node, node.data, flags))
  if (node.lowerDir === null) return -E.EIO
  const fd = u.fds.get(node.lowerDir)
  return fd < 0 ? fd : orPending(u, openRegular(fd, node.lowerName, flags, node))
}

function openUpper(u: CopyUpContext, node: Node): Result {
  const place = new Place()
  const located = locate(u, node, place)
  if (located < 0) return located
  const { fd, name } = place
  return openRegular(fd, name, O_WRONLY, node)
}

/**
 * Copies the data into a metadata-only copy in the upper layer. The metacopy xattr stays until all
 * data is copied, so until then the lower file is read. This also holds if the file is about to be
 * truncated (kernel: ovl_setattr): no single step removes both the data and the xattr.
 *
 * @throws Pending while a job copies the data of a large file, or another process holds a lease on
 *   either file
 */
export function completeMetacopy(u: CopyUpContext, node: Node): Result {
  const src = openSource(u, node)
  if (src < 0) return src
  const dst = openUpper(u, node)
  if (dst < 0) {
    close(src)
    return orPending(u, dst)
  }
  const before = new Stat()
  const stated = fstatx(dst, before)
  // The write removes the capability (kernel: ovl_copy_up_meta_inode_data).
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
    if (timed < 0) u.log.debug({ errno: -timed }, 'best effort: cannot restore the times of a file')
    if (result < 0) return result
    u.copied.bytes += before.size
    return dropMetacopyXattr(u, node, dst)
  }
  const size = before.size64
  if (stated >= 0 && takesLong(u, src, size))
    copyInBackground(u, node, src, dst, size, copied => {
      const result = finish(copied)
      // A getattr during the copy returned temporary times.
      invalidateAttrs(u, node)
      return result
    })
  const result = stated < 0 ? stated : finish(copyData(src, dst, size, false))
  close(src)
  close(dst)
  return result
}

/** @param fd the upper file, which has all its data */
function dropMetacopyXattr(u: CopyUpContext, node: Node, fd: number): Result {
  const result = removexattrat(fd, '', u.xattrs.names.metacopy)
  if (result < 0 && result !== -E.ENODATA) return result
  // The redirect xattr has no meaning for a file that has its data.
  void removexattrat(fd, '', u.xattrs.names.redirect)
  node.metacopy = false
  invalidateAttrs(u, node)
  const place = new Place()
  if (locate(u, node, place) >= 0) reopenHandles(u, node, place)
  return 0
}
