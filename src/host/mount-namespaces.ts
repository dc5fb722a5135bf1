/**
 * Mounts in the mount namespaces of other processes, as far as /proc lets this one look. For
 * messages, and for checks before a mount is made; never while a request is served.
 */

import { readdirSync, readFileSync, readlinkSync } from 'node:fs'

import { readMountInfo, type MountInfo } from './proc-mounts.js'

/** A mount namespace, and a process that lives in it. */
export interface Namespace {
  pid: number
  /** Whether it is that of this process. */
  own: boolean
  mounts: readonly MountInfo[]
}

/** Of the flags in /proc/PID/stat (kernel: include/linux/sched.h). */
const PF_KTHREAD = 0x200000

/**
 * The kernel's own threads, as far as it tells: children of process 2. In a pid namespace of its
 * own that is any process.
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
 * The process ids that /proc shows, without the kernel's own threads: those have no namespaces of
 * their own.
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
    return undefined // gone meanwhile, or of somebody else
  }
}

/** Which namespaces to look into. */
export interface Look {
  /** Of this process; else they are read. */
  mounts?: readonly MountInfo[]
  /** How many namespaces to look into. */
  most?: number
  /** In others only mounts count whose line has this text. */
  holding?: string
}

/** Every mount namespace that can be looked into, the own one first. */
export const namespaces = ({
  mounts = readMountInfo(),
  most = Infinity,
  holding,
}: Look = {}): Namespace[] => {
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

/** A place where something is mounted. */
export interface Whereabouts {
  mountpoint: string
  /** A process of its mount namespace. */
  pid: number
  own: boolean
}

/**
 * Where FUSE file systems are mounted, by their devices as mountinfo names them: `0:40`. The number
 * of one that has ended may be that of another file system by now.
 */
export const whereabouts = (devices: ReadonlySet<string>): Whereabouts[] =>
  namespaces().flatMap(({ pid, own, mounts }) =>
    mounts
      .filter(mount => mount.type.startsWith('fuse') && devices.has(mount.device))
      .map(({ mountpoint }) => ({ mountpoint, pid, own })),
  )

/** In words, with the way to take it away. */
export const describe = ({ mountpoint, pid, own }: Whereabouts): string =>
  own
    ? `on ${mountpoint} (take it away with: tsoverlay umount ${mountpoint})`
    : `on ${mountpoint} in the mount namespace of process ${pid} (take it away with: nsenter -t ${pid} -m umount ${mountpoint}, or end the processes in it)`
