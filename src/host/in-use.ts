/**
 * Checks whether a kernel overlayfs or a fuse-overlayfs uses a directory as its upper directory or
 * workdir. Neither takes a visible lock (lock.ts finds another tsoverlay), but /proc has the mount
 * options of the former and the command line of the latter. A directory that is a lower layer there
 * does not count.
 */

import * as fs from 'node:fs'
import { basename, dirname, posix } from 'node:path'

import { MountError } from '../errors.js'
import { unescapeOctal, type MountInfo } from './proc-mounts.js'
import { describe, namespaces, processes, type Namespace } from './mount-namespaces.js'
import { fuseConnectionsOf, fuseMountsOf } from './servers.js'

/**
 * A directory that the new mount uses as its upper directory or workdir, or a directory above it.
 */
export interface Wanted {
  option: string
  /** As given in the option. */
  path: string
  /** `path`, or the directory above it. */
  directory: string
  /** Its device and inode, `DEV:INO`. */
  key: string
}

/** The maximum number of mount namespaces that a mount searches, which bounds the time. */
const MAX_NAMESPACES = 256
/**
 * How long to wait for a fuse-overlayfs without a mount, in milliseconds: umount(8) returns before
 * the process has ended.
 */
const PATIENCE_MS = 3000
const POLL_MS = 10

/**
 * Device and inode number, which identify a directory under any name. Empty: it does not exist, or
 * access is denied.
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
 * @param wanted the upper directory and the workdir of the new mount, and the directories above
 *   them
 * @param mounts of this process
 * @param impatient do not wait for a mount that is about to end
 * @throws {MountError} EBUSY: another mount writes to one of them
 */
export const checkOthers = (
  wanted: readonly Wanted[],
  mounts: readonly MountInfo[],
  impatient = false,
): void => {
  const spaces = namespaces({ mounts, most: MAX_NAMESPACES, holding: 'overlay' })
  for (const space of spaces)
    for (const mount of space.mounts)
      if (mount.type === 'overlay') checkKernelMount(wanted, mount, space)
  if (spaces.some(space => space.mounts.some(isFuseOverlayfs)))
    checkFuseOverlayfs(wanted, impatient ? 0 : PATIENCE_MS)
}

const isFuseOverlayfs = ({ type, source }: MountInfo): boolean =>
  type === 'fuse.fuse-overlayfs' || (type === 'fuse' && source === 'fuse-overlayfs')

/** @param user the process or mount that uses the directory, and the remedy */
export const busy = (
  { option, path, directory }: Omit<Wanted, 'key'>,
  user: string,
): MountError => {
  const what = directory === path ? 'is' : `lies in ${directory}, which is`
  return new MountError(
    `${option}=${path} ${what} in use by ${user}, or choose another directory`,
    {
      option,
      path,
      code: 'EBUSY',
    },
  )
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
 * A relative path in the mount options is relative to the mounter's current directory, which is
 * unknown. But the root of an overlay has the inode number and the times of its upper directory
 * (kernel: ovl_get_root, ovl_getattr). So they are compared. `directory` may itself be above
 * another one.
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
      // The mountpoint must also be an argument: a free device number may belong to another mount
      // meanwhile.
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
      Atomics.wait(cell, 0, 0, POLL_MS) // unmounted: the process is about to end
    }
  }
}

const isSameName = (one: string, other: string): boolean => basename(one) === basename(other)

const cell = new Int32Array(new SharedArrayBuffer(4))

const argumentsOf = (pid: number): string[] => {
  try {
    return fs.readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')
  } catch {
    return [] // the process has ended
  }
}

/**
 * The values of `-o`, split at commas and without libfuse's escapes (fuse_opt.c:
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

/** The wanted directory that an option of another process names, resolved as in that process. */
const foundIn = (option: string, pid: number, wanted: readonly Wanted[]): Wanted | undefined => {
  const value = /^(?:upperdir|workdir)=(.+)$/s.exec(option)?.[1]
  if (value === undefined) return undefined
  if (value.startsWith('/')) return sameAs(wanted, keyOf(`/proc/${pid}/root${value}`))
  // In the background the process's current directory is `/`, so a relative path cannot be
  // resolved. But it has the upper directory open, and the directory `work` in the workdir.
  const name = posix.normalize(value).replace(/^(\.\.\/)+/, '')
  const [end, isWork] = option.startsWith('w') ? [posix.join(name, 'work'), true] : [name, false]
  const keys = openPaths(pid)
    .filter(path => path.endsWith(`/${end}`))
    .map(path => keyOf(`/proc/${pid}/root${isWork ? dirname(path) : path}`))
  return keys.map(key => sameAs(wanted, key)).find(one => one !== undefined)
}

/** The paths of a process's open files. */
const openPaths = (pid: number): string[] => {
  try {
    return fs.readdirSync(`/proc/${pid}/fd`).map(name => fs.readlinkSync(`/proc/${pid}/fd/${name}`))
  } catch {
    return [] // it has ended, or belongs to another user
  }
}
