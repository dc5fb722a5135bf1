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
import { openToCut, truncateat } from '../../sys/truncate.js'
import type { Off } from '../../sys/types.js'
import { invalidateAttrs } from '../inode/invalidate.js'
import { copyUp } from '../copy-up/copy-up.js'
import { cutInBackground, freesMuch } from './truncate.js'
import {
  BareSetattr,
  checkChown,
  isBareSetattr,
  modeAfterChange,
  statPlace,
  classifyBareSetattr,
} from '../inode/drop-privileges.js'
import type { FileHandle } from '../inode/node.js'
import { openHandle, settle, statOpen, writersFd, type HandleTable } from './handles.js'
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
import { openRegular, orPending, reopenRegular } from '../layer/open-regular.js'
import { fillAttr } from '../inode/shown-attr.js'
import { Place } from '../inode/place.js'
import { identifyAgain, locate, statAt, statNode } from '../inode/real-object.js'
import { isReadOnly } from '../inode/context.js'
import type { CopyUpContext } from '../copy-up/context.js'
import { forgetVersion, rememberVersion } from '../inode/lower-version.js'
import { pin, unpin } from '../inode/pin.js'

const place = new Place()

export function getattr(
  u: CopyUpContext,
  handles: HandleTable,
  node: Node,
  fh: Fh,
  out: Attr,
): Result {
  const result = statOpen(u, handles, node, fh, u.st)
  return result < 0 ? result : tell(u, node, out)
}

/** Tells the attributes that are in `u.st`. */
function tell(u: CopyUpContext, node: Node, out: Attr): Result {
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

/** @throws Pending where a large file must be copied up first, or is cut */
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
  if (bringsNothing(u, node, set)) return getattr(u, handles, node, set.fh, out)
  if (node.protect !== 0 && !allowedOnProtected(u, node, set)) return -E.EPERM
  // Before anything is copied up for it (kernel: notify_change).
  if (u.idmap !== null && !canOwn(u.idmap, set)) return -E.EOVERFLOW
  const taken = whatIsTaken(u, handles, node, set, caller)
  if (typeof taken === 'number') return taken
  // The VFS asks for no such thing; opening a FIFO for it would wait for ever.
  if ((valid & V.SIZE) !== 0 && !node.isReg) return node.isDir ? -E.EISDIR : -E.EINVAL
  const emptied = (valid & V.SIZE) !== 0 && set.size === 0
  const copiesEmpty = emptied && !node.upper
  const copied = copyUp(u, node, !emptied)
  if (copied < 0) return copied
  if ((valid & (V.SIZE | V.MTIME)) !== 0) forgetVersion(node)
  // Before other times are set than those of what has yet to come.
  if ((valid & (V.MTIME | V.SIZE)) === V.MTIME && !u.writeback) settle(u, node)
  const handle = (valid & V.FH) !== 0 ? handles.get(set.fh) : undefined
  let result = find(u, node, valid, handle)
  // The copy is empty from the start: what is left is tried once more.
  if (result < 0 && copiesEmpty) result = find(u, node, valid, handle)
  if (result < 0) return result
  try {
    result = apply(u, node, set, taken, caller, handle)
    if (result < 0 && copiesEmpty) result = apply(u, node, set, taken, caller, handle)
    if (result < 0) return result
    result = statAt(u, node, place, u.st)
    // It is done, and an error would say that it is not: attributes that can't be read now are
    // asked for once more.
    if (result < 0) result = statAt(u, node, place, u.st)
    if (result < 0) return result
    identifyAgain(u, node, u.st)
    return tell(u, node, out)
  } finally {
    unpin(place)
  }
}

/** Whether the owner that is to be set has an id on disk. */
function canOwn(idmap: Idmap, { valid, uid, gid }: SetAttr): boolean {
  if (idmap.squashes) return true
  if ((valid & V.UID) !== 0 && idmap.uids.toDisk(uid) === UNMAPPED) return false
  return (valid & V.GID) === 0 || idmap.gids.toDisk(gid) !== UNMAPPED
}

