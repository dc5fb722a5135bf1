/**
 * Creates files, directories, symlinks and special files. If the upper directory has nothing under
 * the name, one system call creates the object in place. Over a whiteout, the object is built in
 * the workdir and renamed into place. Mirrors fs/overlayfs/dir.c:ovl_create_or_link().
 */

import {
  fchmodat,
  fchownat,
  fstatx,
  mkdirat,
  mknodat,
  openat,
  renameat2,
  rmdirat,
  statxat,
  symlinkat,
  unlinkat,
} from '../../sys/at.js'
import {
  O_CREAT,
  O_EXCL,
  O_RDWR,
  O_SYNC,
  O_TMPFILE,
  O_WRONLY,
  O_ACCMODE,
  O_RDONLY,
  RENAME_NOREPLACE,
  S_IFCHR,
  S_IFDIR,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
  S_ISGID,
} from '../../sys/constants.js'
import { E } from '../../sys/errno.js'
import { close, dup } from '../../sys/io.js'
import { popFsIds } from '../../sys/proc.js'
import { Stat } from '../../sys/stat.js'
import { applyDefaultAcl, setInheritedAcls } from '../owner/acl.js'
import { pushCallerIds, createAs, type CreateObject } from '../owner/credentials.js'
import { ensureUpperDir } from '../copy-up/directory.js'
import { identify } from '../layer/real-identity.js'
import { recordWhiteout } from './remove.js'
import { realFlags, type HandleTable } from '../file/handles.js'
import { replacedWhiteout, diskIds, createOverridden } from './create-overridden.js'
import { RealDir, type Layer } from '../layer/layer.js'
import { applyOverride, chmodOnDisk, diskMode, writeOverride } from '../layer/stat-override.js'
import { Protect, type Node } from '../inode/node.js'
import type { ByteString, Caller, Entry, Opened, Result } from '../ops.js'
import { fillAttr } from '../inode/shown-attr.js'
import { isReadOnly } from '../inode/context.js'
import type { Union } from './context.js'
import {
  exchangeWhiteout,
  isDotWhiteoutName,
  isWhiteout,
  setOrdinary,
  allowsDotNames,
} from '../layer/whiteout.js'
import { defaultAcl } from '../file/xattr.js'

const NAME_MAX = 255
const newStat = new Stat()

/** The checks that precede every new name. On success the parent is in the upper layer. */
export function prepareParent(u: Union, parent: Node, name: ByteString): Result {
  if (isReadOnly(u)) return -E.EROFS
  if (name.length > NAME_MAX) return -E.ENAMETOOLONG
  // The name would act as a whiteout of another name.
  if (isDotWhiteoutName(name) && !allowsDotNames(u)) return -E.EINVAL
  if (parent.unlinked) return -E.ENOENT
  if ((parent.protect & Protect.IMMUTABLE) !== 0) return -E.EPERM
  if (parent.children?.has(name) === true) return -E.EEXIST
  return ensureUpperDir(u, parent)
}

/**
 * Creates an object for a caller in the parent directory.
 *
 * @returns the result of `run` (the descriptor, if it opens one), or -errno. `newStat` has the
 *   attributes and `created` the new node
 */
function createInParent(
  u: Union,
  caller: Caller,
  parent: Node,
  name: ByteString,
  mode: number,
  run: CreateObject,
  major = 0,
  minor = 0,
): Result {
  const ready = canMapOwner(u, caller) ? prepareParent(u, parent, name) : -E.EOVERFLOW
  if (ready < 0) return ready
  const upper = parent.upperDir
  if (upper === null) return -E.EIO
  const acl = defaultAcl(u, parent)
  if (typeof acl === 'number') return acl
  const masked = acl === null ? mode & ~(caller.umask & 0o777) : mode
  const fd = u.fds.get(upper)
  if (fd < 0) return fd
  let replacesWhiteout = false
  let result: Result
  if (u.override && u.upper !== null && u.workdir !== null) {
    const wanted = { ...diskIds(u, caller), mode: masked, major, minor, acl }
    result = createOverridden(u, u.upper, u.workdir, caller, fd, name, wanted, run)
    replacesWhiteout = result >= 0 && replacedWhiteout
  } else {
    result = isDotWhiteoutName(name) ? -E.EEXIST : createAs(u.idmap, caller, fd, name, masked, run)
    if (result === -E.EEXIST) {
      replacesWhiteout = true
      result = createOverWhiteout(u, caller, fd, name, masked, acl, run)
    }
  }
  if (result < 0) return result
  if (!replacesWhiteout) replacesWhiteout = finishCreate(u, parent, upper, fd, name, mode)
  let stated = result > 0 ? fstatx(result, newStat) : statxat(fd, name, newStat)
  if (stated >= 0 && u.override) stated = applyOverride(u.upper, fd, name, newStat)
  if (stated < 0) {
    if (result > 0) close(result)
    undoCreate(u, upper, fd, name, (mode & S_IFMT) === S_IFDIR, replacesWhiteout)
    return stated
  }
  created = addNode(u, parent, name, newStat)
  if (!replacesWhiteout) created.lowerPositive = false
  return result
}

