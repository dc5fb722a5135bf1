/** getattr, setattr, inode flags, statfs. Mirrors fs/overlayfs/inode.c. */

import {
  fchmodat,
  fchownat,
  openat,
  statxat,
  statfs as statfsFd,
  StatFs,
  utimensat,
} from '../../sys/at.js'
import {
  FS_APPEND_FL,
  FS_IMMUTABLE_FL,
  O_DIRECTORY,
  O_RDONLY,
  S_IFLNK,
  S_IFMT,
  UTIME_NOW,
  UTIME_OMIT,
} from '../../sys/constants.js'
import { E } from '../../sys/errno.js'
import {
  close,
  dup,
  ftruncate,
  getFlags as readFlags,
  setFlags as writeFlags,
} from '../../sys/io.js'
import { openToTruncate, truncateat } from '../../sys/truncate.js'
import type { Off } from '../../sys/types.js'
import { invalidateAttrs } from '../inode/invalidate.js'
import { copyUp } from '../copy-up/copy-up.js'
import { truncateInBackground, freesMuch } from './truncate.js'
import {
  BareSetattr,
  checkChown,
  isBareSetattr,
  modeAfterChange,
  statPlace,
  classifyBareSetattr,
} from '../inode/drop-privileges.js'
import type { FileHandle } from '../inode/node.js'
import { openHandle, flushKernelPages, statOpen, writersFd, type HandleTable } from './handles.js'
import { isSame } from '../layer/real-identity.js'
import { removeCapability } from '../inode/killpriv.js'
import { saveProtect } from '../copy-up/metadata.js'
import { OWNER_WRITE, withOwnerAccess } from '../owner/owner-access.js'
import { throwIfBusy, Protect, type Node } from '../inode/node.js'
import {
  SetAttrValid as V,
  type Attr,
  type ByteString,
  type Caller,
  type Fh,
  type Result,
  type SetAttr,
  type StatFsOut,
} from '../ops.js'
import type { Layer } from '../layer/layer.js'
import {
  applyOverride,
  dropCapability,
  isOverridden,
  writeOverrideMode,
  writeOverrideOwner,
} from '../layer/stat-override.js'
import { isChownRefusal, UNMAPPED, type Idmap } from '../owner/idmap.js'
import { openRegular, orPending } from '../layer/open-regular.js'
import { fillAttr } from '../inode/shown-attr.js'
import { Place } from '../inode/place.js'
import { identifyAgain, locate, statAt, statNode } from '../inode/real-object.js'
import { isReadOnly } from '../inode/context.js'
import type { CopyUpContext } from '../copy-up/context.js'
import { forgetVersion, rememberVersion } from '../inode/lower-version.js'
import { pin, unpin } from '../inode/pin.js'

/** Where an object is that a SETATTR changes. */
class Target extends Place {
  /** A descriptor open for writing, through which the file can be truncated; or -1. */
  writableFd = -1
}

const target = new Target()
const place = new Place()

export function getattr(
  u: CopyUpContext,
  handles: HandleTable,
  node: Node,
  fh: Fh,
  out: Attr,
): Result {
  const result = statOpen(u, handles, node, fh, u.st)
  return result < 0 ? result : reportAttrs(u, node, out)
}

/** Reports the attributes in `u.st` to the kernel. */
function reportAttrs(u: CopyUpContext, node: Node, out: Attr): Result {
  rememberVersion(u, node, u.st)
  fillAttr(u, node, u.st, out)
  return node.metacopy ? addDataBlocks(u, node, out) : 0
}

/** A metadata-only copy shows the blocks of the file that has its data (kernel: ovl_getattr). */
function addDataBlocks(u: CopyUpContext, node: Node, out: Attr): Result {
  const { data } = node
  if (data === null) return 0
  const fd = u.fds.get(data.dir)
  const result = fd < 0 ? fd : statxat(fd, data.name, u.st)
  if (result >= 0 && isSame(data, u.st)) out.blocks = u.st.blocks
  return Math.min(result, 0)
}

/**
 * @throws Pending if a large file must be copied up first, or while a job truncates it
 */
