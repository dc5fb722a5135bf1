/** mount(2), umount2(2) and related calls. They are rare, so koffi converts the strings. */

import { toByteString } from './at.js'
import {
  AT_EMPTY_PATH,
  AT_FDCWD,
  MS_NOATIME,
  MS_NODIRATIME,
  MS_PRIVATE,
  MS_STRICTATIME,
  O_CLOEXEC,
} from './constants.js'
import * as c from './libc.js'
import { fail, NR, rawAddress } from './libc.js'
import { emptyName, nameA, nameB, put64, putA, putB, words } from './scratch.js'
import { E } from './errno.js'
import type { ByteString, Result } from './types.js'

export type { Result } from './types.js'

/** The kernel copies one page of mount data. */
const DATA_MAX = 4096

/**
 * mount(2) with MS_* flags. `source`, `target` and `fstype` are UTF-8 strings. `data` has the
 * filesystem's options as bytes. -E2BIG: they are longer than 4095 bytes.
 */
export const mount = (
  source: string | null,
  target: string,
  fstype: string | null,
  flags: number,
  data: ByteString = '',
): Result => {
  if (data.length >= DATA_MAX) return -E.E2BIG
  // The kernel reads a whole page.
  const page = Buffer.alloc(DATA_MAX)
  page.latin1Write(data, 0)
  return c.mount(source, target, fstype, flags, rawAddress(page)) < 0 ? fail() : 0
}

/** umount2(2) with MNT_DETACH, UMOUNT_NOFOLLOW. */
export const umount = (target: string, flags = 0): Result =>
  c.umount2(target, flags) < 0 ? fail() : 0

/**
 * umount2(2) on a thread of koffi's. Unmounting a FUSE filesystem may wait for its server, so it
 * must not block the thread that serves it.
 */
export const umountAsync = (target: string, flags = 0): Promise<Result> =>
  new Promise((resolve, reject) => {
    c.umount2.async(target, flags, (err, r) => {
      if (err) reject(err)
      // koffi passes the other thread's errno on during this callback.
      else resolve(r < 0 ? fail() : 0)
    })
  })

/**
 * Whether this process may mount in its mount namespace. The capability sets do not tell:
 * CAP_SYS_ADMIN must be valid in the user namespace that owns the mount namespace. fsopen(2) checks
 * that first (EPERM), and refuses the invalid flags afterwards (EINVAL). undefined: the kernel has
 * no fsopen(2) (before 5.2).
 */
export const mayMount = (): boolean | undefined => {
  if (c.syscall3(NR.fsopen, emptyName, 0x7fff_ffff, 0) >= 0) return true // never happens
  const failed = fail()
  return failed === -E.ENOSYS ? undefined : failed === -E.EINVAL
}

const OPEN_TREE_CLONE = 1
const MOUNT_ATTR_RDONLY = 0x01
/**
 * Together with MOUNT_ATTR_NODIRATIME all bits of a mount's atime mode. The value 0 of these bits
 * is relatime.
 */
const MOUNT_ATTR_ATIME = 0x70
const MOUNT_ATTR_NOATIME = 0x10
const MOUNT_ATTR_STRICTATIME = 0x20
const MOUNT_ATTR_NODIRATIME = 0x80

/**
 * Creates a private mount of a directory, without the mounts below it: open_tree(2) with
 * OPEN_TREE_CLONE, then mount_setattr(2). It exists only through the returned O_PATH descriptor,
 * and ends with the last descriptor that was opened through it. Mounts made elsewhere do not
 * propagate into it (kernel overlayfs: clone_private_mount).
 *
 * Needs Linux 5.12 (-ENOSYS) and CAP_SYS_ADMIN in the user namespace that owns the mounts (-EPERM).
 * -EINVAL: the mount may not be cloned, or not without the mounts below the directory.
 *
 * @param name the address of the directory's name
 */
const cloneMount = (dirfd: number, name: number, set: number, clear: number): Result => {
  const how = OPEN_TREE_CLONE | O_CLOEXEC | (name === emptyName ? AT_EMPTY_PATH : 0)
  const fd = c.syscall3(NR.openTree, dirfd, name, how)
  if (fd < 0) return fail()
  // struct mount_attr: attr_set, attr_clr, propagation, userns_fd
  put64(0, set)
  put64(2, clear)
  put64(4, MS_PRIVATE)
  put64(6, 0)
  if (c.syscall5(NR.mountSetattr, fd, emptyName, AT_EMPTY_PATH, words, 32) >= 0) return fd
  const failed = fail()
  c.close(fd)
  return failed
}

/**
 * Creates a private, read-only mount of the directory `path` (UTF-8). Accesses through it can
 * neither write nor update an access time, regardless of the caller's rights. NOATIME would add
 * nothing, and fails in a user namespace, where the flags of outer mounts are locked.
 *
 * @returns as `cloneMount`
 */
export const clonePrivate = (path: string): Result =>
  putA(toByteString(path)) ? cloneMount(AT_FDCWD, nameA, MOUNT_ATTR_RDONLY, 0) : -E.ENAMETOOLONG

/**
 * Creates a private mount of a descriptor's directory, which is writable if that directory's mount
 * is. Its atime mode follows the MS_* flags rather than that mount (kernel: path_mount,
 * ovl_get_upper).
 *
 * @param flags undefined: keep the atime mode of that mount
 * @returns as `cloneMount`. -EPERM also if the flags are locked: in a user namespace, for outer
 *   mounts
 */
export const cloneWritable = (fd: number, flags?: number): Result => {
  if (flags === undefined) return cloneMount(fd, emptyName, 0, 0)
  const atime = isStrict(flags)
    ? MOUNT_ATTR_STRICTATIME
    : (flags & MS_NOATIME) !== 0
      ? MOUNT_ATTR_NOATIME
      : 0
  const dirs = (flags & MS_NODIRATIME) !== 0 ? MOUNT_ATTR_NODIRATIME : 0
  return cloneMount(fd, emptyName, atime | dirs, MOUNT_ATTR_ATIME | MOUNT_ATTR_NODIRATIME)
}

/** Whether every read updates the access time. */
export const isStrict = (flags: number): boolean => (flags & MS_STRICTATIME) !== 0

const FSOPEN_CLOEXEC = 1
const FSMOUNT_CLOEXEC = 1
const FSCONFIG_SET_STRING = 1
const FSCONFIG_CMD_CREATE = 6

/**
 * Creates a tmpfs that is not attached to any directory, with fsopen(2), fsconfig(2) and
 * fsmount(2). Returns a descriptor of its root. The tmpfs ends with the last descriptor in it.
 * `size` is its maximum size, in the syntax of tmpfs' option.
 *
 * Needs Linux 5.2 (-ENOSYS) and CAP_SYS_ADMIN over the mount namespace (-EPERM).
 */
export const openTmpfs = (size: string): Result => {
  putA('tmpfs')
  const context = c.syscall3(NR.fsopen, nameA, FSOPEN_CLOEXEC, 0)
  if (context < 0) return fail()
  putA('size')
  putB(size)
  let result = c.syscall5(NR.fsconfig, context, FSCONFIG_SET_STRING, nameA, nameB, 0)
  if (result >= 0) result = c.syscall5(NR.fsconfig, context, FSCONFIG_CMD_CREATE, 0, 0, 0)
  if (result >= 0) result = c.syscall3(NR.fsmount, context, FSMOUNT_CLOEXEC, 0)
  const failed = result < 0 ? fail() : 0
  c.close(context)
  return failed < 0 ? failed : result
}
