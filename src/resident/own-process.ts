/**
 * Decides whether a shared server may serve a union. A union needs a server of its own in two
 * cases. First: one of its files lies on a FUSE or network file system, which may block and delay
 * the other unions. Second: it may depend on a mount of this same server, which could then wait for
 * itself.
 *
 * All directories on a path count. The decision uses /proc/self/mountinfo and sysfs, because a file
 * system that is accessed may not answer: a path component is accessed only after its file system
 * has been checked. If unsure the union gets its own process.
 */

import {
  existsSync,
  lstatSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  statSync,
} from 'node:fs'

import { readMountInfo, type MountInfo } from '../host/proc-mounts.js'
import { directoryKey } from './identity.js'

/** File systems in memory or of the kernel itself; they depend on no other file system. */
const MEMORY: ReadonlySet<string> = new Set([
  'tmpfs',
  'ramfs',
  'rootfs',
  'devtmpfs',
  'proc',
  'sysfs',
  'cgroup',
  'cgroup2',
  'hugetlbfs',
  'devpts',
  'mqueue',
  'securityfs',
  'debugfs',
  'tracefs',
  'configfs',
  'efivarfs',
  'bpf',
])

/** File systems on the single block device whose number mountinfo shows. */
const ON_DEVICE: ReadonlySet<string> = new Set([
  'ext2',
  'ext3',
  'ext4',
  'xfs',
  'f2fs',
  'jfs',
  'vfat',
  'exfat',
  'ntfs3',
  'iso9660',
  'udf',
  'squashfs',
  'erofs',
])

/**
 * Kernel names of disks. nbd and rbd are excluded, because they depend on a network or a program.
 */
const DISK = /^(sd|hd|vd|xvd|nvme|mmcblk|sr|zram|ram|pmem|dasd|mtdblock)/

/** The limit of symlinks in one path; the kernel's MAXSYMLINKS. */
const MAX_LINKS = 40
/** The limit of nested file systems (loop devices and device mapper). */
const MAX_LEVELS = 8

export interface Machine {
  mounts: readonly MountInfo[]
  /** The mountpoint of sysfs. */
  sys: string
  /**
   * The mount id of this process' root directory. That mount is older than the process, so it
   * depends on none of the process' mounts.
   */
  rootMount: number
}

export const thisMachine = (): Machine => ({
  mounts: readMountInfo(),
  sys: '/sys',
  rootMount: rootMount(),
})

/** The same machine after this server has mounted on `mountpoints`. */
export const withMounts = (machine: Machine, mountpoints: readonly string[]): Machine => ({
  ...machine,
  mounts: [...machine.mounts, ...mountpoints.map(mountpoint => ({ ...PENDING_MOUNT, mountpoint }))],
})

const PENDING_MOUNT = {
  id: Number.NaN,
  device: '',
  root: '/',
  options: '',
  type: 'fuse',
  source: '',
  superOptions: '',
}

/** @returns NaN if there is no /proc; then no mount is known */
const rootMount = (): number => {
  try {
    return Number(directoryKey('/').split(':')[0])
  } catch {
    return Number.NaN
  }
}

/**
 * Why a union needs a process of its own, as the end of a sentence; undefined if it does not.
 * @param paths all absolute paths that it opens
 */
export const whyOwn = (
  paths: readonly string[],
  machine: Machine = thisMachine(),
): string | undefined => {
  const walk = new Walk(machine)
  for (const path of paths) {
    const why = walk.whyNot(path)
    if (why !== undefined) return `${path} ${why}`
  }
  return undefined
}

/**
 * The same for mounts below a layer, present or future ones. Call it only if the union sees these
 * mounts, because the server may not make private mounts of its layers.
 * @param layers real paths
 * @param mountpoint a real path
 * @param others layers of unions that are already served
 */
export const whyOwnBelow = (
  layers: readonly string[],
  mountpoint: string,
  others: readonly string[],
  machine: Machine = thisMachine(),
): string | undefined => {
  const walk = new Walk(machine)
  for (const mount of machine.mounts) {
    if (!layers.some(layer => isBelow(mount.mountpoint, layer))) continue
    const why = walk.whyNot(mount.mountpoint)
    if (why !== undefined) return `${mount.mountpoint}, below a layer, ${why}`
  }
  const other = others.find(layer => isBelow(mountpoint, layer))
  return other === undefined ? undefined : `${mountpoint} lies below ${other}, a layer of another`
}

const isBelow = (path: string, directory: string): boolean =>
  path.startsWith(directory === '/' ? '/' : `${directory}/`)

class Walk {
  readonly #machine: Machine
  /** Keyed by mountpoint; it has several mounts if one covers another. */
  readonly #on = new Map<string, MountInfo[]>()
  /** Cached results for paths and mounts. */
  readonly #paths = new Map<string, string | undefined>()
  readonly #mounts = new Map<MountInfo, string | undefined>()

  constructor(machine: Machine) {
    this.#machine = machine
    for (const mount of machine.mounts) {
      const found = this.#on.get(mount.mountpoint)
      if (found === undefined) this.#on.set(mount.mountpoint, [mount])
      else found.push(mount)
    }
  }