/** What the kernel's write-back sends, through a handle (fs/fuse/inode.c:fuse_flush_times). */
const WRITTEN_BACK = V.FH | V.MTIME | V.CTIME

/**
 * Whether the kernel's write-back brings no other time than there is: of a lower file only the time
 * of the last change of its inode can be new, by the removal of a name above all. Nothing is copied
 * up for that.
 */
function bringsNothing(u: CopyUpContext, node: Node, set: SetAttr): boolean {
  if (!u.writeback || node.upper || (set.valid | V.FH) !== WRITTEN_BACK) return false
  if (statNode(u, node, u.st) < 0) return false
  return u.st.mtimeSec === set.mtimeSec && u.st.mtimeNsec === set.mtimeNsec
}

/**
 * What an immutable or append-only file still lets be changed (kernel: may_setattr): set-id bits
 * are dropped; times that the kernel's write-back brings are only what a write did before.
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
  // A new size comes with the time of the change.
  if (times !== 0 && !touch && !resized) return false
  if ((node.protect & Protect.APPEND) !== 0) return !resized
  // Through a descriptor that was open before, an immutable file can be cut.
  return !touch && (!resized || ((valid & V.FH) !== 0 && set.fh !== 0))
}

/** With write-back the kernel sends the time of a touch instead of "now". */
const isAboutNow = (sec: number): boolean => Math.abs(Date.now() / 1000 - sec) < 60

/** Whether a file can be cut through a handle. */
const mayCut = (handle: FileHandle | undefined): handle is FileHandle =>
  handle?.writable === true && !handle.onlyReads

/**
 * Fills `place` with where to change the node's object: a descriptor of it that is open, where that
 * is quicker or the only way. What has another name by now is changed only through a handle that
 * the request names. The caller gives the place to `unpin`.
 */
function find(u: CopyUpContext, node: Node, valid: number, handle: FileHandle | undefined): Result {
  let fd = (valid & V.SIZE) === 0 ? writersFd(node) : mayCut(handle) ? handle.fd : -1
  if (fd < 0) {
    const result = pin(u, node, place)
    if (result >= 0) return result
    const open = openHandle(node, handle)
    if (open === undefined || (result === -E.ESTALE && handle === undefined)) return result
    fd = open.fd
  }
  place.fd = fd
  place.name = ''
  return 0
}

/** What a change takes of set-id bits. */
interface Taken {
  /** One of `BareSetattr`, or -1 for a request that names an attribute. */
  bare: number
  /** The mode before, and the one that is left; the same where nothing goes. */
  before: number
  left: number
}
const NOTHING: Taken = { bare: -1, before: 0, left: 0 }

/** @returns -errno where the caller may not have them taken, and nothing is to be done at all */
function whatIsTaken(
  u: CopyUpContext,
  handles: HandleTable,
  node: Node,
  set: SetAttr,
  caller: Caller,
): Taken | Result {
  const { valid } = set
  const kills = (valid & V.KILL_SUIDGID) !== 0 && (valid & V.MODE) === 0
  if (!kills && !isBareSetattr(valid)) return NOTHING
  const bare = isBareSetattr(valid) ? classifyBareSetattr(u, node, valid, caller) : -1
  let result = statOpen(u, handles, node, set.fh, u.st)
  // A truncation takes them whoever asks; it may well be somebody else's file.
  if (result >= 0 && ((kills && (valid & V.SIZE) === 0) || bare === BareSetattr.CHOWN))
    result = checkChown(u, u.st, caller)
  if (result < 0) return result
  const before = u.st.mode
  return {
    bare,
    before,
    left: bare === BareSetattr.KEEPS ? before : modeAfterChange(u, u.st, caller),
  }
}

