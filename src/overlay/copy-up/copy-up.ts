/**
 * Copy-up: the upper layer gets a copy of a lower object. The copy is built in the workdir and
 * published by one link or rename, parent directories first. A failure before that step leaves the
 * union unchanged. Mirrors fs/overlayfs/copy_up.c.
 */

import {
  fstatx,
  mknodat,
  openat,
  readlinkat,
  renameat2,
  statxat,
  symlinkat,
  unlinkat,
} from '../../sys/at.js'
import {
  O_CREAT,
  O_EXCL,
  O_PATH,
  O_RDWR,
  O_TMPFILE,
  RENAME_NOREPLACE,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
  UTIME_NOW,
} from '../../sys/constants.js'
import { E } from '../../sys/errno.js'
import { close, dup, ficlone, fsync } from '../../sys/io.js'
import { Stat } from '../../sys/stat.js'
import { invalidateAttrs } from '../inode/invalidate.js'
import { copyData, copyDense } from '../jobs/copy-data.js'
import { copyInBackground, takesLong } from './data-job.js'
import { ensureUpperDir } from './directory.js'
import { ensureUpperName, linkNames, tryStoreUpperNlink, storeUpperNlink } from './hard-links.js'
import { identify, isSame, upperKey } from '../layer/real-identity.js'
import { completeMetacopy, openSource, resolveMetacopy } from './metacopy.js'
import { copyMetadata, tmpfileMode } from './metadata.js'
import type { Node, NodeLink, NodeLinks } from '../inode/node.js'
import { Pending, type ByteString, type Result } from '../ops.js'
import { encodeForIndex, indexName } from '../layer/origin.js'
import { applyOverride, specialsAreFiles } from '../layer/stat-override.js'
import { publish, type NameCopy } from './publish.js'
import { readAhead } from './read-ahead.js'
import { reopenHandles } from './reopen.js'
import { isReadOnly } from '../inode/context.js'
import { Place } from '../inode/place.js'
import { locate } from '../inode/real-object.js'
import { shownIno } from '../layer/context.js'
import type { CopyUpContext } from './context.js'
import { Copy } from './copy.js'
import { CHANGED, isOtherVersion } from '../inode/lower-version.js'

/**
 * A file up to this size without holes (its blocks cover its size) is copied without a search for
 * holes.
 */
const SMALL = 64 << 10

const sourceStat = new Stat()
const copyStat = new Stat()
const from = new Place()
const linkTarget = Buffer.allocUnsafeSlow(4096)

/**
 * Copies a node of any type up.
 *
 * @param withData false: the caller truncates the file (O_TRUNC), so no data of a lower file is
 *   copied
 * @throws Pending while a job copies the data of a large file
 */
export function copyUp(u: CopyUpContext, node: Node, withData = true): Result {
  const { slow } = u
  if (slow === null) return copyUpNow(u, node, withData)
  if (!isReadOnly(u) && node.job === null) readAhead(u, node)
  return slow.atomicStep(() => copyUpNow(u, node, withData))
}

function copyUpNow(u: CopyUpContext, node: Node, withData: boolean): Result {
  // A removed directory of a lower layer is not copied up. The kernel fails with the same errno.
  if (node.isDir) return node.unlinked && !node.upper ? -E.ENOTDIR : ensureUpperDir(u, node)
  if (node.upper && !node.metacopy) return 0
  if (isReadOnly(u)) return -E.EROFS
  if (node.job !== null) throw new Pending(node.job.job, false)
  if (node.upper) return completeMetacopy(u, node)
  const resolved = resolveMetacopy(u, node)
  if (resolved < 0) return resolved
  const parent = node.parent
  if (parent !== null) {
    const result = ensureParentInUpper(u, node, parent)
    if (result < 0) return result
  }
  const result = locate(u, node, from)
  if (result < 0) return result
  return node.isReg ? copyUpRegular(u, node, withData) : copyUpSpecial(u, node, from)
}

/**
 * Makes sure that the upper layer has a directory for the copy. If the directory of the first name
 * cannot be copied up, the directory of another hard link is used.
 */
function ensureParentInUpper(u: CopyUpContext, node: Node, parent: Node): Result {
  const result = ensureUpperDir(u, parent)
  if (result >= 0 || node.links === null) return result
  for (const link of node.links) {
    if (ensureUpperDir(u, link.parent) < 0) continue
    preferName(node, node.links, link)
    return 0
  }
  return result
}

