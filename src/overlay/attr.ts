/** getattr, setattr, inode flags, statfs. Analogous to fs/overlayfs/inode.c. */

import {
  fchmod,
  fchmodat,
  fchown,
  fchownat,
  fstatx,
  futimens,
  openat,
  statxat,
  statfs as statfsFd,
  StatFs,
  utimensat,
} from '../sys/at.js'
import {
  FS_APPEND_FL,
  FS_IMMUTABLE_FL,
  O_DIRECTORY,
  O_RDONLY,
  S_IFLNK,
  S_IFMT,
  UTIME_NOW,
  UTIME_OMIT,
} from '../sys/constants.js'
import { E } from '../sys/errno.js'
import {
  close,
  ftruncate,
  truncateat,
  getFlags as readFlags,
  setFlags as writeFlags,
} from '../sys/io.js'
import { removexattrat } from '../sys/xattr.js'
import { copyUp } from './copyup.js'
import { openHandle, statOpen, writersFd, type FileHandle, type HandleTable } from './handles.js'
import { privilegesLeft } from './privileges.js'
import { CAPABILITY } from './id-values.js'
import { saveProtect } from './metadata.js'
import { OWNER_WRITE, withRight } from './lend.js'
import { Protect, type Node } from './node.js'
import {
  SetAttrValid as V,
  type Attr,
  type ByteString,
  type Caller,
  type Fh,
  type Result,
  type SetAttr,
  type StatFsOut,
} from './ops.js'
import type { Layer } from './layer.js'
import { amend, dropCapability, isOverridden, storedName, storeMode } from './override.js'
import { isOwnerRefusal, UNMAPPED, type Owners } from './owners.js'
import { fdPathOpen } from './reopen.js'
import { fillAttr, isReadOnly, locate, Place, shownGid, statNode, type Union } from './union.js'

const place = new Place()

export function getattr(u: Union, handles: HandleTable, node: Node, fh: Fh, out: Attr): Result {
  const result = statOpen(u, handles, node, fh, u.st)
  if (result < 0) return result
  fillAttr(u, node, u.st, out)
  if (node.metacopy) addDataBlocks(u, node, out)
  return 0
}

/** A metadata-only copy shows the blocks of the file that has its data (kernel: ovl_getattr). */
function addDataBlocks(u: Union, node: Node, out: Attr): void {
  if (node.dataDir === null) return
  const fd = u.fds.get(node.dataDir)
  if (fd >= 0 && statxat(fd, node.dataName, u.st) >= 0) out.blocks = u.st.blocks
}

/** @throws Pending where a large file must be copied up first */
export function setattr(
  u: Union,
  handles: HandleTable,
  node: Node,
  set: SetAttr,
  caller: Caller,
  out: Attr,
): Result {
  const valid = set.valid
  if (isReadOnly(u)) return -E.EROFS
  if (bringsNothing(u, node, set)) return getattr(u, handles, node, set.fh, out)
  if (node.protect !== 0 && !allowedOnProtected(u, node, set)) return -E.EPERM
  // Before anything is copied up for it (kernel: notify_change).
  if (u.owners !== null && !canOwn(u.owners, set)) return -E.EOVERFLOW
  // The VFS asks for no such thing; opening a FIFO for it would wait for ever.
  if ((valid & V.SIZE) !== 0 && !node.isReg) return node.isDir ? -E.EISDIR : -E.EINVAL
  const emptied = (valid & V.SIZE) !== 0 && set.size === 0
  // No data is copied to be thrown away: then the cut itself finds nothing that it could change.
  const cutAway = emptied && !node.upper && statNode(u, node, u.st) >= 0 && u.st.size > 0
  const copied = copyUp(u, node, !emptied)
  if (copied < 0) return copied
  const result = apply(u, handles, node, set, caller)
  if (result < 0) return result
  if (cutAway && (valid & V.MTIME) === 0) modifiedNow(u, node)
  return getattr(u, handles, node, set.fh, out)
}

/** Whether the owner that is to be set has an id on disk. */
function canOwn(owners: Owners, { valid, uid, gid }: SetAttr): boolean {
  if (owners.squashes) return true
  if ((valid & V.UID) !== 0 && owners.uids.toDisk(uid) === UNMAPPED) return false
  return (valid & V.GID) === 0 || owners.gids.toDisk(gid) !== UNMAPPED
}

