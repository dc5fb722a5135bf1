/**
 * Copy-up: a lower object becomes an upper one. Everything is built in the workdir and published by one
 * link or rename, parents first; whatever fails before that leaves the union as it was. Analogous to
 * fs/overlayfs/copy_up.c.
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
} from '../sys/at.js'
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
} from '../sys/constants.js'
import { E } from '../sys/errno.js'
import { close, dup, ficlone, fsync } from '../sys/io.js'
import { Stat } from '../sys/stat.js'
import { copyData, copyDense } from './copydata.js'
import { copyInBackground, takesLong } from './copyjob.js'
import { ensureUpperDir } from './copyup-folder.js'
import { linkNames, saveNlink, setNlinkMark } from './hardlinks.js'
import { completeMetacopy, openSource, settleData } from './metacopy.js'
import { copyMetadata, modeToMake } from './metadata.js'
import type { Link, Node } from './node.js'
import { Pending, type ByteString, type Job, type Result } from './ops.js'
import { encodeOrigin, indexName } from './origin.js'
import { amend, specialsAreFiles } from './override.js'
import { publish, type Put } from './publish.js'
import { moveHandles } from './reopen.js'
import { isReadOnly, locate, Place, type Union } from './union.js'

/** Up to here a file that has as many blocks as it is long is copied without a look for holes. */
const SMALL = 64 << 10

export interface CopyUpJob {
  readonly job: Job
}

const source = new Stat()
const published = new Stat()
const from = new Place()
const linkTarget = Buffer.allocUnsafeSlow(4096)

/**
 * Copies a node up, whatever it is.
 *
 * @param withData false: the data is about to be thrown away (O_TRUNC), so none is copied
 * @throws Pending while the data of a large file is being copied
 */
