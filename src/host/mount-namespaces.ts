/**
 * Mounts in the mount namespaces of other processes, as far as /proc shows them. Used for messages
 * and for checks before a mount, never while a request is served.
 */

import { readdirSync, readFileSync, readlinkSync } from 'node:fs'

import { readMountInfo, type MountInfo } from './proc-mounts.js'

/** A mount namespace and a process in it. */
export interface Namespace {
  pid: number
  /** Whether it is the namespace of this process. */
  own: boolean
  mounts: readonly MountInfo[]
}

/** A flag in /proc/PID/stat (kernel: include/linux/sched.h). */
const PF_KTHREAD = 0x200000

/**
 * The kernel's own threads: the children of process 2. Empty if process 2 is an ordinary process,
 * as in a pid namespace.
 */
const kernelThreads = (): ReadonlySet<string> => {
  try {
    const flags = readFileSync('/proc/2/stat', 'latin1')
      .replace(/^.*\) /s, '')
      .split(' ')[6]
    if ((Number(flags) & PF_KTHREAD) === 0) return new Set()
    return new Set(readFileSync('/proc/2/task/2/children', 'latin1').split(' '))
  } catch {
    return new Set()
  }
}

/**
 * The process ids in /proc, without the kernel's threads, which have no namespaces of their own.
 */
export const processes = (): number[] => {
  try {
    const kernel = kernelThreads()
    return readdirSync('/proc')
      .filter(name => /^\d+$/.test(name) && !kernel.has(name))
      .map(Number)
  } catch {
    return []
  }
}

const namespaceOf = (pid: number | 'self'): string | undefined => {
  try {
    return readlinkSync(`/proc/${pid}/ns/mnt`)
  } catch {
    return undefined // it has ended, or belongs to another user
  }
}

/** Limits a search of namespaces. */
export interface NamespaceFilter {
  /** The mounts of this process; by default they are read. */
  mounts?: readonly MountInfo[]
  /** Maximum number of namespaces. */
  most?: number
  /** In other namespaces, only mounts whose mountinfo line contains this text count. */
  holding?: string
}

/** Every mount namespace that can be read, this process's own first. */
export const namespaces = ({
  mounts = readMountInfo(),
  most = Infinity,
  holding,
}: NamespaceFilter = {}): Namespace[] => {
  const own = namespaceOf('self')
  const found: Namespace[] = [{ pid: process.pid, own: true, mounts }]
  const seen = new Set([own])
  for (const pid of processes()) {
    if (found.length >= most) break
    const name = namespaceOf(pid)
    if (name === undefined || seen.has(name)) continue
    seen.add(name)
    found.push({ pid, own: false, mounts: readMountInfo(pid, holding) })
  }
  return found
}

/** A mountpoint and its namespace. */
export interface MountPlace {
  mountpoint: string
  /** A process of its mount namespace. */
  pid: number
  own: boolean
}

/**
 * The mountpoints of FUSE filesystems, given their devices as in mountinfo (`0:40`). The device of
 * an ended mount may belong to another filesystem.
 */
export const mountPlaces = (devices: ReadonlySet<string>): MountPlace[] =>
  namespaces().flatMap(({ pid, own, mounts }) =>
    mounts
      .filter(mount => mount.type.startsWith('fuse') && devices.has(mount.device))
      .map(({ mountpoint }) => ({ mountpoint, pid, own })),
  )

/** Describes the place in words, with the command to unmount it. */
export const describe = ({ mountpoint, pid, own }: MountPlace): string =>
  own
    ? `on ${mountpoint} (take it away with: tsoverlay umount ${mountpoint})`
    : `on ${mountpoint} in the mount namespace of process ${pid} (take it away with: nsenter -t ${pid} -m umount ${mountpoint}, or end the processes in it)`
