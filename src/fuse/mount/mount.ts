/**
 * Opens /dev/fuse, mounts it with mount(2) (fs/fuse/inode.c:fuse_parse_param()) or fusermount3, and
 * unmounts it.
 */

import type { MountRequest, MountWay } from './request.js'
import { MountError } from '../../errors.js'
import {
  CAP_SYS_ADMIN,
  MNT_DETACH,
  O_NONBLOCK,
  O_RDWR,
  UMOUNT_NOFOLLOW,
} from '../../sys/constants.js'
import { readMountInfo } from '../../host/proc-mounts.js'
import { openPath } from '../../sys/at.js'
import { E, errnoMessage, errnoName } from '../../sys/errno.js'
import { mayMount, mount, umount, umountAsync } from '../../sys/mount.js'
import { geteuid, hasCap } from '../../sys/proc.js'
import {
  findFusermount,
  notForOthers,
  othersAllowed,
  unmountByHelper,
  unmountByHelperSync,
} from './fusermount.js'
import { MAX_IO } from '../../config/tuning.js'

const DEVICE = '/dev/fuse'

/** Whether this process may call mount(2). */
export const hasMountRight = (): boolean => mayMount() ?? hasCap(CAP_SYS_ADMIN)

/**
 * mount(2) if this process may call it, else fusermount3. Called before the layers are opened.
 * @throws {MountError} EPERM: neither is possible, or `allowOther` is not allowed to an ordinary
 *   user
 */
export const chooseWay = (mountpoint: string, allowOther: boolean): MountWay => {
  if (hasMountRight()) return 'mount'
  if (findFusermount() === undefined) {
    throw new MountError(
      `mountpoint=${mountpoint}: no right to mount; install fusermount3 (of the package fuse3), or run as root or in a user namespace of your own (unshare -rm)`,
      { option: 'mountpoint', path: mountpoint, code: 'EPERM' },
    )
  }
  if (allowOther && geteuid() !== 0 && !othersAllowed()) throw notForOthers()
  return 'fusermount'
}

/** Opens a new connection, not mounted yet. */
export const openDevice = (): number => {
  const fd = openPath(DEVICE, O_RDWR | O_NONBLOCK)
  if (fd >= 0) return fd
  const code = errnoName(fd)
  const advice =
    fd === -E.ENOENT || fd === -E.ENODEV || fd === -E.ENXIO
      ? 'the fuse module is not loaded (modprobe fuse), or the container was not given the device'
      : 'it must be readable and writable for the mounting user'
  throw new MountError(`cannot open ${DEVICE}: ${errnoMessage(fd)}: ${advice}`, {
    path: DEVICE,
    code,
  })
}

/** The filesystem's options for mount(2). */
export const mountData = (fd: number, uid: number, gid: number, allowOther: boolean): string => {
  const options = [
    `fd=${fd}`,
    'rootmode=40000',
    `user_id=${uid}`,
    `group_id=${gid}`,
    'default_permissions',
  ]
  if (allowOther) options.push('allow_other')
  options.push(`max_read=${MAX_IO}`)
  return options.join(',')
}

/** Mounts the connection. The INIT request can be read afterwards. */
export const mountDevice = (fd: number, request: MountRequest): void => {
  const uid = process.geteuid?.() ?? 0
  const gid = process.getegid?.() ?? 0
  const data = mountData(fd, uid, gid, request.allowOther)
  const { mountpoint } = request
  const type = request.subtype === '' ? 'fuse' : `fuse.${request.subtype}`
  const r = mount(request.fsname, mountpoint, type, request.flags, data)
  if (r >= 0) return
  const advice =
    r === -E.EPERM
      ? ': mounting needs CAP_SYS_ADMIN in the mount namespace (root, or a user namespace of your own)'
      : ''
  throw new MountError(`cannot mount on ${mountpoint}: ${errnoMessage(r)}${advice}`, {
    option: 'mountpoint',
    path: mountpoint,
    code: errnoName(r),
  })
}

/** `major:minor` of the topmost mount on a directory; undefined if nothing is mounted there. */
export const mountedDevice = (mountpoint: string): string | undefined =>
  readMountInfo().findLast(info => info.mountpoint === mountpoint)?.device

/**
 * umount2(2), or fusermount3 if this process may not call it.
 * @param flags MNT_DETACH; symlinks are never followed
 * @returns 0 or -errno
 */
export const unmount = (mountpoint: string, flags: number): number => {
  const r = umount(mountpoint, flags | UMOUNT_NOFOLLOW)
  return r === -E.EPERM ? unmountByHelperSync(mountpoint, flags) : r
}

/** The same without blocking the thread. */
export const unmountAsync = async (mountpoint: string, flags: number): Promise<number> => {
  const r = await umountAsync(mountpoint, flags | UMOUNT_NOFOLLOW)
  return r === -E.EPERM ? unmountByHelper(mountpoint, flags) : r
}

/**
 * Detaches a mount that no server serves any more. It does so only if that mount is still the
 * topmost one on the directory, because another filesystem may be mounted there.
 *
 * @param device what `mountedDevice` returned for it
 */
export const detach = (mountpoint: string, device: string | undefined): void => {
  if (device !== undefined && mountedDevice(mountpoint) === device) unmount(mountpoint, MNT_DETACH)
}
