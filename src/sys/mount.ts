/**
 * mount(2) and umount2(2). Rare: strings are passed as they are.
 */

import { toByteString } from './at.js'
import { AT_EMPTY_PATH, AT_FDCWD, O_CLOEXEC } from './constants.js'
import * as c from './libc.js'
import { fail, NR, rawAddress } from './libc.js'
import { emptyName, nameA, nameB, put64, putA, putB, words } from './scratch.js'
import { E } from './errno.js'
import type { ByteString, Result } from './types.js'

export type { Result } from './types.js'

/** The kernel copies one page of mount data. */
const DATA_MAX = 4096

/**
 * mount(2) with MS_* flags. `source`, `target` and `fstype` are UTF-8 strings, `data` is the file
 * system's options as bytes; at most 4095 of them, else -E2BIG.
 */
export const mount = (
  source: string | null,
  target: string,
  fstype: string | null,
  flags: number,
  data: ByteString = '',
): Result => {
  if (data.length >= DATA_MAX) return -E.E2BIG
  // A whole page: the kernel reads that much.
  const page = Buffer.alloc(DATA_MAX)
  page.latin1Write(data, 0)
  return c.mount(source, target, fstype, flags, rawAddress(page)) < 0 ? fail() : 0
}

/** umount2(2) with MNT_DETACH, UMOUNT_NOFOLLOW. */
export const umount = (target: string, flags = 0): Result =>
  c.umount2(target, flags) < 0 ? fail() : 0

/**
 * umount2(2) on a thread of koffi's: unmounting a FUSE file system may wait for its server, and must
 * not block the thread which is to answer.
 */
export const umountAsync = (target: string, flags = 0): Promise<Result> =>
  new Promise((resolve, reject) => {
    c.umount2.async(target, flags, (err, r) => {
      if (err) reject(err)
      // koffi hands the other thread's errno over for the length of this callback.
      else resolve(r < 0 ? fail() : 0)
    })
  })

/**
 * Whether this process may mount in its mount namespace: CAP_SYS_ADMIN must count in the user namespace that
 * owns it, which the capability sets alone do not say. fsopen(2) asks for that first and dislikes its flags
 * after. undefined: the kernel has no fsopen(2) (before 5.2).
 */
export const mayMount = (): boolean | undefined => {
  if (c.syscall3(NR.fsopen, emptyName, 0x7fff_ffff, 0) >= 0) return true // it never succeeds
  const failed = fail()
  return failed === -E.ENOSYS ? undefined : failed === -E.EINVAL
}

const OPEN_TREE_CLONE = 1
const MOUNT_ATTR_RDONLY = 0x01

/**
 * A private, read-only mount of the folder `path` (UTF-8), without the mounts below it: open_tree(2) with
 * OPEN_TREE_CLONE, then mount_setattr(2). It belongs to the descriptor alone, an O_PATH one, and goes
 * with the last descriptor opened through it. What is done through it cannot write, whatever the caller's
 * rights, nor moves an access time (kernel overlayfs: clone_private_mount). NOATIME would add nothing to
 * that, and is refused in a user namespace, where the flags of mounts from outside are locked.
 *
 * Needs CAP_SYS_ADMIN, in the user namespace that owns the mounts, and Linux 5.12: -EPERM, -ENOSYS.
 */
export const clonePrivate = (path: string): Result => {
  if (!putA(toByteString(path))) return -E.ENAMETOOLONG
  const fd = c.syscall3(NR.openTree, AT_FDCWD, nameA, OPEN_TREE_CLONE | O_CLOEXEC)
  if (fd < 0) return fail()
  // struct mount_attr: attr_set, attr_clr, propagation, userns_fd
  put64(0, MOUNT_ATTR_RDONLY)
  put64(2, 0)
  put64(4, 0)
  put64(6, 0)
  if (c.syscall5(NR.mountSetattr, fd, emptyName, AT_EMPTY_PATH, words, 32) >= 0) return fd
  const failed = fail()
  c.close(fd)
  return failed
}

const FSOPEN_CLOEXEC = 1
const FSMOUNT_CLOEXEC = 1
const FSCONFIG_SET_STRING = 1
const FSCONFIG_CMD_CREATE = 6

/**
 * A descriptor of the root of a new tmpfs that is mounted nowhere, and goes with the last descriptor in it:
 * fsopen(2), fsconfig(2), fsmount(2). `size` is what it holds at most, as tmpfs' option of that name.
 *
 * Needs CAP_SYS_ADMIN over the mount namespace, and Linux 5.2: -EPERM, -ENOSYS.
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