export function setattr(
  u: CopyUpContext,
  handles: HandleTable,
  node: Node,
  set: SetAttr,
  caller: Caller,
  out: Attr,
): Result {
  const valid = set.valid
  if (isReadOnly(u)) return -E.EROFS
  throwIfBusy(node)
  if (changesNoTime(u, node, set)) return getattr(u, handles, node, set.fh, out)
  if (node.protect !== 0 && !allowedOnProtected(u, node, set)) return -E.EPERM
  // Checked before the copy-up (kernel: notify_change).
  if (u.idmap !== null && !hasIdsOnDisk(u.idmap, set)) return -E.EOVERFLOW
  const modeChange = modeChangeOf(u, handles, node, set, caller)
  if (typeof modeChange === 'number') return modeChange
  // The VFS never sends this; an open of a FIFO for it would block forever.
  if ((valid & V.SIZE) !== 0 && !node.isReg) return node.isDir ? -E.EISDIR : -E.EINVAL
  const emptied = (valid & V.SIZE) !== 0 && set.size === 0
  const copiesEmpty = emptied && !node.upper
  const copied = copyUp(u, node, !emptied)
  if (copied < 0) return copied
  if ((valid & (V.SIZE | V.MTIME)) !== 0) forgetVersion(node)
  // Outstanding writes are flushed before the times are set, because they would change the mtime
  // again.
  if ((valid & (V.MTIME | V.SIZE)) === V.MTIME && !u.writeback) flushKernelPages(u, node)
  const handle = (valid & V.FH) !== 0 ? handles.get(set.fh) : undefined
  let result = findObject(u, node, valid, handle, target)
  // The copy is already empty, so an error would be wrong: the remaining step is retried once.
  if (result < 0 && copiesEmpty) result = findObject(u, node, valid, handle, target)
  if (result < 0) return result
  try {
    result = apply(u, node, target, set, modeChange, caller)
    if (result < 0 && copiesEmpty) result = apply(u, node, target, set, modeChange, caller)
    if (result < 0) return result
    result = statAt(u, node, target, u.st)
    // The change is done, so an error would be wrong: reading the attributes is retried once.
    if (result < 0) result = statAt(u, node, target, u.st)
    if (result < 0) return result
    identifyAgain(u, node, u.st)
    return reportAttrs(u, node, out)
  } finally {
    unpin(target)
  }
}

/** Whether the new owner can be mapped to an id on disk. */
function hasIdsOnDisk(idmap: Idmap, { valid, uid, gid }: SetAttr): boolean {
  if (idmap.squashes) return true
  if ((valid & V.UID) !== 0 && idmap.uids.toDisk(uid) === UNMAPPED) return false
  return (valid & V.GID) === 0 || idmap.gids.toDisk(gid) !== UNMAPPED
}

/**
 * The attributes that the kernel's write-back sends through a handle
 * (fs/fuse/inode.c:fuse_flush_times).
 */
const WRITTEN_BACK = V.FH | V.MTIME | V.CTIME

/**
 * Whether the kernel's write-back sends only the mtime that the lower file already has. Only the
 * ctime can differ then, mostly because a name was removed. The file is not copied up for this.
 */
function changesNoTime(u: CopyUpContext, node: Node, set: SetAttr): boolean {
  if (!u.writeback || node.upper || (set.valid | V.FH) !== WRITTEN_BACK) return false
  if (statNode(u, node, u.st) < 0) return false
  return u.st.mtimeSec === set.mtimeSec && u.st.mtimeNsec === set.mtimeNsec
}

/**
 * Whether a change is allowed on an immutable or append-only file (kernel: may_setattr). Set-id
 * bits may be dropped. Times from the kernel's write-back are allowed, because they belong to an
 * earlier write.
 */
function allowedOnProtected(u: CopyUpContext, node: Node, set: SetAttr): boolean {
  const valid = set.valid
  if (valid === WRITTEN_BACK) return true
  const times = valid & (V.ATIME | V.MTIME | V.ATIME_NOW | V.MTIME_NOW)
  const touch =
    times === (V.ATIME | V.MTIME | V.ATIME_NOW | V.MTIME_NOW) ||
    (u.writeback && times === (V.ATIME | V.MTIME | V.ATIME_NOW) && isAboutNow(set.mtimeSec))
  const resized = (valid & V.SIZE) !== 0
  if ((valid & (V.MODE | V.UID | V.GID)) !== 0) return false
  // A new size is sent together with the time of the change.
  if (times !== 0 && !touch && !resized) return false
  if ((node.protect & Protect.APPEND) !== 0) return !resized
  // An immutable file can be truncated through a handle that was opened before.
  return !touch && (!resized || ((valid & V.FH) !== 0 && set.fh !== 0))
}

