/**
 * Which process serves which FUSE mount, as far as /proc tells. For messages and for waiting, never for
 * decisions about data.
 */

import { readdirSync, readFileSync, readlinkSync } from 'node:fs'

import { readMountInfo, type MountInfo } from './mountinfo.js'

/** The FUSE mounts that a process serves. */
export const fuseMountsOf = (pid: number): string[] => {
  const mounts = readMountInfo(pid).filter(mount => mount.type.startsWith('fuse'))
  if (mounts.length === 0) return []
  const connections = fuseConnectionsOf(pid)
  const served =
    connections === undefined
      ? mounts.filter(mount => isNamedIn(mount, titleOf(pid)))
      : mounts.filter(mount => connections.has(mount.device))
  return [...new Set(served.map(mount => mount.mountpoint))]
}

/**
 * The FUSE connections whose descriptors a process has open, as devices (`0:40`). `undefined`: it has
 * such descriptors, but this kernel does not say of which connection (older ones do not).
 */
export const fuseConnectionsOf = (pid: number): Set<string> | undefined => {
  const connections = new Set<string>()
  let silent = false
  for (const fd of listOf(`/proc/${pid}/fd`)) {
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

const listOf = (folder: string): string[] => {
  try {
    return readdirSync(folder)
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

/** The command line calls itself `tsoverlay mount MOUNTPOINT …`, see src/cli/serve.ts. */
const isNamedIn = (mount: MountInfo, title: string): boolean =>
  `${title} `.startsWith(`tsoverlay mount ${mount.mountpoint} `)

/** A process that serves for another one, which has started it, calls itself so and names its mountpoint. */
export const SERVANT = 'tsoverlay-fuse-native'

/** The process that a user knows as the server: it holds the mount, whoever answers the kernel. */
export const masterOf = (pid: number): number => {
  if (!titleOf(pid).startsWith(`${SERVANT} `)) return pid
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'latin1')
    return Number(/^PPid:\s*(\d+)/m.exec(status)?.[1] ?? pid)
  } catch {
    return pid
  }
}

/** The processes that serve a mount; those that may not be looked into are not among them. */
export const serversOf = (mount: MountInfo): number[] => {
  const serving = listOf('/proc')
    .filter(name => /^\d+$/.test(name))
    .map(Number)
    .filter(pid => {
      const connections = fuseConnectionsOf(pid)
      return connections === undefined
        ? isNamedIn(mount, titleOf(pid))
        : connections.has(mount.device)
    })
  return [...new Set(serving.flatMap(pid => [pid, masterOf(pid)]))]
}
