/**
 * Copy-up: a lower object becomes an upper one. Everything is built in the workdir and published by
 * one link or rename, parents first; whatever fails before that leaves the union as it was.
 * Analogous to fs/overlayfs/copy_up.c.
 */

import {
  fstatx,
  linkFd,
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
import { copyData, copyDense } from './data.js'
import { copyInBackground, takesLong } from './data-job.js'
import { ensureUpperDir } from './directory.js'
import { ensureUpperName, linkNames, settleNlink, startNlink } from './hard-links.js'
import { identify, isSame, upperKey } from '../layer/real-identity.js'
import { completeMetacopy, openSource, settleData } from './metacopy.js'
import { copyMetadata, modeToMake } from './metadata.js'
import type { Link, Links } from '../inode/links.js'
import type { Node } from '../inode/node.js'
import { Pending, type ByteString, type Job, type Result } from '../ops.js'
import { encodeForIndex, indexName } from '../layer/origin.js'
import { applyOverride, specialsAreFiles } from '../owner/stat-override.js'
import { publish, type Put } from './publish.js'
import { readAhead } from './read-ahead.js'
import { moveHandles } from './reopen.js'
import { isReadOnly, locate, Place, shownIno, type Union } from '../union.js'
import { CHANGED, isOtherVersion } from '../inode/lower-version.js'

/** Up to here a file that has as many blocks as it is long is copied without a look for holes. */
const SMALL = 64 << 10

export interface CopyUpJob {
  readonly job: Job
}

const source = new Stat()
/** The finished copy, before it has a name. */
const copy = new Stat()
const from = new Place()
/** Of the copy that is being finished: it has none of the data, which counts as a change. */
let cuts = false
const linkTarget = Buffer.allocUnsafeSlow(4096)

/**
 * Copies a node up, whatever it is.
 *
 * @param withData false: the data is about to be thrown away (O_TRUNC), so none of a lower file is
 *   copied
 * @throws Pending while the data of a large file is being copied
 */
export function copyUp(u: Union, node: Node, withData = true): Result {
  const { slow } = u
  if (slow === null) return copyUpNow(u, node, withData)
  if (!isReadOnly(u) && node.job === null) readAhead(u, node)
  return slow.atomicStep(() => copyUpNow(u, node, withData))
}

function copyUpNow(u: Union, node: Node, withData: boolean): Result {
  // A removed directory of a lower layer is not brought back (the kernel's answer, too).
  if (node.isDir) return node.unlinked && !node.upper ? -E.ENOTDIR : ensureUpperDir(u, node)
  if (node.upper && !node.metacopy) return 0
  if (isReadOnly(u)) return -E.EROFS
  if (node.job !== null) throw new Pending(node.job.job, false)
  if (node.upper) return completeMetacopy(u, node)
  const settled = settleData(u, node)
  if (settled < 0) return settled
  const parent = node.parent
  if (parent !== null) {
    const result = ensurePlace(u, node, parent)
    if (result < 0) return result
  }
  const result = locate(u, node, from)
  if (result < 0) return result
  return node.isReg ? copyUpRegular(u, node, withData) : copyUpSpecial(u, node)
}

/**
 * Has a directory ready for the copy: another name's, where that of the first one cannot be copied
 * up.
 */
function ensurePlace(u: Union, node: Node, parent: Node): Result {
  const result = ensureUpperDir(u, parent)
  if (result >= 0 || node.links === null) return result
  for (const link of node.links) {
    if (ensureUpperDir(u, link.parent) < 0) continue
    preferName(node, node.links, link)
    return 0
  }
  return result
}

/** Makes one name of several the one that a copy gets first. */
function preferName(node: Node, links: Links, link: Link): void {
  links.prefer(link)
  node.parent = link.parent
  node.name = link.name
}

function copyUpRegular(u: Union, node: Node, withData: boolean): Result {
  const work = u.work
  if (work === null) return -E.EROFS
  const src = openSource(u, node)
  if (src < 0) return src
  // As `finishRegular` wants it; the data may be in another layer, but then it looks itself.
  const layer = u.appliesOverrides && !node.metacopy ? (node.lowerDir?.layer ?? null) : null
  let result = fstatx(src, source)
  // The kernel may have pages and a size of what the file was before, which its writes would be
  // added to.
  if (result >= 0 && !node.metacopy && isOtherVersion(u, node, source)) {
    node.version = CHANGED
    result = -E.ESTALE
  }
  if (result >= 0) result = applyOverride(layer, src, '', source)
  const size = source.size64
  const born = modeToMake(u, source.mode)
  const tmp = result < 0 ? result : openat(work.fd, '.', O_TMPFILE | O_RDWR, born)
  if (tmp === -E.EOPNOTSUPP || tmp === -E.EISDIR) return copyUpNamed(u, node, src, withData)
  if (tmp < 0) {
    close(src)
    return tmp
  }
  const sync = !u.syncIsFree
  if (withData && size > 0 && !shareExtents(node, src, tmp)) {
    if (takesLong(u, src, size))
      copyInBackground(u, node, src, tmp, size, copied => {
        cuts = false
        return copied < 0 ? copied : finishRegular(u, node, src, tmp, -1)
      })
    const dense = source.size <= SMALL && source.blocks * 512 >= source.size
    result = dense ? copyDense(src, tmp, source.size) : copyData(src, tmp, size, false)
  } else if (withData && size > 0 && sync) result = fsync(tmp)
  cuts = !withData && size > 0
  if (result >= 0) result = finishRegular(u, node, src, tmp, node.metacopy ? -1 : born)
  close(src)
  close(tmp)
  return result
}

/** Names an open file that has none. */
const linkCopy: Put = (fromFd, _temp, dirfd, name) => linkFd(fromFd, dirfd, name)
const moveCopy: Put = (fromFd, temp, dirfd, name) =>
  renameat2(fromFd, temp, dirfd, name, RENAME_NOREPLACE)

/** Whether the copy has got its data by sharing it. Layers that cannot are asked once. */
function shareExtents(node: Node, src: number, tmp: number): boolean {
  const layer = (node.metacopy ? node.data?.dir : node.lowerDir)?.layer
  if (layer?.sharesExtents === false) return false
  const result = ficlone(tmp, src)
  if (layer !== undefined && (result === -E.EOPNOTSUPP || result === -E.EXDEV))
    layer.sharesExtents = false
  return result >= 0
}

/** Copies up through a named temporary file, where the upper file system has no O_TMPFILE. */
function copyUpNamed(u: Union, node: Node, src: number, withData: boolean): Result {
  const work = u.work
  if (work === null) return -E.EROFS
  let tmp = -1
  const staged = work.stage(
    (fd, temp) => (tmp = openat(fd, temp, O_CREAT | O_EXCL | O_RDWR, 0o600)),
  )
  if (tmp < 0) {
    close(src)
    return tmp
  }
  const empties = !withData && source.size > 0
  const finish = (copied: Result): Result => {
    cuts = empties
    const result =
      copied < 0 ? copied : finishRegular(u, node, src, tmp, -1, moveCopy, work.fd, staged.name)
    if (result < 0 || node.parent === null) work.discard(staged.name)
    return result
  }
  const size = withData ? source.size64 : 0
  if (size > 0 && takesLong(u, src, size)) copyInBackground(u, node, src, tmp, size, finish)
  const result = finish(size > 0 ? copyData(src, tmp, size, false) : 0)
  close(src)
  close(tmp)
  return result
}

/**
 * Metadata and name for a copied regular file.
 *
 * @param src the file with the data, open
 * @param born the mode that the copy was made with, while `source` has the lower file's attributes;
 *   -1: neither is known
 */
function finishRegular(
  u: Union,
  node: Node,
  src: number,
  tmp: number,
  born: number,
  put: Put = linkCopy,
  fromFd = tmp,
  temp: ByteString = '',
): Result {
  const lower = node.lowerDir
  if (lower === null) return -E.EIO
  const fd = u.fds.get(lower)
  if (fd < 0) return fd
  // Whoever may write to the directory may have given the name to another file since: what is open
  // is the one.
  const open = node.metacopy ? -1 : src
  const at = node.metacopy ? fd : src
  const name = node.metacopy ? node.lowerName : ''
  let result = 0
  if (born < 0) {
    result = name === '' ? fstatx(at, source) : statxat(at, name, source)
    if (result >= 0 && !isSame(node, source)) result = -E.ESTALE
    if (result >= 0 && u.appliesOverrides) result = applyOverride(lower.layer, at, name, source)
  }
  if (result < 0) return result
  // The copy appears as the cut leaves it.
  if (cuts) source.mtimeNsec = UTIME_NOW
  const unlinked = node.parent === null
  result = copyMetadata(u, source, lower.layer, at, name, tmp, '', node, open, born)
  if (result >= 0) result = fstatx(tmp, copy)
  if (result < 0) return result
  if (unlinked) {
    // It has no name any more: the copy never gets one either (kernel: ovl_copy_up of a
    // disconnected file).
    const anchor = dup(tmp)
    if (anchor < 0) return anchor
    node.orphanFd = anchor
    becomeUpper(u, node, 0)
    return 0
  }
  return install(u, node, put, fromFd, temp)
}

function copyUpSpecial(u: Union, node: Node): Result {
  const work = u.work
  const lower = node.lowerDir
  if (work === null || lower === null) return -E.EROFS
  let result = statxat(from.fd, from.name, source)
  if (result >= 0 && !isSame(node, source)) result = -E.ESTALE
  if (result >= 0 && u.appliesOverrides)
    result = applyOverride(lower.layer, from.fd, from.name, source)
  if (result < 0) return result
  const type = source.mode & S_IFMT
  const asFile = u.override && u.upper !== null && specialsAreFiles(u.upper)
  const staged = work.stage((fd, temp) => {
    if (type !== S_IFLNK)
      return mknodat(
        fd,
        temp,
        (asFile ? S_IFREG : type) | 0o600,
        source.rdevMajor,
        source.rdevMinor,
      )
    const length = readlinkat(from.fd, from.name, linkTarget)
    return length < 0 ? length : symlinkat(linkTarget.latin1Slice(0, length), fd, temp)
  })
  if (staged.result < 0) return staged.result
  result = copyMetadata(u, source, lower.layer, from.fd, from.name, work.fd, staged.name, node)
  if (result >= 0) result = statxat(work.fd, staged.name, copy)
  if (result >= 0) {
    if (node.parent === null) {
      const anchor = openat(work.fd, staged.name, O_PATH)
      work.discard(staged.name)
      if (anchor < 0) return anchor
      node.orphanFd = anchor
      becomeUpper(u, node, 0)
      return 0
    }
    result = install(u, node, moveCopy, work.fd, staged.name)
  }
  if (result < 0) work.discard(staged.name)
  return result
}

/**
 * Gives the finished copy its place: for a file with several links first in the index, from which
 * its names are linked; else directly under its name.
 *
 * @param put gives the copy (fromFd, temp) its first name
 */
function install(u: Union, node: Node, put: Put, fromFd: number, temp: ByteString): Result {
  const work = u.work
  const parent = node.parent
  const lower = node.lowerDir
  if (work === null || parent === null || lower === null) return -E.EIO
  if (node.links === null) {
    const result = publish(u, parent, node.name, put, fromFd, temp)
    if (result < 0) return result
    becomeUpper(u, node, 1)
    return 0
  }
  const unionLinks = source.nlink + node.nlinkAdjust
  const fd = u.fds.get(lower)
  if (fd < 0) return fd
  // A link that bears no mark is not kept count of.
  const indexed = work.indexFd >= 0 && (node.isReg || u.xattrs.fitsAllTypes)
  const origin = !indexed ? null : encodeForIndex(lower.layer, fd, node.lowerName)
  if (typeof origin === 'number') return origin
  if (origin === null) return installLinks(u, node, put, fromFd, temp)
  const key = indexName(origin)
  const result = put(fromFd, temp, work.indexFd, key)
  if (result < 0) return result
  // Point of no return: the names of the lower layers lead to the copy by the index.
  const count = linkNames(u, node, work.indexFd, key)
  if (count < 0) {
    const undone = unlinkat(work.indexFd, key)
    if (undone < 0) u.log.warn({ errno: -undone }, 'a copy without a name stays in the index')
    return count
  }
  node.indexKey = key
  becomeUpper(u, node, 1 + count)
  node.nlinkAdjust = unionLinks - 1 - count
  settleNlink(u, node)
  return 0
}

/** Without an index: the copy gets the first of the names, and from there the others. */
function installLinks(u: Union, node: Node, put: Put, fromFd: number, temp: ByteString): Result {
  const links = node.links
  const first = links?.first
  const into = first?.parent.upperDir
  if (links === null || !first || into === null || into === undefined) return -E.EIO
  const result = publish(u, first.parent, first.name, put, fromFd, temp)
  if (result < 0) return result
  links.setInUpper(first)
  // Point of no return: the copy is live. A name that gets none keeps the lower file.
  const fd = u.fds.get(into)
  if (fd >= 0) void linkNames(u, node, fd, first.name)
  becomeUpper(u, node, 0)
  part(u, node)
  return 0
}

/**
 * A copy that no index leads to is a file of its own: it has the number and the links of its inode,
 * and names that were not known go on showing the lower file (kernel: ovl_getattr, with index=off).
 * Else they would show the copy for as long as the kernel happens to remember it, and what is
 * written by such a name would be gone from it afterwards.
 */
function part(u: Union, node: Node): void {
  node.nlinkAdjust = 0
  node.hasOrigin = false
  if (u.upper !== null && node.upperKey !== null) node.ino = shownIno(u, u.upper, node.real)
  u.nodes.unregisterLower(node)
  for (const { parent, name, inUpper } of Array.from(node.links ?? []))
    if (inUpper) u.renumbered(parent)
    else u.nodes.removeName(node, parent, name)
}

/**
 * Brings a file with several links into the index, and this name of it into the upper layer, before
 * the name is hidden: nowhere else is the union's link count kept once the node is forgotten, and
 * it falls with the upper inode's (kernel: ovl_nlink_start).
 *
 * @throws Pending where a large file must be copied up first
 */
export function indexBeforeLoss(u: Union, node: Node, parent: Node, name: ByteString): Result {
  const links = node.links
  if (links === null || (u.work?.indexFd ?? -1) < 0) return 0
  if (!node.upper) {
    // The name that goes is the one that the copy gets: the others stay in their lower directories.
    const link = links.get(parent, name)
    if (link !== undefined) preferName(node, links, link)
    const copied = copyUp(u, node)
    if (copied < 0) return copied
  }
  if (node.indexKey === null) return 0
  const named = ensureUpperName(u, node, parent, name)
  return named < 0 ? named : startNlink(u, node)
}

/** From here on the upper layer serves the node: `copy`. `links`: the real inode's link count. */
function becomeUpper(u: Union, node: Node, links: number): void {
  const unionLinks = source.nlink + node.nlinkAdjust
  node.upper = true
  node.version = 0
  u.copied.objects++
  if (node.isReg && !cuts) u.copied.bytes += copy.size
  identify(node, copy, u.upper)
  node.hasOrigin = true
  // There will be messages about it, which a thread sends.
  if (u.losesNumbers) u.pool.start()
  node.metacopy = false
  node.nlinkAdjust = node.parent === null ? 0 : unionLinks - links
  node.lowerPositive = true
  invalidateAttrs(u, node)
  if (node.links === null && node.handles === null) return
  const place = new Place()
  if (locate(u, node, place) < 0) return
  if (node.links !== null && u.upper !== null) u.nodes.registerUpper(node, upperKey(copy, u.upper))
  moveHandles(u, node, place)
}