function apply(
  u: CopyUpContext,
  node: Node,
  set: SetAttr,
  { bare, before, left }: Taken,
  caller: Caller,
  handle: FileHandle | undefined,
): Result {
  const valid = set.valid
  let result: Result = 0
  const { fd, name } = place
  if ((valid & V.SIZE) !== 0) {
    // Where the kernel keeps the times of written files, it says so if it counts this as a change;
    // if not, the real file must not say otherwise after a remount.
    const keepTime = u.writeback && (valid & V.MTIME) === 0
    result = u.override ? dropCapability(u.upper, fd, name) : 0
    if (result < 0) return result
    const writableFd = mayCut(handle) ? handle.fd : -1
    if (freesMuch(node, place, set.size)) {
      // Whatever becomes of this call, nobody has set-id bits of a file that is cut.
      result = left === before ? 0 : takeBeforeWrite(u, place, before, left)
      if (result >= 0) result = ownToCut(u, place, writableFd)
      return result < 0 ? result : cutInBackground(u, node, result, set.size, keepTime)
    }
    result = truncate(u, place, writableFd, set.size, keepTime)
    if (result < 0) return result
  }
  let done = (valid & V.SIZE) !== 0
  /**
   * What is done before can't be undone, and an error would say that nothing is: it is tried once
   * more.
   */
  const step = (run: () => Result): Result => {
    const first = run()
    const last = first < 0 && done ? run() : first
    done = true
    return last
  }
  if (bare === BareSetattr.KEEPS || bare === BareSetattr.DROPS)
    return step(() => takeBeforeWrite(u, place, before, left))
  const kill = before !== 0
  const { override, upper } = u
  if (override && upper !== null && isOverridden(upper, node.type)) {
    const changing = kill || (valid & (V.MODE | V.UID | V.GID)) !== 0
    // On an inode the kernel itself drops set-id bits when the owner changes.
    const drops = kill || (valid & (V.UID | V.GID)) !== 0
    if (changing) result = step(() => changeOwner(u, upper, node, set, drops, caller))
    return result < 0 ? result : step(() => setTimes(fd, name, set))
  }
  const chowns = (valid & (V.UID | V.GID)) !== 0 || bare === BareSetattr.CHOWN
  if (chowns) {
    const uid = (valid & V.UID) !== 0 ? set.uid : -1
    const gid = (valid & V.GID) !== 0 ? set.gid : -1
    result = step(() => chown(u, fd, name, uid, gid))
    if (result < 0) return result
  }
  // The chown may have taken more, as it was not the caller's.
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
 * Before a change of data: the capability goes, and set-id bits where they are not among what is
 * left.
 */
function takeBeforeWrite(u: CopyUpContext, at: Place, before: number, left: number): Result {
  const { fd, name } = at
  let result = removeCapability(u, at)
  if (result < 0) return result
  if (left === before) return 0
  if (!u.override || u.upper === null) return chmod(fd, name, left)
  result = statPlace(at, u.st)
  if (result >= 0) result = applyOverride(u.upper, fd, name, u.st)
  return result < 0 ? result : writeOverrideMode(u.upper, fd, name, u.st, left)
}

/** Owner and mode of what keeps them in an attribute; the object is at `place`. */
function changeOwner(
  u: CopyUpContext,
  upper: Layer,
  node: Node,
  set: SetAttr,
  kill: boolean,
  caller: Caller,
): Result {
  const { fd, name } = place
  const { valid } = set
  const st = u.st
  let result = statPlace(place, st)
  if (result >= 0) result = applyOverride(upper, fd, name, st)
  if (result < 0) return result
  let mode = st.mode
  if ((valid & V.MODE) !== 0) {
    if (node.type === S_IFLNK) return -E.EOPNOTSUPP
    mode = (mode & S_IFMT) | (set.mode & 0o7777)
  } else if (kill && !node.isDir) mode = modeAfterChange(u, st, caller)
  const uid = (valid & V.UID) === 0 ? UNMAPPED : (u.idmap?.uids.toDisk(set.uid) ?? set.uid)
  const gid = (valid & V.GID) === 0 ? UNMAPPED : (u.idmap?.gids.toDisk(set.gid) ?? set.gid)
  result = kill ? dropCapability(upper, fd, name) : 0
  if (result < 0) return result
  const owner = uid === UNMAPPED ? st.uid : uid
  return writeOverrideOwner(upper, fd, name, st, owner, gid === UNMAPPED ? st.gid : gid, mode)
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

/** @param uid as it is shown, or -1: unchanged. `gid` likewise */
function chown(u: CopyUpContext, fd: number, name: string, uid: number, gid: number): Result {
  const { idmap } = u
  const diskUid = idmap === null || uid === -1 ? uid : idmap.uids.toDisk(uid)
  const diskGid = idmap === null || gid === -1 ? gid : idmap.gids.toDisk(gid)
  const result = name === '' ? fchown(fd, diskUid, diskGid) : fchownat(fd, name, diskUid, diskGid)
  return result < 0 && idmap?.squashes === true && isChownRefusal(result) ? 0 : result
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
  u: CopyUpContext,
  at: Place,
  writableFd: number,
  size: Off,
  keepTime: boolean,
): Result {
  const { fd, name } = at
  const stated = !keepTime ? 0 : name === '' ? fstatx(fd, u.st) : statxat(fd, name, u.st)
  if (stated < 0) return stated
  const { atimeSec, atimeNsec, mtimeSec, mtimeNsec } = u.st
  let result = writableFd >= 0 ? ftruncate(writableFd, size) : truncateat(fd, name, size)
  if (result === -E.EACCES)
    result = withOwnerAccess(fd, name, OWNER_WRITE, () => truncateat(fd, name, size))
  result = orPending(u, result)
  if (!keepTime || result < 0) return result
  // What is cut stays cut: the kernel brings the time of that itself.
  const timed =
    name === ''
      ? futimens(fd, atimeSec, atimeNsec, mtimeSec, mtimeNsec)
      : utimensat(fd, name, atimeSec, atimeNsec, mtimeSec, mtimeNsec)
  if (timed < 0) u.log.debug({ errno: -timed }, 'best effort: cannot restore the times of a file')
  return result
}

/** A descriptor for a thread that cuts the file; or -errno. */
function ownToCut(u: CopyUpContext, { fd, name }: Place, writableFd: number): Result {
  if (writableFd >= 0) return dup(writableFd)
  const own = openToCut(fd, name)
  if (own !== -E.EACCES) return orPending(u, own)
  return orPending(
    u,
    withOwnerAccess(fd, name, OWNER_WRITE, () => openToCut(fd, name)),
  )
}

function openForFlags(u: CopyUpContext, node: Node): Result {
  if (!node.isDir && !node.isReg) return -E.ENOTTY
  const result = locate(u, node, place)
  if (result < 0) return result
  const { fd, name } = place
  if (node.isDir) return openat(fd, name || '.', O_RDONLY | O_DIRECTORY)
  return orPending(
    u,
    name === '' ? reopenRegular(fd, O_RDONLY, node) : openRegular(fd, name, O_RDONLY, node),
  )
}

const VIRTUAL_FLAGS = FS_IMMUTABLE_FL | FS_APPEND_FL

/**
 * FS_IOC_GETFLAGS: the real inode's flags, with the virtual ones (kernel: ovl_fileattr_get).
 *
 * @throws Pending while somebody has a lease on the file
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
 * FS_IOC_SETFLAGS: immutable and append-only are kept in `overlay.protattr`, never set on the real
 * inode, which the union must stay able to remove (kernel: ovl_fileattr_set).
 *
 * @throws Pending where a large file must be copied up first, or somebody has a lease on the file
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
  // The time of this; and new attributes have the kernel ask before the next write, which it may
  // believe that it need not (S_NOSEC).
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