/** What the kernel's write-back sends, through a handle (fs/fuse/inode.c:fuse_flush_times). */
const WRITTEN_BACK = V.FH | V.MTIME | V.CTIME

/**
 * Whether the kernel's write-back brings no other time than there is: of a lower file only the time of the last change of
 * its inode can be new, by the removal of a name above all. Nothing is copied up for that.
 */
function bringsNothing(u: Union, node: Node, set: SetAttr): boolean {
  if (!u.writeback || node.upper || (set.valid | V.FH) !== WRITTEN_BACK) return false
  if (statNode(u, node, u.st) < 0) return false
  return u.st.mtimeSec === set.mtimeSec && u.st.mtimeNsec === set.mtimeNsec
}

/**
 * What an immutable or append-only file still lets be changed (kernel: may_setattr): set-id bits are
 * dropped; times that the kernel's write-back brings are only what a write did before.
 */
function allowedOnProtected(u: Union, node: Node, set: SetAttr): boolean {
  const valid = set.valid
  if (valid === WRITTEN_BACK) return true
  const times = valid & (V.ATIME | V.MTIME | V.ATIME_NOW | V.MTIME_NOW)
  const touch =
    times === (V.ATIME | V.MTIME | V.ATIME_NOW | V.MTIME_NOW) ||
    (u.writeback && times === (V.ATIME | V.MTIME | V.ATIME_NOW) && isAboutNow(set.mtimeSec))
  const resized = (valid & V.SIZE) !== 0
  if ((valid & (V.MODE | V.UID | V.GID)) !== 0) return false
  // A new size comes with the time of the change.
  if (times !== 0 && !touch && !resized) return false
  if ((node.protect & Protect.APPEND) !== 0) return !resized
  // Through a descriptor that was open before, an immutable file can be cut.
  return !touch && (!resized || ((valid & V.FH) !== 0 && set.fh !== 0))
}

/** With write-back the kernel sends the time of a touch instead of "now". */
const isAboutNow = (sec: number): boolean => Math.abs(Date.now() / 1000 - sec) < 60

/**
 * Fills `place` with where to change the node's object: a descriptor of it, where that is quicker or the only way. A file
 * is cut by its name: a descriptor that may not write would have to be opened anew.
 */
function find(u: Union, node: Node, valid: number, handle: FileHandle | undefined): Result {
  let fd = (valid & V.SIZE) === 0 ? writersFd(node) : -1
  if (fd < 0) {
    const result = locate(u, node, place)
    if (result >= 0) return result
    const open = openHandle(node, handle)
    if (open === undefined) return result
    fd = open.fd
  }
  place.fd = fd
  place.name = ''
  return 0
}

function apply(u: Union, handles: HandleTable, node: Node, set: SetAttr, caller: Caller): Result {
  const valid = set.valid
  const handle = (valid & V.FH) !== 0 ? handles.get(set.fh) : undefined
  let result = find(u, node, valid, handle)
  if (result < 0) return result
  const { fd, name } = place
  if ((valid & V.SIZE) !== 0) {
    // Where the kernel keeps the times of written files, it says so if it counts this as a change; if
    // not, the real file must not say otherwise after a remount.
    const keepTime = u.writeback && (valid & V.MTIME) === 0
    const writes = handle?.writable === true && !handle.onlyReads
    result = truncate(u, place, writes ? handle.fd : -1, set.size, keepTime)
    if (result < 0) return result
  }
  // A request without any attribute is chown(2) with -1 for both, which drops set-id bits all the same.
  const any = V.MODE | V.UID | V.GID | V.SIZE | V.ATIME | V.MTIME | V.KILL_SUIDGID
  const kill = (valid & V.KILL_SUIDGID) !== 0 || (valid & any) === 0
  // A write is about to happen (kernel: file_remove_privs): root keeps set-id bits, no one a capability.
  // With write-back it differs from a chown by not bringing a time.
  if ((valid & any) === 0 && u.writeback && (valid & V.CTIME) === 0 && caller.uid === 0) {
    result = removexattrat(fd, name, u.override ? storedName(u.upper, CAPABILITY) : CAPABILITY)
    return result === -E.ENODATA ? 0 : result
  }
  if (u.override && u.upper !== null && isOverridden(u.upper, node.type)) {
    const changing = kill || (valid & (V.MODE | V.UID | V.GID)) !== 0
    // On an inode the kernel itself drops set-id bits when the owner changes.
    const drops = kill || (valid & (V.UID | V.GID)) !== 0
    result = changing ? storeOwner(u, u.upper, node, set, drops, caller) : 0
    if (result >= 0 && (valid & V.SIZE) !== 0) dropCapability(u.upper, fd, name)
    return result < 0 ? result : setTimes(fd, name, set)
  }
  let left = -1
  if (kill && (valid & V.MODE) === 0 && !node.isDir) {
    // Who may keep the bits is judged by the group that the file has before.
    result = name === '' ? fstatx(fd, u.st) : statxat(fd, name, u.st)
    if (result < 0) return result
    const mode = privilegesLeft(u.st.mode, shownGid(u, u.st), caller)
    if (mode !== u.st.mode) left = mode
  }
  if ((valid & (V.UID | V.GID)) !== 0 || (valid & any) === 0) {
    const uid = (valid & V.UID) !== 0 ? set.uid : -1
    const gid = (valid & V.GID) !== 0 ? set.gid : -1
    result = chown(u, fd, name, uid, gid)
    if (result < 0) return result
  }
  if (left >= 0) {
    result = chmod(fd, name, left)
    if (result < 0) return result
  }
  if ((valid & V.MODE) !== 0) {
    result = node.type === S_IFLNK ? -E.EOPNOTSUPP : chmod(fd, name, set.mode)
    if (result < 0) return result
  }
  return setTimes(fd, name, set)
}