/** With write-back the kernel sends the time of a touch instead of UTIME_NOW. */
const isAboutNow = (sec: number): boolean => Math.abs(Date.now() / 1000 - sec) < 60

/** Whether the file can be truncated through this handle. */
const mayTruncate = (handle: FileHandle | undefined): handle is FileHandle =>
  handle?.writable === true && !handle.onlyReads

/**
 * Fills `at` with a way to the node's object: an open descriptor, if that is faster or the only
 * way. An object that no longer has the node's name is changed only through a handle that the
 * request names. The caller must pass `at` to `unpin`.
 */
function findObject(
  u: CopyUpContext,
  node: Node,
  valid: number,
  handle: FileHandle | undefined,
  at: Target,
): Result {
  at.writableFd = mayTruncate(handle) ? handle.fd : -1
  let fd = (valid & V.SIZE) === 0 ? writersFd(node) : at.writableFd
  if (fd < 0) {
    const result = pin(u, node, at)
    if (result >= 0) return result
    const open = openHandle(node, handle)
    if (open === undefined || (result === -E.ESTALE && handle === undefined)) return result
    fd = open.fd
  }
  at.fd = fd
  at.name = ''
  return 0
}

/** How a change affects the set-id bits. */
interface ModeChange {
  /** A `BareSetattr` value, or -1 if the request names an attribute. */
  kind: number
  /** The mode before and after the change; equal if no bits are dropped. */
  before: number
  left: number
}
const NO_CHANGE: ModeChange = { kind: -1, before: 0, left: 0 }

/**
 * @returns -errno if the caller may not drop the bits; then nothing must be changed
 */
function modeChangeOf(
  u: CopyUpContext,
  handles: HandleTable,
  node: Node,
  set: SetAttr,
  caller: Caller,
): ModeChange | Result {
  const { valid } = set
  const kills = (valid & V.KILL_SUIDGID) !== 0 && (valid & V.MODE) === 0
  if (!kills && !isBareSetattr(valid)) return NO_CHANGE
  const kind = isBareSetattr(valid) ? classifyBareSetattr(u, node, valid, caller) : -1
  let result = statOpen(u, handles, node, set.fh, u.st)
  // A truncation drops the bits for every caller that may write; the caller need not own the file.
  if (result >= 0 && ((kills && (valid & V.SIZE) === 0) || kind === BareSetattr.CHOWN))
    result = checkChown(u, u.st, caller)
  if (result < 0) return result
  const before = u.st.mode
  return {
    kind,
    before,
    left: kind === BareSetattr.KEEPS ? before : modeAfterChange(u, u.st, caller),
  }
}

