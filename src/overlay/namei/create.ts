/**
 * Creates files, directories, symlinks and special files. If the upper directory has nothing under
 * the name, one system call creates the object in place. Over a whiteout, the object is built in
 * the workdir and renamed into place. Mirrors fs/overlayfs/dir.c:ovl_create_or_link().
 */

import {
  fchmodat,
  fchownat,
  fstatx,
  openat,
  renameat2,
  rmdirat,
  statxat,
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
import { pushCallerIds, createAs, diskIds } from '../owner/credentials.js'
import { ensureUpperDir } from '../copy-up/directory.js'
import { identify } from '../layer/real-identity.js'
import { recordWhiteout } from './remove.js'
import { realFlags, type HandleTable } from '../file/handles.js'
import { createOverridden } from './create-overridden.js'
import { makeDirectory, makeFile, makeSymlink, type NewName, type NewObject } from './new-object.js'
import { RealDir, type Layer } from '../layer/layer.js'
import { applyOverride, chmodOnDisk, diskMode, writeOverride } from '../layer/stat-override.js'
import { Protect, type FileHandle, type Node } from '../inode/node.js'
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
const existing = new Stat()

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
 * Creates an object for a caller in its parent directory.
 *
 * @param st receives the attributes of the new object
 * @returns the new node, or -errno
 */
function createInParent(u: Union, object: NewObject, st: Stat): Node | Result {
  const { parent, name } = object
  const ready = canMapOwner(u, object.caller) ? prepareParent(u, parent, name) : -E.EOVERFLOW
  if (ready < 0) return ready
  const upper = parent.upperDir
  if (upper === null) return -E.EIO
  const inherited = inheritAcl(u, object)
  if (inherited < 0) return inherited
  const dirfd = u.fds.get(upper)
  if (dirfd < 0) return dirfd
  object.dirfd = dirfd
  let result: Result
  if (u.override && u.upper !== null && u.workdir !== null) {
    result = createOverridden(u, u.upper, u.workdir, object)
  } else {
    result = isDotWhiteoutName(name)
      ? -E.EEXIST
      : createAs(u.idmap, object, dirfd, name, object.mode)
    if (result === -E.EEXIST) {
      object.replacesWhiteout = true
      result = createOverWhiteout(u, object)
    }
  }
  if (result < 0) return result
  object.fd = result
  if (!object.replacesWhiteout) finishCreate(u, object)
  let stated = result > 0 ? fstatx(result, st) : statxat(dirfd, name, st)
  if (stated >= 0 && u.override) stated = applyOverride(u.upper, dirfd, name, st)
  if (stated < 0) {
    if (result > 0) close(result)
    undoCreate(u, object)
    return stated
  }
  const node = addNode(u, parent, name, st)
  if (!object.replacesWhiteout) node.lowerPositive = false
  return node
}

/** Reads the default ACL of the parent. Without one, the caller's umask limits the mode. */
function inheritAcl(u: Union, object: NewObject): Result {
  const acl = defaultAcl(u, object.parent)
  if (typeof acl === 'number') return acl
  object.acl = acl
  if (acl === null) object.mode &= ~(object.caller.umask & 0o777)
  return 0
}

/** Removes an object that was just created, because a later step failed. */
export function undoCreate(u: Union, at: NewName): void {
  const { dirfd, name } = at
  const upper = at.parent.upperDir
  const isDir = (at.mode & S_IFMT) === S_IFDIR
  let result: Result = -E.EROFS
  if (at.replacesWhiteout && upper !== null && u.workdir !== null)
    result = recordWhiteout(
      upper,
      name,
      u.workdir.whiteout(dirfd, name, isDir ? 'directory' : 'file'),
      u,
    )
  else if (!at.replacesWhiteout)
    result = isDir ? removeCreatedDirectory(u, dirfd, name) : unlinkat(dirfd, name)
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
 * The steps after an object was created in place. Removes a `.wh.` whiteout of its name, which the
 * object then has replaced.
 */
export function finishCreate(u: Union, at: NewName): void {
  const { parent, name, dirfd } = at
  // Lower layers have nothing under the name. The opaque xattr only saves lookups there, so a
  // failure is ignored (kernel: ovl_create_upper).
  if ((at.mode & S_IFMT) === S_IFDIR && parent.dirs.length > 1) {
    const result = u.xattrs.setOpaque(dirfd, name)
    if (result < 0)
      u.log.debug({ errno: -result }, 'best effort: cannot make a new directory opaque')
  }
  const dotWhiteouts = parent.upperDir?.dotWhiteouts
  if (dotWhiteouts !== undefined && !dotWhiteouts.delete(name)) return
  at.replacesWhiteout = u.workdir?.clearDotWhiteout(dirfd, name) === true
}

/**
 * Builds the object in the workdir and replaces the whiteout in one step (kernel:
 * ovl_create_over_whiteout). An object whose name begins with `.wh.` is created this way too: until
 * it has its xattr, the name would act as a whiteout.
 */
function createOverWhiteout(u: Union, object: NewObject): Result {
  const workdir = u.workdir
  if (workdir === null) return -E.EROFS
  const { name, dirfd, mode, acl } = object
  const isDotName = isDotWhiteoutName(name)
  const stated = statxat(dirfd, name, existing)
  const isFree = isDotName && stated === -E.ENOENT
  if (stated < 0 && !isFree) return stated
  const whiteout = isFree ? 1 : isWhiteout(u.xattrs, dirfd, name, existing, false)
  if (whiteout < 0) return whiteout
  if (whiteout === 0) return isDotName ? -E.EINVAL : -E.EEXIST
  const isDir = (mode & S_IFMT) === S_IFDIR
  const inherited = acl === null || (mode & S_IFMT) === S_IFLNK ? null : applyDefaultAcl(acl, mode)
  const finalMode = inherited === null ? mode : inherited.mode
  const staged = workdir.stage((workFd, temp) => createAs(u.idmap, object, workFd, temp, finalMode))
  if (staged.result < 0) return staged.result
  let result = inheritGroup(u, dirfd, workdir.fd, staged.name, finalMode)
  if (result >= 0 && acl !== null && inherited !== null)
    result = setInheritedAcls(workdir.fd, staged.name, finalMode, acl, inherited)
  if (result >= 0 && isDir) result = u.xattrs.setOpaque(workdir.fd, staged.name)
  if (result >= 0 && isDotName) result = setOrdinary(u, workdir.fd, staged.name)
  if (result >= 0)
    result =
      isDir && !isFree
        ? exchangeWhiteout(dirfd, name, workdir.fd, staged.name)
        : renameat2(workdir.fd, staged.name, dirfd, name, isFree ? RENAME_NOREPLACE : 0)
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

/** @param st the attributes of the new object */
function answer(u: Union, node: Node, st: Stat, out: Entry): Result {
  node.lookups++
  out.nodeId = node.id
  fillAttr(u, node, st, out.attr)
  return 0
}

export function mknod(
  u: Union,
  object: NewObject,
  major: number,
  minor: number,
  out: Entry,
): Result {
  // A caller cannot create a whiteout (kernel: ovl_mknod).
  if ((object.mode & S_IFMT) === S_IFCHR && major === 0 && minor === 0) return -E.EPERM
  object.rdevMajor = major
  object.rdevMinor = minor
  const node = createInParent(u, object, newStat)
  return typeof node === 'number' ? node : answer(u, node, newStat, out)
}

export function mkdir(u: Union, object: NewObject, out: Entry): Result {
  object.make = makeDirectory
  const node = createInParent(u, object, newStat)
  return typeof node === 'number' ? node : answer(u, node, newStat, out)
}

export function symlink(u: Union, object: NewObject, target: ByteString, out: Entry): Result {
  object.make = makeSymlink
  object.target = target
  const node = createInParent(u, object, newStat)
  return typeof node === 'number' ? node : answer(u, node, newStat, out)
}

/**
 * @returns also -ESTALE, without O_EXCL: the kernel does not know the object that has the name
 */
export function create(
  u: Union,
  handles: HandleTable,
  object: NewObject,
  flags: number,
  out: Entry,
  opened: Opened,
): Result {
  const mayWrite = (flags & O_ACCMODE) !== O_RDONLY
  const onlyReads = mayWrite && opensReadOnly(u, object.mode, flags)
  object.make = makeFile
  object.flags = (onlyReads ? O_RDONLY : realFlags(u, flags)) | O_CREAT | O_EXCL
  const node = createInParent(u, object, newStat)
  // The kernel has not checked whether the caller may open the existing object. After -ESTALE it
  // looks the name up and checks.
  if (node === -E.EEXIST && (flags & O_EXCL) === 0) return -E.ESTALE
  if (typeof node === 'number') return node
  const handle = handles.add(node, object.fd, mayWrite)
  handle.onlyReads = onlyReads
  fillOpened(handle, newStat, opened)
  return answer(u, node, newStat, out)
}

/**
 * Whether a new file is opened read-only although the caller may write. With passthrough the kernel
 * writes to the file itself, and accepts a read-only descriptor for this (fuse/device/backing.ts).
 * Not if writes reach the server, because of set-id bits or O_SYNC.
 */
const opensReadOnly = (u: Union, mode: number, flags: number): boolean =>
  u.passthrough && u.readsAll && (mode & 0o6000) === 0 && (flags & O_SYNC) === 0

/** @param st the attributes of the new file */
function fillOpened(handle: FileHandle, st: Stat, out: Opened): void {
  handle.incapable = true
  out.fh = handle.fh
  out.fd = handle.fd
  out.writable = handle.writable
  out.onlyReads = handle.onlyReads
  out.upper = true
  out.stable = true
  out.privileged = (st.mode & 0o6000) !== 0
}

/** O_TMPFILE (kernel: ovl_tmpfile). */
export function tmpfile(
  u: Union,
  handles: HandleTable,
  object: NewObject,
  flags: number,
  out: Entry,
  opened: Opened,
): Result {
  const { parent, caller } = object
  if (isReadOnly(u)) return -E.EROFS
  if (parent.unlinked) return -E.ENOENT
  if ((parent.protect & Protect.IMMUTABLE) !== 0) return -E.EPERM
  if (!canMapOwner(u, caller)) return -E.EOVERFLOW
  const ready = ensureUpperDir(u, parent)
  if (ready < 0) return ready
  const upper = parent.upperDir
  if (upper === null) return -E.EIO
  const inherited = inheritAcl(u, object)
  if (inherited < 0) return inherited
  const dirfd = u.fds.get(upper)
  if (dirfd < 0) return dirfd
  object.dirfd = dirfd
  // O_EXCL forbids that the file is linked later. The real file gets the flag, so linkat(2) on it
  // fails.
  const real = O_TMPFILE | realFlags(u, flags) | (flags & O_EXCL)
  const writable = (real & O_ACCMODE) === O_WRONLY ? real : (real & ~O_ACCMODE) | O_RDWR
  const acting = u.override ? 0 : pushCallerIds(u.idmap, diskIds(u.idmap, caller))
  const onDisk = u.override ? diskMode(object.mode) : object.mode & 0o7777
  const fd = acting < 0 ? acting : openat(dirfd, '.', writable, onDisk)
  if (!u.override) popFsIds()
  if (fd < 0) return fd
  object.fd = fd
  if (u.override && u.upper !== null) {
    const kept = storeTmpfileOwner(u, u.upper, object)
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
  fillOpened(handles.add(node, fd, true), newStat, opened)
  return answer(u, node, newStat, out)
}

/** Writes the override xattr of a file without a name. */
function storeTmpfileOwner(
  u: Union,
  upper: Layer,
  { caller, dirfd, fd, mode: requested, acl }: NewObject,
): Result {
  const inherited = acl === null ? requested : applyDefaultAcl(acl, requested).mode
  const mode = S_IFREG | (inherited & 0o7777)
  let result = fstatx(dirfd, u.st)
  if (result >= 0) result = applyOverride(upper, dirfd, '', u.st)
  if (result < 0) return result
  const { uid, gid } = diskIds(u.idmap, caller)
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