/** Makes `link` the first name that the copy gets. */
function preferName(node: Node, links: NodeLinks, link: NodeLink): void {
  links.prefer(link)
  node.parent = link.parent
  node.name = link.name
}

function copyUpRegular(u: CopyUpContext, node: Node, withData: boolean): Result {
  const workdir = u.workdir
  const lower = node.lowerDir
  if (workdir === null) return -E.EROFS
  if (lower === null) return -E.EIO
  const src = openSource(u, node)
  if (src < 0) return src
  const c = new Copy(node, lower.layer, sourceStat, copyStat)
  if (!node.metacopy) c.openSrc = src
  // `finishRegular` needs the attributes as the lower layer shows them. The data of a metadata-only
  // copy may be in another layer; `finishRegular` then reads the attributes itself.
  const layer = u.appliesOverrides && !node.metacopy ? lower.layer : null
  let result = fstatx(src, sourceStat)
  // The lower file was replaced. The kernel may cache pages and a size of the previous file, and
  // would combine its writes with them.
  if (result >= 0 && !node.metacopy && isOtherVersion(u, node, sourceStat)) {
    node.version = CHANGED
    result = -E.ESTALE
  }
  if (result >= 0) result = applyOverride(layer, src, '', sourceStat)
  const size = sourceStat.size64
  c.truncates = !withData && size > 0
  const createdMode = tmpfileMode(u, sourceStat.mode)
  const tmp = result < 0 ? result : openat(workdir.fd, '.', O_TMPFILE | O_RDWR, createdMode)
  if (tmp === -E.EOPNOTSUPP || tmp === -E.EISDIR) return copyUpNamed(u, c, src, withData)
  if (tmp < 0) {
    close(src)
    return tmp
  }
  c.dstFd = tmp
  c.fromFd = tmp
  const sync = !u.syncIsFree
  if (withData && size > 0 && !shareExtents(node, src, tmp)) {
    if (takesLong(u, src, size))
      copyInBackground(u, node, src, tmp, size, copied =>
        copied < 0 ? copied : finishRegular(u, c),
      )
    const dense = sourceStat.size <= SMALL && sourceStat.blocks * 512 >= sourceStat.size
    result = dense ? copyDense(src, tmp, sourceStat.size) : copyData(src, tmp, size, false)
  } else if (withData && size > 0 && sync) result = fsync(tmp)
  if (!node.metacopy) c.createdMode = createdMode
  if (result >= 0) result = finishRegular(u, c)
  close(src)
  close(tmp)
  return result
}

const moveCopy: NameCopy = (fromFd, temp, dirfd, name) =>
  renameat2(fromFd, temp, dirfd, name, RENAME_NOREPLACE)

/**
 * Whether the copy shares the extents of the source (FICLONE). A layer that does not support this
 * is tried only once.
 */
function shareExtents(node: Node, src: number, tmp: number): boolean {
  const layer = (node.metacopy ? node.data?.dir : node.lowerDir)?.layer
  if (layer?.sharesExtents === false) return false
  const result = ficlone(tmp, src)
  if (layer !== undefined && (result === -E.EOPNOTSUPP || result === -E.EXDEV))
    layer.sharesExtents = false
  return result >= 0
}

/**
 * Copies up through a named temporary file if the upper file system does not support O_TMPFILE.
 *
 * @param src the file that has the data, open for reading
 */
function copyUpNamed(u: CopyUpContext, c: Copy, src: number, withData: boolean): Result {
  const { node } = c
  const workdir = u.workdir
  if (workdir === null) return -E.EROFS
  let tmp = -1
  const staged = workdir.stage(
    (fd, temp) => (tmp = openat(fd, temp, O_CREAT | O_EXCL | O_RDWR, 0o600)),
  )
  if (tmp < 0) {
    close(src)
    return tmp
  }
  c.dstFd = tmp
  c.nameCopy = moveCopy
  c.fromFd = workdir.fd
  c.fromName = staged.name
  const finish = (copied: Result): Result => {
    const result = copied < 0 ? copied : finishRegular(u, c)
    if (result < 0 || node.parent === null) workdir.discard(staged.name)
    return result
  }
  const size = withData ? c.sourceStat.size64 : 0
  if (size > 0 && takesLong(u, src, size)) copyInBackground(u, node, src, tmp, size, finish)
  const result = finish(size > 0 ? copyData(src, tmp, size, false) : 0)
  close(src)
  close(tmp)
  return result
}

