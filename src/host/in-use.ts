/**
 * Whether a kernel overlayfs or a fuse-overlayfs uses a directory as its upper or work directory.
 * Neither takes a lock that can be seen (lock.ts finds another tsoverlay), but /proc tells: of the
 * former the mount options, of the latter the command line. A directory that is a lower layer there
 * does not count.
 */

import * as fs from 'node:fs'
import { basename, dirname, posix } from 'node:path'

import { MountError } from '../errors.js'
import { unescapeOctal, type MountInfo } from './proc-mounts.js'
import { describe, namespaces, processes, type Namespace } from './mount-namespaces.js'
import { fuseConnectionsOf, fuseMountsOf } from './servers.js'

/** A directory that is to be an upper or a work directory, or one that it lies in. */
export interface Wanted {
  option: string
  /** As it was given. */
  path: string
  /** The directory itself: `path`, or one above it. */
  directory: string
  /** Its device and inode, `DEV:INO`. */
  key: string
}

/** In how many mount namespaces a mount looks for others, so that the look takes a bounded time. */
const MOST_NAMESPACES = 256
/** How long to wait for a fuse-overlayfs without a mount: umount(8) returns before it has ended. */
const PATIENCE_MS = 3000
const POLL_MS = 10

/**
 * Device and inode of a directory: the same for every name of it. Empty: there is none, or it can't
 * be seen.
 */
const keyOf = (path: string): string => {
  try {
    const stat = fs.statSync(path, { bigint: true, throwIfNoEntry: false })
    return stat === undefined ? '' : `${stat.dev}:${stat.ino}`
  } catch {
    return ''
  }
}

/**
 * @param wanted the upper and the work directory of the mount to be, and those that they lie in
 * @param mounts of this process
 * @param impatient one that is about to end is not waited for
 * @throws {MountError} EBUSY: a mount uses one of them for writing
 */
export const checkOthers = (
  wanted: readonly Wanted[],
  mounts: readonly MountInfo[],
  impatient = false,
): void => {
  const spaces = namespaces({ mounts, most: MOST_NAMESPACES, holding: 'overlay' })
  for (const space of spaces)
    for (const mount of space.mounts)
      if (mount.type === 'overlay') checkKernelMount(wanted, mount, space)
  if (spaces.some(space => space.mounts.some(isFuseOverlayfs)))
    checkFuseOverlayfs(wanted, impatient ? 0 : PATIENCE_MS)
}

const isFuseOverlayfs = ({ type, source }: MountInfo): boolean =>
  type === 'fuse.fuse-overlayfs' || (type === 'fuse' && source === 'fuse-overlayfs')

/** @param who by whom it is in use, and what to do about that */
export const busy = ({ option, path, directory }: Omit<Wanted, 'key'>, who: string): MountError => {
  const what = directory === path ? 'is' : `lies in ${directory}, which is`
  return new MountError(`${option}=${path} ${what} in use by ${who}, or choose another directory`, {
    option,
    path,
    code: 'EBUSY',
  })
}

const checkKernelMount = (
  wanted: readonly Wanted[],
  mount: MountInfo,
  { pid, own }: Namespace,
): void => {
  const { mountpoint } = mount
  const top = own ? '' : `/proc/${pid}/root`
  for (const option of mount.superOptions.split(',')) {
    if (!/^(upperdir|workdir)=/.test(option)) continue
    const value = unescapeOctal(option.slice(option.indexOf('=') + 1))
    const found = value.startsWith('/')
      ? sameAs(wanted, keyOf(`${top}${value}`))
      : option.startsWith('u') && mount.root === '/'
        ? wanted.find(({ directory }) => showsRootOf(directory, `${top}${mountpoint}`))
        : undefined
    if (found === undefined) continue
    const where = own
      ? `on ${mountpoint}; unmount that first`
      : `${describe({ mountpoint, pid, own })}; unmount that first`
    throw busy(found, `the kernel's overlay mount ${where}`)
  }
}

const sameAs = (wanted: readonly Wanted[], key: string): Wanted | undefined =>
  key === '' ? undefined : wanted.find(one => one.key === key)