let created: Node

/**
 * Removes an object that was just created, because a later step failed.
 *
 * @param replacesWhiteout the object replaced a whiteout
 */
export function undoCreate(
  u: Union,
  upper: RealDir,
  fd: number,
  name: ByteString,
  isDir: boolean,
  replacesWhiteout: boolean,
): void {
  let result: Result = -E.EROFS
  if (replacesWhiteout && u.workdir !== null)
    result = recordWhiteout(
      upper,
      name,
      u.workdir.whiteout(fd, name, isDir ? 'directory' : 'file'),
      u,
    )
  else if (!replacesWhiteout)
    result = isDir ? removeCreatedDirectory(u, fd, name) : unlinkat(fd, name)
  if (result < 0) u.log.warn({ errno: -result }, 'cannot remove an object whose creation failed')
}

/** The directory may contain the file that makes it opaque. */
function removeCreatedDirectory(u: Union, fd: number, name: ByteString): Result {
  const result = rmdirat(fd, name)
  return result === -E.ENOTEMPTY && u.workdir !== null
    ? u.workdir.removeDirectory(fd, name)
    : result
}

/** Whether the caller's ids can be mapped to ids on disk (kernel: may_create). */
function canMapOwner(u: Union, caller: Caller): boolean {
  return u.idmap === null || isReadOnly(u) || u.idmap.canStore(caller)
}

/**
 * The steps after an object was created in place.
 *
 * @returns whether it replaced a `.wh.` whiteout, which is removed
 */
export function finishCreate(
  u: Union,
  parent: Node,
  upper: RealDir,
  fd: number,
  name: ByteString,
  mode: number,
): boolean {
  // Lower layers have nothing under the name. The opaque xattr only saves lookups there, so a
  // failure is ignored (kernel: ovl_create_upper).
  if ((mode & S_IFMT) === S_IFDIR && parent.dirs.length > 1) {
    const result = u.xattrs.setOpaque(fd, name)
    if (result < 0)
      u.log.debug({ errno: -result }, 'best effort: cannot make a new directory opaque')
  }
  if (upper.dotWhiteouts !== undefined && !upper.dotWhiteouts.delete(name)) return false
  return u.workdir?.clearDotWhiteout(fd, name) === true
}

/**
 * Builds the object in the workdir and replaces the whiteout in one step (kernel:
 * ovl_create_over_whiteout). An object whose name begins with `.wh.` is created this way too: until
 * it has its xattr, the name would act as a whiteout.
 */
function createOverWhiteout(
  u: Union,
  caller: Caller,
  fd: number,
  name: ByteString,
  mode: number,
  acl: Buffer | null,
  run: CreateObject,
): Result {
  const workdir = u.workdir
  if (workdir === null) return -E.EROFS
  const isDotName = isDotWhiteoutName(name)
  const stated = statxat(fd, name, newStat)
  const isFree = isDotName && stated === -E.ENOENT
  if (stated < 0 && !isFree) return stated
  const whiteout = isFree ? 1 : isWhiteout(u.xattrs, fd, name, newStat, false)
  if (whiteout < 0) return whiteout
  if (whiteout === 0) return isDotName ? -E.EINVAL : -E.EEXIST
  const isDir = (mode & S_IFMT) === S_IFDIR
  const inherited = acl === null || (mode & S_IFMT) === S_IFLNK ? null : applyDefaultAcl(acl, mode)
  const finalMode = inherited === null ? mode : inherited.mode
  const staged = workdir.stage((workFd, temp) =>
    createAs(u.idmap, caller, workFd, temp, finalMode, run),
  )
  if (staged.result < 0) return staged.result
  let result = inheritGroup(u, fd, workdir.fd, staged.name, finalMode)
  if (result >= 0 && acl !== null && inherited !== null)
    result = setInheritedAcls(workdir.fd, staged.name, finalMode, acl, inherited)
  if (result >= 0 && isDir) result = u.xattrs.setOpaque(workdir.fd, staged.name)
  if (result >= 0 && isDotName) result = setOrdinary(u, workdir.fd, staged.name)
  if (result >= 0)
    result =
      isDir && !isFree
        ? exchangeWhiteout(fd, name, workdir.fd, staged.name)
        : renameat2(workdir.fd, staged.name, fd, name, isFree ? RENAME_NOREPLACE : 0)
  if (result < 0 || (isDir && !isFree)) workdir.discard(staged.name)
  if (result < 0 && staged.result > 0) close(staged.result)
  return result < 0 ? result : staged.result
}