/** Owner and mode of what keeps them in an attribute; the object is at `place`. */
function storeOwner(
  u: Union,
  upper: Layer,
  node: Node,
  set: SetAttr,
  kill: boolean,
  caller: Caller,
): Result {
  const { fd, name } = place
  const { valid } = set
  const st = u.st
  let result = name === '' ? fstatx(fd, st) : statxat(fd, name, st)
  if (result >= 0) result = amend(upper, fd, name, st)
  if (result < 0) return result
  let mode = st.mode
  if ((valid & V.MODE) !== 0) {
    if (node.type === S_IFLNK) return -E.EOPNOTSUPP
    mode = (mode & S_IFMT) | (set.mode & 0o7777)
  } else if (kill && !node.isDir) mode = privilegesLeft(mode, shownGid(u, st), caller)
  const uid = (valid & V.UID) === 0 ? UNMAPPED : (u.owners?.uids.toDisk(set.uid) ?? set.uid)
  const gid = (valid & V.GID) === 0 ? UNMAPPED : (u.owners?.gids.toDisk(set.gid) ?? set.gid)
  st.amend(uid === UNMAPPED ? st.uid : uid, gid === UNMAPPED ? st.gid : gid, mode)
  result = storeMode(upper, fd, name, st, mode)
  if (result >= 0 && kill) dropCapability(upper, fd, name)
  return result
}

function setTimes(fd: number, name: ByteString, set: SetAttr): Result {
  const { valid } = set
  if ((valid & (V.ATIME | V.MTIME)) !== 0) {
    const atime =
      (valid & V.ATIME) === 0 ? UTIME_OMIT : (valid & V.ATIME_NOW) !== 0 ? UTIME_NOW : set.atimeNsec
    const mtime =
      (valid & V.MTIME) === 0 ? UTIME_OMIT : (valid & V.MTIME_NOW) !== 0 ? UTIME_NOW : set.mtimeNsec
    return name === ''
      ? futimens(fd, set.atimeSec, atime, set.mtimeSec, mtime)
      : utimensat(fd, name, set.atimeSec, atime, set.mtimeSec, mtime)
  }
  return 0
}

/** Modified now. */
function modifiedNow(u: Union, node: Node): void {
  if (locate(u, node, place) < 0) return
  const { fd, name } = place
  if (name === '') futimens(fd, 0, UTIME_OMIT, 0, UTIME_NOW)
  else utimensat(fd, name, 0, UTIME_OMIT, 0, UTIME_NOW)
}

/** @param uid as it is shown, or -1: unchanged. `gid` likewise */
function chown(u: Union, fd: number, name: string, uid: number, gid: number): Result {
  const { owners } = u
  const diskUid = owners === null || uid === -1 ? uid : owners.uids.toDisk(uid)
  const diskGid = owners === null || gid === -1 ? gid : owners.gids.toDisk(gid)
  const result = name === '' ? fchown(fd, diskUid, diskGid) : fchownat(fd, name, diskUid, diskGid)
  return result < 0 && owners?.squashes === true && isOwnerRefusal(result) ? 0 : result
}