/**
 * A relative path in the mount options starts where the mounter worked, which nothing tells any
 * more. But the root of an overlay has the inode number and the times of its upper directory
 * (kernel: ovl_get_root, ovl_getattr). That root may itself be a directory that another one lies
 * in.
 */
const showsRootOf = (directory: string, mountpoint: string): boolean => {
  try {
    const [one, other] = [directory, mountpoint].map(path => fs.statSync(path, { bigint: true }))
    return (
      one!.dev !== other!.dev &&
      one!.ino === other!.ino &&
      one!.ctimeNs === other!.ctimeNs &&
      one!.mtimeNs === other!.mtimeNs
    )
  } catch {
    return false
  }
}

const checkFuseOverlayfs = (wanted: readonly Wanted[], patience: number): void => {
  const until = Date.now() + patience
  for (const pid of processes()) {
    if (pid === process.pid) continue
    for (;;) {
      const args = argumentsOf(pid)
      if (basename(args[0] ?? '') !== 'fuse-overlayfs' || fuseConnectionsOf(pid)?.size === 0) break
      const found = mountOptionsOf(args)
        .map(option => foundIn(option, pid, wanted))
        .find(one => one !== undefined)
      if (found === undefined) break
      // A device number that is free again may be that of another mount by now.
      const mountpoint = fuseMountsOf(pid).find(path => args.some(arg => isSameName(arg, path)))
      if (mountpoint !== undefined)
        throw busy(
          found,
          `fuse-overlayfs, process ${pid}, mounted on ${mountpoint}; unmount that first`,
        )
      if (Date.now() >= until)
        throw busy(
          found,
          `fuse-overlayfs, process ${pid}, which still runs; unmount it or end the process first`,
        )
      Atomics.wait(cell, 0, 0, POLL_MS) // unmounted: it is about to end
    }
  }
}

const isSameName = (one: string, other: string): boolean => basename(one) === basename(other)

const cell = new Int32Array(new SharedArrayBuffer(4))

const argumentsOf = (pid: number): string[] => {
  try {
    return fs.readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')
  } catch {
    return [] // gone meanwhile
  }
}

/**
 * The values of `-o`, cut at commas and without libfuse's escapes (fuse_opt.c:
 * process_real_option_group).
 */
export const mountOptionsOf = (args: readonly string[]): string[] =>
  args
    .flatMap((arg, i) =>
      arg === '-o' ? [args[i + 1] ?? ''] : arg.startsWith('-o') ? [arg.slice(2)] : [],
    )
    .flatMap(list => list.match(/(?:\\.|[^,\\])+/gs) ?? [])
    .map(option =>
      option.replaceAll(/\\(?:([0-3][0-7]{2})|(.))/gs, (_, octal?: string, char?: string) =>
        octal === undefined ? (char ?? '') : String.fromCharCode(Number.parseInt(octal, 8)),
      ),
    )

/** Which directory an option of another process names, as that process sees it. */
const foundIn = (option: string, pid: number, wanted: readonly Wanted[]): Wanted | undefined => {
  const value = /^(?:upperdir|workdir)=(.+)$/s.exec(option)?.[1]
  if (value === undefined) return undefined
  if (value.startsWith('/')) return sameAs(wanted, keyOf(`/proc/${pid}/root${value}`))
  // In the background it works in `/`, wherever it was started. But it has the directories open:
  // the upper one, and `work` in the other.
  const name = posix.normalize(value).replace(/^(\.\.\/)+/, '')
  const [end, isWork] = option.startsWith('w') ? [posix.join(name, 'work'), true] : [name, false]
  const keys = openPaths(pid)
    .filter(path => path.endsWith(`/${end}`))
    .map(path => keyOf(`/proc/${pid}/root${isWork ? dirname(path) : path}`))
  return keys.map(key => sameAs(wanted, key)).find(one => one !== undefined)
}

/** The paths of what a process has open. */
const openPaths = (pid: number): string[] => {
  try {
    return fs.readdirSync(`/proc/${pid}/fd`).map(name => fs.readlinkSync(`/proc/${pid}/fd/${name}`))
  } catch {
    return [] // gone meanwhile, or of somebody else
  }
}