/** Changes the object at `at`. */
function apply(
  u: CopyUpContext,
  node: Node,
  at: Target,
  set: SetAttr,
  { kind, before, left }: ModeChange,
  caller: Caller,
): Result {
  const valid = set.valid
  let result: Result = 0
  const { fd, name, writableFd } = at
  if ((valid & V.SIZE) !== 0) {
    // If the kernel keeps the times of written files, it sends the mtime if this counts as a
    // change. If it does not send one, the real file must keep its mtime, which appears after a
    // remount.
    const keepTime = u.writeback && (valid & V.MTIME) === 0
    result = u.override ? dropCapability(u.upper, fd, name) : 0
    if (result < 0) return result
    if (freesMuch(node, at, set.size)) {
      // The set-id bits are dropped first, so a truncated file never keeps them, even if the job
      // fails.
      result = left === before ? 0 : dropBeforeWrite(u, at, before, left)
      if (result >= 0) result = fdToTruncate(u, at, writableFd)
      return result < 0 ? result : truncateInBackground(u, node, result, set.size, keepTime)
    }
    result = truncate(u, at, writableFd, set.size, keepTime)
    if (result < 0) return result
  }
  let done = (valid & V.SIZE) !== 0
  /**
   * An earlier step cannot be undone, and an error would mean that nothing was changed. So a later
   * step is retried once.
   */
  const step = (run: () => Result): Result => {
    const first = run()
    const last = first < 0 && done ? run() : first
    done = true
    return last
  }
  if (kind === BareSetattr.KEEPS || kind === BareSetattr.DROPS)
    return step(() => dropBeforeWrite(u, at, before, left))
  const kill = before !== 0
  const { override, upper } = u
  if (override && upper !== null && isOverridden(upper, node.type)) {
    const changing = kill || (valid & (V.MODE | V.UID | V.GID)) !== 0
    // On an inode with a real owner, the kernel itself drops set-id bits on chown.
    const drops = kill || (valid & (V.UID | V.GID)) !== 0
    if (changing) result = step(() => changeOwner(u, upper, node, at, set, drops ? caller : null))
    return result < 0 ? result : step(() => setTimes(fd, name, set))
  }
  const chowns = (valid & (V.UID | V.GID)) !== 0 || kind === BareSetattr.CHOWN
  if (chowns) {
    const uid = (valid & V.UID) !== 0 ? set.uid : -1
    const gid = (valid & V.GID) !== 0 ? set.gid : -1
    result = step(() => chown(u, fd, name, uid, gid))
    if (result < 0) return result
  }
  // The chown by the server may have dropped more bits than the caller's would have.
  if (!node.isDir && (left !== before || (chowns && (left & 0o6000) !== 0))) {
    result = step(() => chmod(fd, name, left))
    if (result < 0) return result
  }
  if ((valid & V.MODE) !== 0) {
    if (node.type === S_IFLNK) return -E.EOPNOTSUPP
    result = step(() => chmod(fd, name, set.mode))
    if (result < 0) return result
  }
  return step(() => setTimes(fd, name, set))
}

/**
 * Before a change of data: drops the capability, and the set-id bits that the new mode does not
 * have.
 */
function dropBeforeWrite(u: CopyUpContext, at: Place, before: number, left: number): Result {
  const { fd, name } = at
  let result = removeCapability(u, at)
  if (result < 0) return result
  if (left === before) return 0
  if (!u.override || u.upper === null) return chmod(fd, name, left)
  result = statPlace(at, u.st)
  if (result >= 0) result = applyOverride(u.upper, fd, name, u.st)
  return result < 0 ? result : writeOverrideMode(u.upper, fd, name, u.st, left)
}

/**
 * Sets owner and mode of an object that keeps them in an xattr.
 *
 * @param killFor the caller if the set-id bits and the capability are dropped, or null
 */
function changeOwner(
  u: CopyUpContext,
  upper: Layer,
  node: Node,
  at: Place,
  set: SetAttr,
  killFor: Caller | null,
): Result {
  const { fd, name } = at
  const { valid } = set
  const st = u.st
  let result = statPlace(at, st)
  if (result >= 0) result = applyOverride(upper, fd, name, st)
  if (result < 0) return result
  let mode = st.mode
  if ((valid & V.MODE) !== 0) {
    if (node.type === S_IFLNK) return -E.EOPNOTSUPP
    mode = (mode & S_IFMT) | (set.mode & 0o7777)
  } else if (killFor !== null && !node.isDir) mode = modeAfterChange(u, st, killFor)
  const uid = (valid & V.UID) === 0 ? UNMAPPED : (u.idmap?.uids.toDisk(set.uid) ?? set.uid)
  const gid = (valid & V.GID) === 0 ? UNMAPPED : (u.idmap?.gids.toDisk(set.gid) ?? set.gid)
  result = killFor !== null ? dropCapability(upper, fd, name) : 0
  if (result < 0) return result
  return writeOverrideOwner(upper, fd, name, st, {
    uid: uid === UNMAPPED ? st.uid : uid,
    gid: gid === UNMAPPED ? st.gid : gid,
    mode,
  })
}