/**
 * Copies the metadata of a regular file and gives the copy its name. If `createdMode` is known,
 * `sourceStat` already has the lower file's attributes.
 */
function finishRegular(u: CopyUpContext, c: Copy): Result {
  const { node, sourceStat: source } = c
  const lower = node.lowerDir
  if (lower === null) return -E.EIO
  const fd = u.fds.get(lower)
  if (fd < 0) return fd
  // A process that may write to the lower directory can give the name to another file at any time.
  // The open descriptor still refers to the right file.
  c.srcFd = node.metacopy ? fd : c.openSrc
  c.srcName = node.metacopy ? node.lowerName : ''
  let result = 0
  if (c.createdMode < 0) {
    result = statxat(c.srcFd, c.srcName, source)
    if (result >= 0 && !isSame(node, source)) result = -E.ESTALE
    if (result >= 0 && u.appliesOverrides)
      result = applyOverride(c.layer, c.srcFd, c.srcName, source)
  }
  if (result < 0) return result
  // The copy appears as the truncation leaves it.
  if (c.truncates) source.mtimeNsec = UTIME_NOW
  const unlinked = node.parent === null
  result = copyMetadata(u, c)
  if (result >= 0) result = fstatx(c.dstFd, c.copyStat)
  if (result < 0) return result
  if (unlinked) {
    // The file has no name any more, so the copy gets none either (kernel: ovl_copy_up of a
    // disconnected file).
    const orphanFd = dup(c.dstFd)
    if (orphanFd < 0) return orphanFd
    node.orphanFd = orphanFd
    becomeUpper(u, c, 0)
    return 0
  }
  return install(u, c)
}

/** @param at the lower object */
function copyUpSpecial(u: CopyUpContext, node: Node, at: Place): Result {
  const workdir = u.workdir
  const lower = node.lowerDir
  if (workdir === null || lower === null) return -E.EROFS
  const c = new Copy(node, lower.layer, sourceStat, copyStat)
  const source = c.sourceStat
  let result = statxat(at.fd, at.name, source)
  if (result >= 0 && !isSame(node, source)) result = -E.ESTALE
  if (result >= 0 && u.appliesOverrides) result = applyOverride(lower.layer, at.fd, at.name, source)
  if (result < 0) return result
  const type = source.mode & S_IFMT
  const asFile = u.override && u.upper !== null && specialsAreFiles(u.upper)
  const staged = workdir.stage((fd, temp) => {
    if (type !== S_IFLNK)
      return mknodat(
        fd,
        temp,
        (asFile ? S_IFREG : type) | 0o600,
        source.rdevMajor,
        source.rdevMinor,
      )
    const length = readlinkat(at.fd, at.name, linkTarget)
    return length < 0 ? length : symlinkat(linkTarget.latin1Slice(0, length), fd, temp)
  })
  if (staged.result < 0) return staged.result
  c.srcFd = at.fd
  c.srcName = at.name
  c.dstFd = workdir.fd
  c.dstName = staged.name
  c.nameCopy = moveCopy
  c.fromFd = workdir.fd
  c.fromName = staged.name
  result = copyMetadata(u, c)
  if (result >= 0) result = statxat(workdir.fd, staged.name, c.copyStat)
  if (result >= 0) {
    if (node.parent === null) {
      const orphanFd = openat(workdir.fd, staged.name, O_PATH)
      workdir.discard(staged.name)
      if (orphanFd < 0) return orphanFd
      node.orphanFd = orphanFd
      becomeUpper(u, c, 0)
      return 0
    }
    result = install(u, c)
  }
  if (result < 0) workdir.discard(staged.name)
  return result
}

/**
 * Publishes the finished copy. A file with several links gets a name in the index first, and its
 * other names are linked from there. Any other file gets its name directly.
 */
