/** `tsoverlay umount`, and the lookup of the mount that a path names. */

import { existsSync, realpathSync } from 'node:fs'
import { basename, dirname, resolve } from 'node:path'

import { MountError } from '../../errors.js'
import { markerNames, markersOf, type PublishedMarker } from '../../host/markers.js'
import { readMountInfo, type MountInfo } from '../../host/proc-mounts.js'
import { describe, mountPlaces } from '../../host/mount-namespaces.js'
import { endsWithMount, serversOf, titleOf } from '../../host/servers.js'
import { MNT_DETACH } from '../../sys/constants.js'
import { E, errnoMessage, errnoName } from '../../sys/errno.js'
import { ExitCode } from '../exit-codes.js'
import { absolute } from '../../config/syntax.js'
import { say } from '../say.js'
import { workingDirectory } from '../working-directory.js'

/** How long to wait for the server to close its files after the unmount. */
const CLOSE_TIMEOUT_MS = 10_000
const POLL_MS = 5
/**
 * How long to wait before searching other mount namespaces for the same mount. After the unmount
 * another mount may get the same device number.
 */
const RECHECK_MS = 100

/**
 * Unmounts and waits until the server has closed the layers, so that they can be reused at once. A
 * server of this mount alone ends then. If the same mount still exists elsewhere, or the server
 * does not close the layers, it prints a message.
 *
 * @param lazy detach the mount from the tree although it is busy, and do not wait
 * @param device the device that the mount must have, as mountinfo shows it; otherwise the topmost
 *   mount is unmounted
 * @returns the exit status
 * @throws {MountError}
 */
export const unmount = async (path: string, lazy: boolean, device?: string): Promise<number> => {
  const mount = findMount(path)
  if (device !== undefined && mount.device !== device)
    throw new MountError(`${path} is covered by another mount; unmount that first`, {
      option: 'mountpoint',
      path,
      code: 'EBUSY',
    })
  const servers = lazy ? [] : serversOf(mount)
  const markers = servers.map(pid => markersOf(pid).filter(isOf(mount)))
  const { unmountAsync } = await import('../../fuse/mount/mount.js')
  const result = await unmountAsync(mount.mountpoint, lazy ? MNT_DETACH : 0)
  if (result < 0) throw failure(mount.mountpoint, -result)
  if (servers.length === 0) return ExitCode.OK
  const isLeft = (): boolean => servers.some((pid, i) => isServed(pid, mount, markers[i] ?? []))
  for (const until = Date.now() + RECHECK_MS; isLeft() && Date.now() < until;)
    await new Promise(done => setTimeout(done, POLL_MS))
  const names = new Set(markers.flat().map(({ name }) => name))
  const locations = isLeft() && !isReused(mount, names) ? mountPlaces(new Set([mount.device])) : []
  if (locations.length > 0) {
    const where = locations.map(describe).join(', and ')
    say(
      `tsoverlay: ${mount.mountpoint} is unmounted, but the same mount still exists ${where}: process ${servers.join(', ')} continues to serve it and has the layers open`,
    )
    return ExitCode.STILL_SERVED
  }
  const ended = await Promise.all(
    servers.map((pid, i) => waitUntilClosed(pid, mount, markers[i] ?? [])),
  )
  const left = servers.filter((_, i) => ended[i] === false)
  if (left.length === 0) return ExitCode.OK
  say(
    `tsoverlay: ${mount.mountpoint} is unmounted, but process ${left.join(', ')} has not ended within ${CLOSE_TIMEOUT_MS / 1000} seconds and has the layers open: a file is still open, a disk operation is in progress, or the mount still exists in a mount namespace that is not visible here`,
  )
  return ExitCode.STILL_SERVED
}

/**
 * Finds the topmost FUSE mount on a path. It does not access the mount, because its server may be
 * dead.
 */
export const findMount = (path: string): MountInfo => {
  const given = resolve(absolute(path, workingDirectory()))
  let real = given
  try {
    real = given === '/' ? '/' : resolve(realpathSync.native(dirname(given)), basename(given))
  } catch {
    // the path is used as given
  }
  const mounts = readMountInfo()
  const find = (point: string): MountInfo | undefined =>
    mounts.findLast(({ mountpoint }) => mountpoint === point)
  const mount = find(real) ?? find(given) ?? find(throughSymlink(given))
  if (mount === undefined) {
    throw new MountError(`${path}: nothing is mounted there; list the mounts with: tsoverlay ls`, {
      option: 'mountpoint',
      path,
      code: 'EINVAL',
    })
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
      ? `${path} is busy: a program has an open file or its working directory there; find it with: fuser -vm ${path} -- or detach the mount with: tsoverlay umount --lazy ${path}`
      : errno === E.EPERM
        ? `${path}: no right to unmount; run as the user who mounted it, in the same namespace`
        : `${path} can't be unmounted: ${errnoMessage(errno)}`,
    { option: 'mountpoint', path, code: errnoName(errno) },
  )

const isOf =
  ({ device }: MountInfo) =>
  (marker: PublishedMarker): boolean =>
    marker.device === device

/**
 * Whether another union has the device number now. The kernel reuses the number before the server
 * has closed the layers.
 */
const isReused = (mount: MountInfo, names: ReadonlySet<string>): boolean =>
  serversOf(mount).some(pid =>
    markersOf(pid).some(marker => isOf(mount)(marker) && !names.has(marker.name)),
  )

/**
 * Waits until a server of this mount alone has ended, or a server of several mounts has closed the
 * layers, or a program without markers has closed the connection.
 * @returns false after CLOSE_TIMEOUT_MS
 */
const waitUntilClosed = async (
  pid: number,
  mount: MountInfo,
  markers: readonly PublishedMarker[],
): Promise<boolean> => {
  for (const until = Date.now() + CLOSE_TIMEOUT_MS; Date.now() < until;) {
    if (!existsSync(`/proc/${pid}/exe`)) return true
    // A server can start to serve other mounts in the meantime, so its title is read each time.
    if (!endsWithMount(titleOf(pid)) && !isServed(pid, mount, markers)) return true
    await new Promise(done => setTimeout(done, POLL_MS))
  }
  return false
}

const isServed = (pid: number, mount: MountInfo, markers: readonly PublishedMarker[]): boolean => {
  if (markers.length === 0) return serversOf(mount).includes(pid)
  const names = markerNames(pid)
  return markers.some(({ name }) => names.includes(name))
}