function setTimes(fd: number, name: ByteString, set: SetAttr): Result {
  const { valid } = set
  if ((valid & (V.ATIME | V.MTIME)) !== 0) {
    const atime =
      (valid & V.ATIME) === 0 ? UTIME_OMIT : (valid & V.ATIME_NOW) !== 0 ? UTIME_NOW : set.atimeNsec
    const mtime =
      (valid & V.MTIME) === 0 ? UTIME_OMIT : (valid & V.MTIME_NOW) !== 0 ? UTIME_NOW : set.mtimeNsec
    return utimensat(fd, name, set.atimeSec, atime, set.mtimeSec, mtime)
  }
  return 0
}

/** @param uid the id in the union, or -1: unchanged. `gid` likewise */
function chown(u: CopyUpContext, fd: number, name: string, uid: number, gid: number): Result {
  const { idmap } = u
  const diskUid = idmap === null || uid === -1 ? uid : idmap.uids.toDisk(uid)
  const diskGid = idmap === null || gid === -1 ? gid : idmap.gids.toDisk(gid)
  const result = fchownat(fd, name, diskUid, diskGid)
  return result < 0 && idmap?.squashes === true && isChownRefusal(result) ? 0 : result
}

function chmod(fd: number, name: string, mode: number): Result {
  return fchmodat(fd, name, mode & 0o7777)
}

/**
 * Changes the size of the real file.
 *
 * @param writableFd a descriptor open for writing, or -1
 */
function truncate(
  u: CopyUpContext,
  at: Place,
  writableFd: number,
  size: Off,
  keepTime: boolean,
): Result {
  const { fd, name } = at
  const stated = !keepTime ? 0 : statxat(fd, name, u.st)
  if (stated < 0) return stated
  const { atimeSec, atimeNsec, mtimeSec, mtimeNsec } = u.st
  let result = writableFd >= 0 ? ftruncate(writableFd, size) : truncateat(fd, name, size)
  if (result === -E.EACCES)
    result = withOwnerAccess(fd, name, OWNER_WRITE, () => truncateat(fd, name, size))
  result = orPending(u, result)
  if (!keepTime || result < 0) return result
  // A failure to restore the times is only logged: the file is already truncated, and the kernel
  // sends the mtime itself.
  const timed = utimensat(fd, name, atimeSec, atimeNsec, mtimeSec, mtimeNsec)
  if (timed < 0) u.log.debug({ errno: -timed }, 'best effort: cannot restore the times of a file')
  return result
}

/** A descriptor with which a job thread truncates the file; or -errno. */
function fdToTruncate(u: CopyUpContext, { fd, name }: Place, writableFd: number): Result {
  if (writableFd >= 0) return dup(writableFd)
  const own = openToTruncate(fd, name)
  if (own !== -E.EACCES) return orPending(u, own)
  return orPending(
    u,
    withOwnerAccess(fd, name, OWNER_WRITE, () => openToTruncate(fd, name)),
  )
}

function openForFlags(u: CopyUpContext, node: Node): Result {
  if (!node.isDir && !node.isReg) return -E.ENOTTY
  const result = locate(u, node, place)
  if (result < 0) return result
  const { fd, name } = place
  if (node.isDir) return openat(fd, name || '.', O_RDONLY | O_DIRECTORY)
  return orPending(u, openRegular(fd, name, O_RDONLY, node))
}

const VIRTUAL_FLAGS = FS_IMMUTABLE_FL | FS_APPEND_FL

/**
 * FS_IOC_GETFLAGS: the flags of the real inode, with the union's own immutable and append-only
 * flags (kernel: ovl_fileattr_get).
 *
 * @throws Pending while another process holds a lease on the file
 */
export function getFlags(u: CopyUpContext, node: Node): Result {
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
 * FS_IOC_SETFLAGS. The immutable and append-only flags are stored in `overlay.protattr` and never
 * set on the real inode, because the union must be able to remove it (kernel: ovl_fileattr_set).
 *
 * @throws Pending if a large file must be copied up first, or while another process holds a lease
 *   on the file
 */
export function setFlags(u: CopyUpContext, node: Node, flags: number): Result {
  if (isReadOnly(u)) return -E.EROFS
  throwIfBusy(node)
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
  // The ctime has changed. New attributes also make the kernel ask for the capability before the
  // next write, which S_NOSEC would otherwise skip.
  invalidateAttrs(u, node)
  node.protect = protect
  return 0
}

const fs = new StatFs()

export function statfs(u: CopyUpContext, out: StatFsOut): Result {
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