function install(u: CopyUpContext, c: Copy): Result {
  const { node } = c
  const workdir = u.workdir
  const parent = node.parent
  const lower = node.lowerDir
  if (workdir === null || parent === null || lower === null) return -E.EIO
  if (node.links === null) {
    const result = publish(u, parent, node.name, c.nameCopy, c.fromFd, c.fromName)
    if (result < 0) return result
    becomeUpper(u, c, 1)
    return 0
  }
  const unionLinks = c.sourceStat.nlink + node.nlinkAdjust
  const fd = u.fds.get(lower)
  if (fd < 0) return fd
  // The link count is not tracked for a type of object that takes no overlay xattrs.
  const indexed = workdir.indexFd >= 0 && (node.isReg || u.xattrs.fitsAllTypes)
  const origin = !indexed ? null : encodeForIndex(lower.layer, fd, node.lowerName)
  if (typeof origin === 'number') return origin
  if (origin === null) return installLinks(u, c)
  const key = indexName(origin)
  const result = c.nameCopy(c.fromFd, c.fromName, workdir.indexFd, key)
  if (result < 0) return result
  // Point of no return: from here on the index leads from the names in the lower layers to the
  // copy.
  const count = linkNames(u, node, workdir.indexFd, key)
  if (count < 0) {
    const undone = unlinkat(workdir.indexFd, key)
    if (undone < 0)
      u.log.warn({ errno: -undone }, 'cannot remove an index entry that has no other name')
    return count
  }
  node.indexKey = key
  becomeUpper(u, c, 1 + count)
  node.nlinkAdjust = unionLinks - 1 - count
  tryStoreUpperNlink(u, node)
  return 0
}

/**
 * Publishes a file with several links if there is no index: the copy gets the first name, and the
 * other names are linked from there.
 */
function installLinks(u: CopyUpContext, c: Copy): Result {
  const { node } = c
  const { links } = node
  const first = links?.first
  const into = first?.parent.upperDir
  if (links === null || !first || into === null || into === undefined) return -E.EIO
  const result = publish(u, first.parent, first.name, c.nameCopy, c.fromFd, c.fromName)
  if (result < 0) return result
  links.setInUpper(first)
  // Point of no return: the copy is live. A name that cannot be linked keeps the lower file.
  const fd = u.fds.get(into)
  if (fd >= 0) void linkNames(u, node, fd, first.name)
  becomeUpper(u, c, 0)
  breakHardLinks(u, node)
  return 0
}

/**
 * Without an index, the copy is a separate file with the number and the link count of its own
 * inode. Names that the union has not looked up keep showing the lower file (kernel: ovl_getattr,
 * with index=off). If they showed the copy, they would do so only until the kernel forgets the
 * node; data written through such a name would then disappear from it.
 */
function breakHardLinks(u: CopyUpContext, node: Node): void {
  node.nlinkAdjust = 0
  node.hasOrigin = false
  if (u.upper !== null && node.upperKey !== null) node.ino = shownIno(u, u.upper, node.real)
  u.nodes.unregisterLower(node)
  for (const { parent, name, inUpper } of Array.from(node.links ?? []))
    if (inUpper) u.renumbered(parent)
    else u.nodes.removeName(node, parent, name)
}

/**
 * Adds a file with several links to the index, and this name of it to the upper layer, before the
 * name is hidden. Only the index keeps the union's link count after the node is forgotten, and that
 * count drops with the upper inode's (kernel: ovl_nlink_start).
 *
 * @throws Pending if a large file must be copied up first
 */
export function indexBeforeLoss(
  u: CopyUpContext,
  node: Node,
  parent: Node,
  name: ByteString,
): Result {
  const links = node.links
  if (links === null || (u.workdir?.indexFd ?? -1) < 0) return 0
  if (!node.upper) {
    // The copy gets the name that is about to be removed: the other names stay in their lower
    // directories.
    const link = links.get(parent, name)
    if (link !== undefined) preferName(node, links, link)
    const copied = copyUp(u, node)
    if (copied < 0) return copied
  }
  if (node.indexKey === null) return 0
  const named = ensureUpperName(u, node, parent, name)
  return named < 0 ? named : storeUpperNlink(u, node)
}

/** Switches the node to the upper layer. `links`: the link count of the real inode. */
function becomeUpper(u: CopyUpContext, c: Copy, links: number): void {
  const { node, copyStat: st } = c
  const unionLinks = c.sourceStat.nlink + node.nlinkAdjust
  node.upper = true
  node.version = 0
  u.copied.objects++
  if (node.isReg && !c.truncates) u.copied.bytes += st.size
  identify(node, st, u.upper)
  node.hasOrigin = true
  // Copies that get new inode numbers cause notifications to the kernel, which a job thread sends.
  if (u.losesNumbers) u.pool.start()
  node.metacopy = false
  node.nlinkAdjust = node.parent === null ? 0 : unionLinks - links
  node.lowerPositive = true
  invalidateAttrs(u, node)
  if (node.links === null && node.handles === null) return
  const place = new Place()
  if (locate(u, node, place) < 0) return
  if (node.links !== null && u.upper !== null) u.nodes.registerUpper(node, upperKey(st, u.upper))
  reopenHandles(u, node, place)
}