  whyNot(path: string, level = 0): string | undefined {
    const remaining = path.split('/').toReversed()
    let at = ''
    let links = 0
    let why = this.#whyNotOn('/', level)
    while (why === undefined && remaining.length > 0) {
      const name = remaining.pop() ?? ''
      if (name === '' || name === '.') continue
      if (name === '..') {
        at = at.slice(0, Math.max(0, at.lastIndexOf('/')))
        continue
      }
      const next = `${at}/${name}`
      why = this.#whyNotOn(next, level)
      if (why !== undefined) break
      const target = linkAt(next)
      if (target === undefined) at = next
      else if (++links > MAX_LINKS)
        break // open(2) fails with ELOOP
      else if (isMagic(next)) return 'leads through a link of /proc'
      else {
        remaining.push(...target.split('/').toReversed())
        if (target.startsWith('/')) at = ''
      }
    }
    return why
  }

  /** Checks the mounts on exactly this path. */
  #whyNotOn(path: string, level: number): string | undefined {
    if (this.#paths.has(path)) return this.#paths.get(path)
    const mounts = this.#on.get(path)
    // A path without a mount lies on its parent's file system. The root directory always needs a
    // known mount.
    const why =
      mounts === undefined
        ? path === '/'
          ? 'lies on a file system that /proc/self/mountinfo does not show'
          : undefined
        : mounts.map(mount => this.#whyNotMount(mount, level)).find(one => one !== undefined)
    this.#paths.set(path, why)
    return why
  }

  #whyNotMount(mount: MountInfo, level: number): string | undefined {
    if (!this.#mounts.has(mount)) this.#mounts.set(mount, this.#judge(mount, level))
    return this.#mounts.get(mount)
  }

  #judge(mount: MountInfo, level: number): string | undefined {
    const { type, device, id } = mount
    const about = `lies on ${mount.mountpoint}, of type ${type}`
    if (MEMORY.has(type)) return undefined
    if (type === 'overlay')
      return id === this.#machine.rootMount ? undefined : `${about}, whose layers may lie anywhere`
    if (ON_DEVICE.has(type)) return this.#whyNotDevice(device, about, level)
    if (type === 'btrfs') return this.#whyNotBtrfs(mount.source, about, level)
    return about
  }

  /** @param device `major:minor` */
  #whyNotDevice(device: string, about: string, level: number): string | undefined {
    if (level >= MAX_LEVELS) return about
    let directory: string
    try {
      directory = realpathSync(`${this.#machine.sys}/dev/block/${device}`)
      // sysfs has a partition in the directory of its disk.
      if (existsSync(`${directory}/partition`))
        directory = directory.slice(0, directory.lastIndexOf('/'))
    } catch {
      return `${about}, on a device that /sys does not show`
    }
    const name = directory.slice(directory.lastIndexOf('/') + 1)
    if (name.startsWith('loop')) {
      const file = textOf(`${directory}/loop/backing_file`)
      if (file === undefined || !file.startsWith('/') || file.endsWith(' (deleted)'))
        return `${about}, in an unknown file`
      const why = this.whyNot(file, level + 1)
      // If the file's mount was detached, or belongs to another root directory, the kernel shows a
      // path that does not lead to the file here.
      if (why === undefined && !isFile(file)) return `${about}, in an unknown file`
      return why === undefined ? undefined : `${about}, in ${file}, which ${why}`
    }
    if (name.startsWith('dm-') || name.startsWith('md')) {
      const below = namesIn(`${directory}/slaves`)
      if (below.length === 0) return `${about}, on ${name}`
      return below
        .map(slave => textOf(`${this.#machine.sys}/class/block/${slave}/dev`))
        .map(one => (one === undefined ? about : this.#whyNotDevice(one, about, level + 1)))
        .find(why => why !== undefined)
    }
    return DISK.test(name) ? undefined : `${about}, on ${name}`
  }

  /** btrfs may use several devices, and mountinfo shows an anonymous device number. */
  #whyNotBtrfs(source: string, about: string, level: number): string | undefined {
    const top = `${this.#machine.sys}/fs/btrfs`
    let name: string
    try {
      name = realpathSync(source).replace(/^.*\//, '')
    } catch {
      return about
    }
    for (const id of namesIn(top)) {
      const devices = namesIn(`${top}/${id}/devices`)
      if (!devices.includes(name)) continue
      return devices
        .map(one => textOf(`${this.#machine.sys}/class/block/${one}/dev`))
        .map(one => (one === undefined ? about : this.#whyNotDevice(one, about, level)))
        .find(why => why !== undefined)
    }
    return about
  }
}

/** @returns the target of a symlink; undefined if the path is no symlink or does not exist */
const linkAt = (path: string): string | undefined => {
  try {
    return lstatSync(path).isSymbolicLink() ? readlinkSync(path) : undefined
  } catch {
    return undefined
  }
}

const isFile = (path: string): boolean => {
  try {
    return statSync(path).isFile()
  } catch {
    return false
  }
}

/** Links in /proc/PID lead to open files and namespaces, not to the path in their text. */
const isMagic = (path: string): boolean => /^\/proc\/\d+\//.test(path)

const textOf = (path: string): string | undefined => {
  try {
    return readFileSync(path, 'utf8').trimEnd()
  } catch {
    return undefined
  }
}

const namesIn = (path: string): string[] => {
  try {
    return readdirSync(path)
  } catch {
    return []
  }
}
