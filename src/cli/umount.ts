/** `tsoverlay umount`. */

import { existsSync, realpathSync } from 'node:fs'
import { basename, dirname, resolve } from 'node:path'

import { MountError } from '../errors.js'
import { readMountInfo, type MountInfo } from '../overlay/mountinfo.js'
import { serversOf, titleOf } from '../overlay/servers.js'
import { MNT_DETACH } from '../sys/constants.js'
import { E, errnoMessage, errnoName } from '../sys/errno.js'

/** How long to wait for the server to close its files after the mount is gone. */
const PATIENCE_MS = 10_000
const POLL_MS = 5

/**
 * Unmounts, and waits for the server to end, so that the layers can be used at once.
 * @param lazy take the mount out of the tree although it is busy, and do not wait
 * @throws {MountError}
 */
export const unmount = async (path: string, lazy: boolean): Promise<void> => {
  const mount = findMount(path)
  const servers = lazy ? [] : serversOf(mount)
  const { unmountAsync } = await import('../fuse/mount.js')
  const result = await unmountAsync(mount.mountpoint, lazy ? MNT_DETACH : 0)
  if (result < 0) throw failure(mount.mountpoint, -result)
  await Promise.all(servers.map(pid => gone(pid, mount)))
}

/** The topmost FUSE mount on a path, found without touching it: its server may be dead. */
const findMount = (path: string): MountInfo => {
  const given = resolve(path)
  let real = given
  try {
    real = given === '/' ? '/' : resolve(realpathSync.native(dirname(given)), basename(given))
  } catch {
    // then the path as it was given must do
  }
  const mounts = readMountInfo()
  const find = (point: string): MountInfo | undefined =>
    mounts.findLast(({ mountpoint }) => mountpoint === point)
  const mount = find(real) ?? find(given) ?? find(throughSymlink(given))
  if (mount === undefined) {
    throw new MountError(
      `${path}: nothing is mounted there; list the mounts with: findmnt -t fuse.tsoverlay`,
      { option: 'mountpoint', path, code: 'EINVAL' },
    )
  }
  if (!mount.type.startsWith('fuse')) {
    throw new MountError(`${path}: holds a mount of type ${mount.type}; take it away with umount`, {
      option: 'mountpoint',
      path,
      code: 'EINVAL',
    })
  }
  return mount
}

const throughSymlink = (path: string): string => {
  try {
    return realpathSync.native(path)
  } catch {
    return path
  }
}

const failure = (path: string, errno: number): MountError =>
  new MountError(
    errno === E.EBUSY
      ? `${path} is busy: a program has a file open or works in it; find it with: fuser -vm ${path} -- or detach the mount with: tsoverlay umount --lazy ${path}`
      : errno === E.EPERM
        ? `${path}: no right to unmount; run as the user who mounted it, in the same namespace`
        : `${path} can't be unmounted: ${errnoMessage(errno)}`,
    { option: 'mountpoint', path, code: errnoName(errno) },
  )

/** The program's own server has ended; another program has closed the connection. */
const gone = async (pid: number, mount: MountInfo): Promise<void> => {
  const own = titleOf(pid).startsWith('tsoverlay mount ')
  for (const until = Date.now() + PATIENCE_MS; Date.now() < until;) {
    if (!existsSync(`/proc/${pid}/exe`)) return
    if (!own && !serversOf(mount).includes(pid)) return
    await new Promise(done => setTimeout(done, POLL_MS))
  }
}