/**
 * A set-group-id directory passes on its group, and to directories also the bit (kernel:
 * inode_init_owner).
 */
function inheritGroup(
  u: Union,
  parentFd: number,
  fd: number,
  name: ByteString,
  mode: number,
): Result {
  const result = fstatx(parentFd, u.st)
  if (result < 0 || (u.st.mode & S_ISGID) === 0) return result
  const owned = fchownat(fd, name, -1, u.st.gid)
  if (owned < 0 || (mode & S_IFMT) === S_IFLNK) return owned
  const bits = (mode & 0o7777) | ((mode & S_IFMT) === S_IFDIR ? S_ISGID : 0)
  return fchmodat(fd, name, bits)
}

/** Creates the node of an object that was just created in the upper layer. */
function addNode(u: Union, parent: Node, name: ByteString, st: Stat): Node {
  let dirs: RealDir[] | undefined
  if (st.isDir && parent.upperDir !== null) {
    const dir = new RealDir(parent.upperDir.layer, parent.upperDir, name)
    identify(dir, st, dir.layer)
    dir.dotWhiteouts = new Set()
    dirs = [dir]
  }
  const node = u.nodes.create(st.mode, st.ino, dirs)
  if (dirs === undefined) identify(node, st, u.upper)
  node.upper = true
  u.nodes.addName(node, parent, name, true)
  return node
}

function answer(u: Union, node: Node, out: Entry): Result {
  node.lookups++
  out.nodeId = node.id
  fillAttr(u, node, newStat, out.attr)
  return 0
}

// The parameters of the creation are module variables, because V8 discards the code that it
// compiled for a closure (real-dir.ts).
let deviceMajor = 0
let deviceMinor = 0
const createDevice: CreateObject = (fd, at, mode) => mknodat(fd, at, mode, deviceMajor, deviceMinor)

export function mknod(
  u: Union,
  caller: Caller,
  parent: Node,
  name: ByteString,
  mode: number,
  major: number,
  minor: number,
  out: Entry,
): Result {
  // A caller cannot create a whiteout (kernel: ovl_mknod).
  if ((mode & S_IFMT) === S_IFCHR && major === 0 && minor === 0) return -E.EPERM
  deviceMajor = major
  deviceMinor = minor
  const result = createInParent(u, caller, parent, name, mode, createDevice, major, minor)
  return result < 0 ? result : answer(u, created, out)
}

const createDirectory: CreateObject = (fd, at, mode) => mkdirat(fd, at, mode & 0o7777)

export function mkdir(
  u: Union,
  caller: Caller,
  parent: Node,
  name: ByteString,
  mode: number,
  out: Entry,
): Result {
  const full = S_IFDIR | (mode & 0o7777)
  const result = createInParent(u, caller, parent, name, full, createDirectory)
  return result < 0 ? result : answer(u, created, out)
}

let linkTarget: ByteString = ''
const createSymlink: CreateObject = (fd, at) => symlinkat(linkTarget, fd, at)

export function symlink(
  u: Union,
  caller: Caller,
  parent: Node,
  name: ByteString,
  target: ByteString,
  out: Entry,
): Result {
  linkTarget = target
  const result = createInParent(u, caller, parent, name, S_IFLNK | 0o777, createSymlink)
  return result < 0 ? result : answer(u, created, out)
}

/** The open flags of the file that is being created. */
let fileFlags = 0
const createFile: CreateObject = (fd, at, mode) => openat(fd, at, fileFlags, mode & 0o7777)

/**
 * @returns also -ESTALE, without O_EXCL: the kernel does not know the object that has the name
 */
export function create(
  u: Union,
  handles: HandleTable,
  caller: Caller,
  parent: Node,
  name: ByteString,
  mode: number,
  flags: number,
  out: Entry,
  opened: Opened,
): Result {
  const mayWrite = (flags & O_ACCMODE) !== O_RDONLY
  const onlyReads = mayWrite && opensReadOnly(u, mode, flags)
  fileFlags = (onlyReads ? O_RDONLY : realFlags(u, flags)) | O_CREAT | O_EXCL
  const fd = createInParent(u, caller, parent, name, S_IFREG | (mode & 0o7777), createFile)
  // The kernel has not checked whether the caller may open the existing object. After -ESTALE it
  // looks the name up and checks.
  if (fd === -E.EEXIST && (flags & O_EXCL) === 0) return -E.ESTALE
  if (fd < 0) return fd
  fillOpened(handles, created, fd, mayWrite, onlyReads, opened)
  return answer(u, created, out)
}