function chmod(fd: number, name: string, mode: number): Result {
  return name === '' ? fchmod(fd, mode & 0o7777) : fchmodat(fd, name, mode & 0o7777)
}

/**
 * Cuts or extends the real file.
 *
 * @param writableFd a descriptor that may write, or -1
 */
function truncate(
  u: Union,
  at: Place,
  writableFd: number,
  size: number,
  keepTime: boolean,
): Result {
  const { fd, name } = at
  const restore = keepTime && (name === '' ? fstatx(fd, u.st) : statxat(fd, name, u.st)) >= 0
  const { atimeSec, atimeNsec, mtimeSec, mtimeNsec } = u.st
  let result = writableFd >= 0 ? ftruncate(writableFd, size) : truncateat(fd, name, size)
  if (result === -E.EACCES)
    result = withRight(fd, name, OWNER_WRITE, () => truncateat(fd, name, size))
  if (!restore || result < 0) return result
  return name === ''
    ? futimens(fd, atimeSec, atimeNsec, mtimeSec, mtimeNsec)
    : utimensat(fd, name, atimeSec, atimeNsec, mtimeSec, mtimeNsec)
}

function openForFlags(u: Union, node: Node): Result {
  if (!node.isDir && !node.isReg) return -E.ENOTTY
  const result = locate(u, node, place)
  if (result < 0) return result
  const flags = O_RDONLY | (node.isDir ? O_DIRECTORY : 0)
  if (place.name !== '') return openat(place.fd, place.name, flags)
  return node.isDir ? openat(place.fd, '.', flags) : fdPathOpen(place.fd, flags)
}

const VIRTUAL_FLAGS = FS_IMMUTABLE_FL | FS_APPEND_FL

/** FS_IOC_GETFLAGS: the real inode's flags, with the virtual ones (kernel: ovl_fileattr_get). */
export function getFlags(u: Union, node: Node): Result {
  const fd = openForFlags(u, node)
  if (fd < 0) return fd
  const flags = readFlags(fd)
  close(fd)
  if (flags < 0) return flags
  return (
    (flags & ~VIRTUAL_FLAGS) |
    ((node.protect & Protect.IMMUTABLE) !== 0 ? FS_IMMUTABLE_FL : 0) |
    ((node.protect & Protect.APPEND) !== 0 ? FS_APPEND_FL : 0)
  )
}

/**
 * FS_IOC_SETFLAGS: immutable and append-only are kept in `overlay.protattr`, never set on the real
 * inode, which the union must stay able to remove (kernel: ovl_fileattr_set).
 *
 * @throws Pending where a large file must be copied up first
 */
export function setFlags(u: Union, node: Node, flags: number): Result {
  if (isReadOnly(u)) return -E.EROFS
  const copied = copyUp(u, node)
  if (copied < 0) return copied
  const fd = openForFlags(u, node)
  if (fd < 0) return fd
  const protect =
    ((flags & FS_IMMUTABLE_FL) !== 0 ? Protect.IMMUTABLE : 0) |
    ((flags & FS_APPEND_FL) !== 0 ? Protect.APPEND : 0)
  const real = flags & ~VIRTUAL_FLAGS
  let result = writeFlags(fd, real)
  if (result >= 0 && protect !== node.protect) result = saveProtect(u, fd, '', protect)
  close(fd)
  if (result < 0) return result
  // The kernel may believe that it need not ask before a write (S_NOSEC): new attributes have it ask again.
  if (u.noOpen && protect !== node.protect) u.notifier.attrChanged(node.id)
  node.protect = protect
  return 0
}

const fs = new StatFs()

export function statfs(u: Union, out: StatFsOut): Result {
  const layer = u.upper ?? u.lowers[0]
  if (layer === undefined) return -E.EIO
  const result = statfsFd(layer.fd, fs)
  if (result < 0) return result
  out.bsize = fs.bsize
  out.frsize = fs.frsize
  out.blocks = fs.blocks
  out.bfree = fs.bfree
  out.bavail = fs.bavail
  out.files = fs.files
  out.ffree = fs.ffree
  out.namelen = fs.namelen
  return 0
}
