/**
 * Mounts in the mount namespaces of other processes, as far as /proc lets this one look. For messages, and for checks
 * before a mount is made; never while a request is served.
 */

import { readdirSync, readlinkSync } from 'node:fs'

import { readMountInfo, type MountInfo } from './mountinfo.js'

/** A mount namespace, and a process that lives in it. */
export interface Namespace {
  pid: number
  /** Whether it is that of this process. */
  own: boolean
  mounts: MountInfo[]
}

/** The process ids that /proc shows. */
export const processes = (): number[] => {
  try {
    return readdirSync('/proc')
      .filter(name => /^\d+$/.test(name))
      .map(Number)
  } catch {
    return []
  }
}

const namespaceOf = (pid: number | 'self'): string | undefined => {
  try {
    return readlinkSync(`/proc/${pid}/ns/mnt`)
  } catch {
    return undefined // gone meanwhile, or of somebody else
  }
}

/**
 * Every mount namespace that can be looked into, the own one first.
 * @param most how many of them to look into
 */
export const namespaces = (pids = processes(), most = Infinity): Namespace[] => {
  const own = namespaceOf('self')
  const found = [{ pid: process.pid, own: true, mounts: readMountInfo() }]
  const seen = new Set([own])
  for (const pid of pids) {
    if (found.length >= most) break
    const name = namespaceOf(pid)
    if (name === undefined || seen.has(name)) continue
    seen.add(name)
    found.push({ pid, own: false, mounts: readMountInfo(pid) })
  }
  return found
}

/** A place where something is mounted. */
export interface Whereabouts {
  mountpoint: string
  /** A process of its mount namespace. */
  pid: number
  own: boolean
}

/** Where file systems are mounted, by their devices as mountinfo names them: `0:40`. */
export const whereabouts = (devices: ReadonlySet<string>): Whereabouts[] =>
  namespaces().flatMap(({ pid, own, mounts }) =>
    mounts
      .filter(mount => devices.has(mount.device))
      .map(({ mountpoint }) => ({ mountpoint, pid, own })),
  )

/** In words, with the way to take it away. */
export const describe = ({ mountpoint, pid, own }: Whereabouts): string =>
  own
    ? `on ${mountpoint} (take it away with: tsoverlay umount ${mountpoint})`
    : `on ${mountpoint} in the mount namespace of process ${pid} (take it away with: nsenter -t ${pid} -m umount ${mountpoint}, or end the processes in it)`