export function copyUp(u: Union, node: Node, withData = true): Result {
  // A removed folder of a lower layer is not brought back (the kernel's answer, too).
  if (node.isDir) return node.unlinked && !node.upper ? -E.ENOTDIR : ensureUpperDir(u, node)
  if (node.upper && !node.metacopy) return 0
  if (isReadOnly(u)) return -E.EROFS
  if (node.job !== null) throw new Pending(node.job.job, false)
  if (node.upper) return completeMetacopy(u, node, withData)
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

/** Has a folder ready for the copy: another name's, where that of the first one cannot be copied up. */
function ensurePlace(u: Union, node: Node, parent: Node): Result {
  const result = ensureUpperDir(u, parent)
  if (result >= 0 || node.links === null) return result
  const at = node.links.findIndex(link => ensureUpperDir(u, link.parent) >= 0)
  if (at < 0) return result
  preferName(node, node.links, at)
  return 0
}

/** Makes one name of several the one that a copy gets first. */
function preferName(node: Node, links: Link[], at: number): void {
  const [link] = links.splice(at, 1)
  if (link === undefined) return
  links.unshift(link)
  node.parent = link.parent
  node.name = link.name
}

function copyUpRegular(u: Union, node: Node, withData: boolean): Result {
  const work = u.work
  if (work === null) return -E.EROFS
  const src = openSource(u, node)
  if (src < 0) return src
  // As `finishRegular` wants it; the data may be in another layer, but then it looks itself.
  const layer = u.amends && !node.metacopy ? (node.lowerDir?.layer ?? null) : null
  let result = fstatx(src, source)
  if (result >= 0) result = amend(layer, src, '', source)
  const size = source.size
  const born = modeToMake(u, source.mode)
  const tmp = result < 0 ? result : openat(work.fd, '.', O_TMPFILE | O_RDWR, born)
  if (tmp === -E.EOPNOTSUPP || tmp === -E.EISDIR) return copyUpNamed(u, node, src, withData)
  if (tmp < 0) {
    close(src)
    return tmp
  }
  const sync = !u.syncIsFree
  if (withData && size > 0 && !shareExtents(node, src, tmp)) {
    if (takesLong(u, size))
      copyInBackground(u, node, src, tmp, size, copied =>
        copied < 0 ? copied : finishRegular(u, node, src, tmp, -1),
      )
    const dense = size <= SMALL && source.blocks * 512 >= size
    result = dense ? copyDense(src, tmp, size) : copyData(src, tmp, size, false)
  } else if (withData && size > 0 && sync) result = fsync(tmp)
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
  const layer = (node.metacopy ? node.dataDir : node.lowerDir)?.layer
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
  const finish = (copied: Result): Result => {
    const result =
      copied < 0 ? copied : finishRegular(u, node, src, tmp, -1, moveCopy, work.fd, staged.name)
    if (result < 0 || node.parent === null) work.discard(staged.name)
    return result
  }
  const size = withData ? source.size : 0
  if (size > 0 && takesLong(u, size)) copyInBackground(u, node, src, tmp, size, finish)
  const result = finish(size > 0 ? copyData(src, tmp, size, false) : 0)
  close(src)
  close(tmp)
  return result
}

/**
 * Metadata and name for a copied regular file.
 *
 * @param src the file with the data, open
 * @param born the mode that the copy was made with, while `source` has the lower file's attributes; -1:
 * neither is known
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
  let result = born >= 0 ? 0 : statxat(fd, node.lowerName, source)
  if (result >= 0 && u.amends && born < 0) result = amend(lower.layer, fd, node.lowerName, source)
  if (result < 0) return result
  const unlinked = node.parent === null
  const open = node.metacopy ? -1 : src
  result = copyMetadata(u, source, lower.layer, fd, node.lowerName, tmp, '', node, open, born)
  if (result < 0) return result
  if (unlinked) {
    // It has no name any more: the copy never gets one either (kernel: ovl_copy_up of a disconnected file).
    const anchor = dup(tmp)
    if (anchor < 0) return anchor
    node.anchor = anchor
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
  if (result >= 0 && u.amends) result = amend(lower.layer, from.fd, from.name, source)
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
  if (result >= 0) {
    if (node.parent === null) {
      const anchor = openat(work.fd, staged.name, O_PATH)
      work.discard(staged.name)
      if (anchor < 0) return anchor
      node.anchor = anchor
      becomeUpper(u, node, 0)
      return 0
    }
    result = install(u, node, moveCopy, work.fd, staged.name)
  }
  if (result < 0) work.discard(staged.name)
  return result
}

/**
 * Gives the finished copy its place: for a file with several links first in the index, from which its
 * names are linked; else directly under its name.
 *
 * @param put gives the copy (fromFd, temp) its first name
 */
function install(u: Union, node: Node, put: Put, fromFd: number, temp: ByteString): Result {
  const work = u.work
  const parent = node.parent
  const lower = node.lowerDir
  if (work === null || parent === null || lower === null) return -E.EIO
  if (node.links === null) {
    const into = parent.upperDir
    if (into === null) return -E.EIO
    const result = publish(u, into, node.name, put, fromFd, temp)
    if (result < 0) return result
    becomeUpper(u, node, 1)
    return 0
  }
  const unionLinks = source.nlink + node.nlinkAdjust
  const fd = u.fds.get(lower)
  if (fd < 0) return fd
  // A link that bears no mark is not kept count of.
  const indexed = work.indexFd >= 0 && (node.isReg || u.marks.onAll)
  const origin = !indexed ? null : encodeOrigin(lower.layer, fd, node.lowerName)
  if (origin === null) return installLinks(u, node, put, fromFd, temp, unionLinks)
  const key = indexName(origin)
  let result = put(fromFd, temp, work.indexFd, key)
  if (result < 0) return result
  result = setNlinkMark(u, work.indexFd, key, unionLinks - 2)
  // Point of no return: with its first name the copy is live.
  const count = result < 0 ? result : linkNames(u, node, work.indexFd, key, 0)
  if (count < 0) {
    unlinkat(work.indexFd, key)
    return count
  }
  node.indexKey = key
  becomeUpper(u, node, 1 + count)
  node.nlinkAdjust = unionLinks - 1 - count
  return count === 1 ? 0 : saveNlink(u, node)
}

/** Without an index: the copy gets the first of the names, and from there the others. */
function installLinks(
  u: Union,
  node: Node,
  put: Put,
  fromFd: number,
  temp: ByteString,
  unionLinks: number,
): Result {
  const links = node.links
  const first = links?.[0]
  const into = first?.parent.upperDir
  if (links === null || first === undefined || into === null || into === undefined) return -E.EIO
  const result = publish(u, into, first.name, put, fromFd, temp)
  if (result < 0) return result
  first.inUpper = true
  // Point of no return: the copy is live.
  const fd = u.fds.get(into)
  const others = fd < 0 ? 0 : linkNames(u, node, fd, first.name, 1)
  const count = 1 + Math.max(0, others)
  becomeUpper(u, node, count)
  node.nlinkAdjust = unionLinks - count
  return 0
}

/**
 * Brings a lower file with several links into the index before one of its names is hidden: nowhere else
 * is the union's link count kept once the node is forgotten (kernel: ovl_nlink_start).
 *
 * @throws Pending where a large file must be copied up first
 */
export function indexBeforeLoss(u: Union, node: Node, parent: Node, name: ByteString): Result {
  const links = node.links
  if (node.upper || links === null || (u.work?.indexFd ?? -1) < 0) return 0
  // The name that goes is the one that the copy gets: the others stay in their lower folders.
  const at = links.findIndex(link => link.parent === parent && link.name === name)
  if (at >= 0) preferName(node, links, at)
  return copyUp(u, node)
}

/** From here on the upper layer serves the node. `links`: the real inode's link count. */
function becomeUpper(u: Union, node: Node, links: number): void {
  const unionLinks = source.nlink + node.nlinkAdjust
  node.upper = true
  node.hasOrigin = true
  // There will be messages about it, which a thread sends.
  if (u.losesNumbers) u.pool.start()
  node.metacopy = false
  node.nlinkAdjust = node.parent === null ? 0 : unionLinks - links
  node.lowerPositive = true
  if (node.lookups > 0 && node !== u.answering) u.notifier.attrChanged(node.id)
  if (node.links === null && node.handles === null) return
  const place = new Place()
  if (locate(u, node, place) < 0) return
  if (node.links !== null) {
    const result =
      place.name === '' ? fstatx(place.fd, published) : statxat(place.fd, place.name, published)
    if (result >= 0) u.nodes.registerUpper(node, published.ino)
  }
  moveHandles(u, node, place)
}