/**
 * Whether a new file is opened read-only although the caller may write. With passthrough the kernel
 * writes to the file itself, and accepts a read-only descriptor for this (fuse/device/backing.ts).
 * Not if writes reach the server, because of set-id bits or O_SYNC.
 */
const opensReadOnly = (u: Union, mode: number, flags: number): boolean =>
  u.passthrough && u.readsAll && (mode & 0o6000) === 0 && (flags & O_SYNC) === 0

function fillOpened(
  handles: HandleTable,
  node: Node,
  fd: number,
  writable: boolean,
  onlyReads: boolean,
  out: Opened,
): void {
  const handle = handles.add(node, fd, writable)
  handle.onlyReads = onlyReads
  handle.incapable = true
  out.fh = handle.fh
  out.fd = fd
  out.writable = writable
  out.onlyReads = onlyReads
  out.upper = true
  out.stable = true
  out.privileged = (newStat.mode & 0o6000) !== 0
}

/** O_TMPFILE (kernel: ovl_tmpfile). */
export function tmpfile(
  u: Union,
  handles: HandleTable,
  caller: Caller,
  parent: Node,
  mode: number,
  flags: number,
  out: Entry,
  opened: Opened,
): Result {
  if (isReadOnly(u)) return -E.EROFS
  if (parent.unlinked) return -E.ENOENT
  if ((parent.protect & Protect.IMMUTABLE) !== 0) return -E.EPERM
  if (!canMapOwner(u, caller)) return -E.EOVERFLOW
  const ready = ensureUpperDir(u, parent)
  if (ready < 0) return ready
  const upper = parent.upperDir
  if (upper === null) return -E.EIO
  const acl = defaultAcl(u, parent)
  if (typeof acl === 'number') return acl
  const masked = acl === null ? mode & ~(caller.umask & 0o777) : mode
  const dirfd = u.fds.get(upper)
  if (dirfd < 0) return dirfd
  // O_EXCL forbids that the file is linked later. The real file gets the flag, so linkat(2) on it
  // fails.
  const real = O_TMPFILE | realFlags(u, flags) | (flags & O_EXCL)
  const writable = (real & O_ACCMODE) === O_WRONLY ? real : (real & ~O_ACCMODE) | O_RDWR
  const acting = u.override ? 0 : pushCallerIds(u.idmap, caller)
  const onDisk = u.override ? diskMode(masked | S_IFREG) : masked & 0o7777
  const fd = acting < 0 ? acting : openat(dirfd, '.', writable, onDisk)
  if (!u.override) popFsIds()
  if (fd < 0) return fd
  if (u.override && u.upper !== null) {
    const full = acl === null ? masked : applyDefaultAcl(acl, masked).mode
    const kept = storeTmpfileOwner(u, u.upper, caller, dirfd, fd, S_IFREG | (full & 0o7777))
    if (kept < 0) {
      close(fd)
      return kept
    }
  }
  const orphanFd = dup(fd)
  let stated = orphanFd < 0 ? orphanFd : fstatx(fd, newStat)
  if (stated >= 0 && u.override) stated = applyOverride(u.upper, fd, '', newStat)
  if (stated < 0) {
    if (orphanFd >= 0) close(orphanFd)
    close(fd)
    return stated
  }
  const node = u.nodes.create(S_IFREG, newStat.ino)
  identify(node, newStat, u.upper)
  node.upper = true
  node.unlinked = true
  node.orphanFd = orphanFd
  fillOpened(handles, node, fd, true, false, opened)
  return answer(u, node, out)
}

/**
 * Writes the override xattr of a file without a name. `dirfd` is the directory of the O_TMPFILE
 * open.
 */
function storeTmpfileOwner(
  u: Union,
  upper: Layer,
  caller: Caller,
  dirfd: number,
  fd: number,
  mode: number,
): Result {
  let result = fstatx(dirfd, u.st)
  if (result >= 0) result = applyOverride(upper, dirfd, '', u.st)
  if (result < 0) return result
  const { uid, gid } = diskIds(u, caller)
  result = writeOverride(upper, fd, '', {
    uid,
    gid: (u.st.mode & S_ISGID) === 0 ? gid : u.st.gid,
    mode,
    rdevMajor: 0,
    rdevMinor: 0,
  })
  // The directory's default ACL may have granted write permission to others.
  if (result >= 0) result = chmodOnDisk(fd, '', mode)
  return result
}
