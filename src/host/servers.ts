/**
 * Finds the processes that serve FUSE mounts, as far as /proc shows them. For messages and for
 * waiting, never for decisions about data.
 */

import { readdirSync, readFileSync, readlinkSync } from 'node:fs'

import { markerOf } from './markers.js'
import { readMountInfo, type MountInfo } from './proc-mounts.js'

/**
 * The mountpoints of the FUSE mounts that a process serves.
 * @param device only the mount with this device
 */
export const fuseMountsOf = (pid: number, device?: string): string[] => {
  const mounts = readMountInfo(pid).filter(
    mount => mount.type.startsWith('fuse') && (device ?? mount.device) === mount.device,
  )
  if (mounts.length === 0) return []
  const connections = fuseConnectionsOf(pid)
  const served =
    connections === undefined
      ? mounts.filter(mount => isNamedIn(mount, titleOf(pid)))
      : mounts.filter(mount => connections.has(mount.device))
  return [...new Set(served.map(mount => mount.mountpoint))]
}

/**
 * The FUSE connections that a process has open, as devices (`0:40`). `undefined`: it has such
 * descriptors, but this kernel is too old to report their connections.
 */
export const fuseConnectionsOf = (pid: number): Set<string> | undefined => {
  const connections = new Set<string>()
  let silent = false
  for (const fd of listDirectory(`/proc/${pid}/fd`)) {
    try {
      if (!readlinkSync(`/proc/${pid}/fd/${fd}`).endsWith('/fuse')) continue
      const info = readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'latin1')
      const line = /^fuse_connection:\s*(\d+)/m.exec(info)
      if (line === null) silent = true
      else connections.add(`0:${line[1]}`)
    } catch {
      // closed meanwhile
    }
  }
  return silent && connections.size === 0 ? undefined : connections
}

/** The names in a directory; empty if it cannot be read. */
export const listDirectory = (directory: string): string[] => {
  try {
    return readdirSync(directory)
  } catch {
    return []
  }
}

export const titleOf = (pid: number): string => {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim()
  } catch {
    return ''
  }
}

/**
 * How the title of a server starts: of a server of one mount, before the mountpoint, and of a
 * server of several mounts, before all of them.
 */
const ONE = 'tsoverlay mount '
const SEVERAL = 'tsoverlay server '

/**
 * The title of a server. The mountpoint comes first, because a title is truncated to the length of
 * the command line.
 */
export const titleFor = (mountpoint: string, options: readonly string[]): string =>
  `${ONE}${mountpoint} -o ${options.join(',')}`

export const titleForAll = (mountpoints: readonly string[]): string =>
  `${SEVERAL}${mountpoints.join(' ')}`.trimEnd()

/** Whether a title is that of a process that serves one mount and ends with it. */
export const endsWithMount = (title: string): boolean => title.startsWith(ONE)

/**
 * Whether a title names a mount. Used if the kernel does not report the connection of a descriptor.
 */
export const isNamedIn = (mount: MountInfo, title: string): boolean =>
  `${title} `.startsWith(`${ONE}${mount.mountpoint} `) ||
  (title.startsWith(SEVERAL) && `${title} `.includes(` ${mount.mountpoint} `))

/**
 * The title of a process that serves on behalf of the process that has started it; the mountpoint
 * follows.
 */
export const NATIVE_SERVER_TITLE = 'tsoverlay-fuse-native'

/**
 * The process that a user knows as the server: it holds the mount, even if another process serves
 * it.
 */
export const mountHolderOf = (pid: number): number => {
  if (!titleOf(pid).startsWith(`${NATIVE_SERVER_TITLE} `)) return pid
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'latin1')
    return Number(/^PPid:\s*(\d+)/m.exec(status)?.[1] ?? pid)
  } catch {
    return pid
  }
}

/** The processes that serve a mount, without those to which access is denied. */
export const serversOf = (mount: MountInfo): number[] => {
  const serving = listDirectory('/proc')
    .filter(name => /^\d+$/.test(name))
    .map(Number)
    .filter(pid => {
      const connections = fuseConnectionsOf(pid)
      return connections === undefined
        ? isNamedIn(mount, titleOf(pid))
        : connections.has(mount.device)
    })
  return [...new Set(serving.flatMap(pid => [pid, mountHolderOf(pid)]))]
}

/**
 * Whether a server may write through a mount. Without a marker (markers.ts), the answer is whether
 * it holds the locks of an upper directory and a workdir (lock.ts).
 */
export const servesWritable = (pid: number, device: string): boolean => {
  const marker = markerOf(pid, device)
  if (marker !== undefined) return marker.writable
  const devices = new Set(readMountInfo(pid).map(mount => mount.device))
  return listDirectory(`/proc/${pid}/fdinfo`).some(fd => {
    try {
      const info = readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'latin1')
      const lock = /^lock:.* FLOCK .* WRITE \S+ ([0-9a-f]+):([0-9a-f]+):/m.exec(info)
      if (lock === null) return false
      const [major, minor] = lock.slice(1).map(hex => Number.parseInt(hex, 16))
      return devices.has(`${major}:${minor}`)
    } catch {
      return false // closed meanwhile
    }
  })
}
