/**
 * The library's `mount()`: checks, the server, and a handle on it. The command line goes the same
 * way.
 */

import { closeSync, constants, openSync, realpathSync } from 'node:fs'
import { cwd } from 'node:process'

import { checkMountOptions, checkUnmountOptions } from '../config/check-options.js'
import { awaitEndings, noteLive } from '../host/endings.js'
import { MountError } from '../errors.js'
import { guardExit } from './exit-guard.js'
import type { Server } from './serve.js'
import { defaultTuning, type Tuning } from '../config/tuning.js'
import type { UnionThread } from './thread.js'
import { silentLogger, type Logger, type LogLevel } from '../log.js'
import { addMountFlag, type MountFlag } from '../config/mount-flags.js'
import {
  defaultUnionOptions,
  type IdRange,
  type OwnerOptions,
  type RedirectDir,
  type UnionOptions,
  type WhiteoutForm,
  type XattrPermissions,
} from '../overlay/options.js'
import type { Marker } from '../host/markers.js'
import { deviceOn, isCovered, readMountInfo } from '../host/proc-mounts.js'
import { checkId, checkRanges } from '../overlay/owner/idmap.js'
import { isKoffiMissing } from '../sys/koffi.js'

/** How file data travels. See README, "Data modes". */
export type IoMode = 'auto' | 'passthrough' | 'cached'

/** The way to the kernel. See README, "Transports". */
export type Transport = 'kernel' | 'fuse-native'

export interface MountOptions {
  /**
   * The read-only layers, top first; at least one. Relative paths start at the working directory.
   */
  lower: string | readonly string[]
  /** The writable layer. Without it the union is read-only. */
  upper?: string
  /**
   * An empty directory on the file system of `upper`, for the union's own use; required with
   * `upper`.
   */
  work?: string
  /** The directory to mount on. */
  mountpoint: string
  /** Refuse all writing although there is an `upper`. Default: false. */
  readOnly?: boolean
  /** How directories of a lower layer are renamed, as kernel overlayfs' option. Default: `off`. */
  redirectDir?: RedirectDir
  /** How deletions are written. Default: `auto`, the kernel's form where it can be made. */
  whiteout?: WhiteoutForm
  /** Keep hard links whole over copy-up and remount. Default: true. */
  index?: boolean
  /**
   * Use `user.overlay.` attributes instead of `trusted.overlay.`. Default: where those can't be
   * written, which is so for an ordinary user and in a user namespace.
   */
  userxattr?: boolean
  /** Never sync: faster, and after a crash the upper layer is lost. Default: false. */
  volatile?: boolean
  /**
   * User ids of the layers as the union shows them, and back: what is created or changed through it
   * gets the id on disk. An id in no range is shown as the kernel's overflow id (65534), and
   * setting or creating with one fails with EOVERFLOW. Default: as they are on disk.
   */
  uidMapping?: readonly IdRange[]
  /** Group ids, as `uidMapping`. */
  gidMapping?: readonly IdRange[]
  /**
   * Show everything as belonging to this user. What is created or changed has its own owner on
   * disk, where that can be.
   */
  squashToUid?: number
  /** Show everything as belonging to this group. */
  squashToGid?: number
  /** `squashToUid: 0` and `squashToGid: 0`, where they are not given. Default: false. */
  squashToRoot?: boolean
  /**
   * Keep owner, mode and type in an attribute of the upper layer, for who may not give files away
   * or make devices. 1: `security.fuseoverlayfs.override_stat`, which takes CAP_SYS_ADMIN; 2:
   * `user.containers.override_stat`, as containers/storage has it. Lower layers are read so where
   * their root has the attribute. Default: 0, the inode's own are kept and shown.
   */
  xattrPermissions?: XattrPermissions
  /** Default: `auto`. */
  io?: IoMode
  /**
   * Open and close files without a message to the server, in the mode `cached`. What open(2) would
   * refuse, a write or the close after it refuses then. Default: only where it changes nothing. See
   * SEMANTICS.md.
   */
  noOpen?: boolean
  /**
   * Default: `kernel`. The other one needs the package fuse-native, and cannot do all that this one
   * does.
   */
  transport?: Transport
  /** The source that /proc/mounts shows. Default: `tsoverlay`. */
  fsname?: string
  /** What /proc/mounts shows after `fuse.`. Default: `tsoverlay`. */
  subtype?: string
  /** Let users other than the mounter in. Default: true for root, else false. */
  allowOther?: boolean
  /** Mount flags such as `nosuid`, `nodev`, `noexec`, `noatime`. A later word wins. */
  flags?: readonly MountFlag[]
  /**
   * How long the kernel may keep names and attributes, in seconds. Default: the transport's own.
   */
  timeout?: number
  /** Receives what the server has to say (pino's shape). Default: nothing is logged. */
  logger?: Logger
  /**
   * The lowest level that the server sends to `logger`. Default: `info`, or `silent` without a
   * logger.
   */
  logLevel?: LogLevel
}

/**
 * A key that MountOptions does not have is an error of types also where the options come in a
 * variable.
 */
export type NoOtherKeys<T extends MountOptions> = T & {
  readonly [K in Exclude<keyof T, keyof MountOptions>]: never
}

/** A live mount. */
export interface Mount extends AsyncDisposable {
  /** The directory it is mounted on: absolute, without symlinks. */
  readonly mountpoint: string
  /** The data mode in use. */
  readonly io: 'passthrough' | 'cached'
  /**
   * Resolves when the mount has ended, whoever ended it, and every layer is closed; rejects when
   * the server died of an error.
   */
  readonly closed: Promise<void>
  /**
   * Unmounts, and waits until the server is gone (not with `lazy`). Does nothing when the mount has
   * ended already.
   * @param options `lazy`: take the mount out of the tree at once; files that are open go on
   *   working, and `closed` resolves when the last of them is closed
   * @throws {MountError} `EBUSY`: somebody has a file open or works in a directory of it (without
   *   `lazy`)
   */
  unmount(options?: { lazy?: boolean }): Promise<void>
  /** Counters of the server: numbers of nodes, handles, requests. The names may change. */
  stats(): Promise<Record<string, number>>
  /**
   * For `await using`: unmounts, lazily where it is busy; does not wait for files that stay open.
   */
  [Symbol.asyncDispose](): Promise<void>
}

/**
 * Mounts a union. The server runs in a thread of its own (with `transport: 'fuse-native'`, in a process
 * of its own), so that the program may use its own mount, even with synchronous calls. A live mount keeps
 * the process alive; when the process ends all the same, the mount is detached.
 *
 * @returns the mount, when it is live
 * @throws {MountError} nothing is mounted; the message names the option, the path and the way out
 * @example
 * const m = await mount({ lower: ['/a', '/b'], upper: '/u', work: '/w', mountpoint: '/mnt/m' })
 */
export const mount = async <T extends MountOptions>(given: NoOtherKeys<T>): Promise<Mount> => {
  checkMountOptions(given)
  const options: MountOptions = given
  const here = workingDirectory()
  const union: UnionOptions = {
    lower: [options.lower].flat().map(path => absolute(path, here)),
    redirectDir: options.redirectDir ?? defaultUnionOptions.redirectDir,
    whiteout: options.whiteout ?? defaultUnionOptions.whiteout,
    index: options.index ?? defaultUnionOptions.index,
    shared: defaultUnionOptions.shared,
    userxattr: options.userxattr ?? defaultUnionOptions.userxattr,
    volatile: options.volatile ?? defaultUnionOptions.volatile,
    fsync: defaultUnionOptions.fsync,
    readOnly: options.readOnly ?? defaultUnionOptions.readOnly,
    xattrPermissions: options.xattrPermissions ?? defaultUnionOptions.xattrPermissions,
  }
  if (options.upper !== undefined) union.upper = absolute(options.upper, here)
  if (options.work !== undefined) union.work = absolute(options.work, here)
  const owners = ownersOf(options)
  if (owners !== undefined) union.owners = owners

  let mountFlags = union.readOnly ? addMountFlag(0, 'ro') : 0
  for (const flag of options.flags ?? []) {
    mountFlags = addMountFlag(mountFlags, flag)
    if (flag === 'ro' || flag === 'rw') union.readOnly = flag === 'ro'
  }
  return startMount({
    union,
    mountpoint: absolute(options.mountpoint, here),
    io: options.io ?? 'auto',
    transport: options.transport ?? 'kernel',
    fsname: options.fsname,
    subtype: options.subtype,
    allowOther: options.allowOther,
    mountFlags,
    timeout: options.timeout,
    tuning: { ...defaultTuning, noOpen: options.noOpen ?? defaultTuning.noOpen },
    logger: options.logger ?? silentLogger,
    logLevel: options.logLevel ?? (options.logger === undefined ? 'silent' : 'info'),
  })
}

/** @throws {MountError} */
const ownersOf = (options: MountOptions): OwnerOptions | undefined => {
  const { uidMapping, gidMapping, squashToUid, squashToGid, squashToRoot } = options
  const owners: OwnerOptions = squashToRoot === true ? { squashUid: 0, squashGid: 0 } : {}
  if (uidMapping !== undefined) {
    checkRanges('uidMapping', 'uidMapping', uidMapping)
    owners.uids = [...uidMapping]
  }
  if (gidMapping !== undefined) {
    checkRanges('gidMapping', 'gidMapping', gidMapping)
    owners.gids = [...gidMapping]
  }
  if (squashToUid !== undefined) {
    checkId('squashToUid', `squashToUid: ${squashToUid}`, squashToUid)
    owners.squashUid = squashToUid
  }
  if (squashToGid !== undefined) {
    checkId('squashToGid', `squashToGid: ${squashToGid}`, squashToGid)
    owners.squashGid = squashToGid
  }
  return Object.keys(owners).length === 0 ? undefined : owners
}

/** @throws {MountError} where it was removed: a thread can't be started there */
const workingDirectory = (): string => {
  try {
    return cwd()
  } catch (error) {
    throw new MountError(
      "the program's working directory was removed; change to another one first (process.chdir)",
      { code: 'ENOENT', cause: error },
    )
  }
}

/** Servers that are not this process. */
const others = new WeakMap<Mount, Server>()

/**
 * Ends a server at once, where it has a process of its own; else false. Who has files open there
 * gets ENOTCONN.
 */
export const killServer = (handle: Mount): boolean => others.get(handle)?.kill?.() ?? false

/** What `startMount` needs: paths are absolute, words are parsed. */
export interface StartOptions {
  union: UnionOptions
  mountpoint: string
  io: IoMode
  transport: Transport
  fsname: string | undefined
  subtype: string | undefined
  allowOther: boolean | undefined
  mountFlags: number
  timeout: number | undefined
  tuning: Tuning
  logger: Logger
  logLevel: LogLevel
  /** Wait for no other process that is about to let go of a directory: EBUSY at once. */
  impatient?: boolean
  /** A thread of `startEarly`. */
  thread?: UnionThread | undefined
  /** Its thread may serve other unions of this process, too (server/serve.ts). */
  share?: boolean
}

/**
 * Checks everything that can be checked without leaving a trace, then starts the server.
 * @throws {MountError}
 */
export const startMount = async (options: StartOptions): Promise<Mount> => {
  checkNoOpen(options)
  // Loaded only now: they bring the foreign-function library with them.
  const [{ validateMountpoint, validateUnion }, { keysOf }, { chooseWay, hasMountRight }] =
    await Promise.all([
      import('../host/validate.js'),
      import('../host/markers.js'),
      import('../fuse/mount/mount.js'),
    ]).catch(noLibrary)
  const mounts = readMountInfo()
  validateUnion(options.union, options.impatient, mounts)
  validateMountpoint(options.mountpoint, options.union, mounts)
  checkDevice('/dev/fuse')
  const writable = [options.union.upper, options.union.work].filter(path => path !== undefined)
  await awaitEndings(writable)
  const mountpoint = realpathSync.native(options.mountpoint)
  const keys = keysOf(options.union) // the mount may hide them

  const native = options.transport === 'fuse-native'
  const allowOther = options.allowOther ?? process.geteuid?.() === 0
  if (native && !hasMountRight()) throw noRightForNative(options.mountpoint)
  const way = chooseWay(options.mountpoint, allowOther)
  if (native) await options.thread?.terminate()
  const { startServer } = await (native ? import('../fuse-native/serve.js') : import('./serve.js'))
  const server = await startServer(
    {
      union: { ...options.union, shared: allowOther, impatient: options.impatient === true },
      mountpoint,
      way,
      io: options.io,
      fsname: options.fsname ?? 'tsoverlay',
      subtype: options.subtype ?? 'tsoverlay',
      allowOther,
      mountFlags: options.mountFlags,
      logLevel: options.logLevel,
      tuning: options.tuning,
      ...(options.timeout === undefined ? {} : { timeout: options.timeout }),
    },
    options.logger,
    options.thread,
    options.share,
  )
  const device = deviceOn(mountpoint)
  const place = device === undefined ? undefined : { device, mountpoint }
  if (device !== undefined) {
    const [{ mark }, { answerFor }] = await Promise.all([
      import('../host/mark.js'),
      import('./questions.js'),
    ])
    const { fd, end } = answerFor(device, {
      stats: () => server.stats(),
      explain: async names => server.explain?.(names),
    })
    const marked = { ...markOf(options), mountpoint, device, keys, io: server.io }
    const unmark = mark({ ...marked, questions: fd })
    const gone = (): void => {
      unmark()
      end()
    }
    server.closed.then(gone, gone)
  }
  const handle = handleOf(server, device, noteLive(writable, place, server.closed))
  others.set(handle, server)
  await guardExit(handle, () => server.abandon(), device)
  return handle
}

/**
 * The `Mount` around a server.
 * @param device what is mounted, as /proc/self/mountinfo names it: unmounting goes by path, and
 *   must not hit what somebody else has mounted on top
 * @param onLazy called before it is unmounted lazily
 */
export const handleOf = (server: Server, device?: string, onLazy = (): void => {}): Mount => {
  let ended = false
  const closed = server.closed.finally(() => {
    ended = true
  })
  closed.catch(() => {}) // whoever wants to know awaits `closed`; nobody has to
  const unmount = async (options: { lazy?: boolean } = {}): Promise<void> => {
    checkUnmountOptions(options)
    const { lazy = false } = options
    if (ended) return
    if (device !== undefined && isCovered(server.mountpoint, device)) {
      throw new MountError(`${server.mountpoint} is covered by another mount; unmount that first`, {
        option: 'mountpoint',
        path: server.mountpoint,
        code: 'EBUSY',
      })
    }
    if (lazy) onLazy()
    await server.unmount({ lazy })
  }
  return {
    mountpoint: server.mountpoint,
    io: server.io,
    closed,
    unmount,
    stats: () => server.stats(),
    [Symbol.asyncDispose]: async () => {
      try {
        await unmount()
      } catch (error) {
        if (!(error instanceof MountError) || error.code !== 'EBUSY') throw error
        await unmount({ lazy: true })
      }
    },
  }
}

/**
 * Whether FUSE is there and may be used.
 * @throws {MountError}
 */
export const checkDevice = (device: string): void => {
  try {
    closeSync(openSync(device, constants.O_RDWR))
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'EIO'
    const [what, wayOut] =
      code === 'ENOENT' || code === 'ENODEV' || code === 'ENXIO'
        ? ['this machine offers no FUSE', 'load it with: modprobe fuse; into a container, pass']
        : code === 'EACCES' || code === 'EPERM'
          ? ['no right to use FUSE', "change the device's mode, or into a container, pass"]
          : [`can't be opened (${code})`, 'into a container, pass']
    throw new MountError(`${device}: ${what}; ${wayOut} --device /dev/fuse`, {
      option: 'mountpoint',
      path: device,
      code,
      cause: error,
    })
  }
}

/** The foreign-function library can't be loaded (sys/koffi.ts). @throws {MountError} */
const noLibrary = (error: unknown): never => {
  if (!isKoffiMissing(error)) throw error
  throw new MountError(error.message, { code: error.code, cause: error })
}

const noNoOpen = (reason: string): MountError =>
  new MountError(`noopen: ${reason}`, { option: 'noopen', code: 'EINVAL' })

/** What excludes files that are opened without a message. @throws {MountError} */
const checkNoOpen = ({ io, tuning }: StartOptions): void => {
  if (!tuning.noOpen) return
  if (io === 'passthrough')
    throw noNoOpen('with io=passthrough every open is a message; use io=cached, or leave it out')
  // It is by an attribute that a file which may not be written says so.
  if (!tuning.xattrs) throw noNoOpen('it needs attributes; leave out noxattrs=1')
}

const noRightForNative = (mountpoint: string): MountError =>
  new MountError(
    `mountpoint=${mountpoint}: no right to mount, which the transport fuse-native needs; use the transport kernel, or run as root or in a user namespace of your own (unshare -rm)`,
    { option: 'mountpoint', path: mountpoint, code: 'EPERM' },
  )

/** What others are told of a mount, as far as its options say. */
const markOf = ({
  union,
}: StartOptions): Omit<Marker, 'mountpoint' | 'device' | 'keys' | 'io' | 'questions'> => ({
  lower: union.lower,
  ...(union.upper === undefined ? {} : { upper: union.upper }),
  ...(union.work === undefined ? {} : { work: union.work }),
  writable: union.upper !== undefined && !union.readOnly,
  since: Date.now(),
})

/** An absolute path; nothing but the start is changed. */
const absolute = (path: string, here: string): string =>
  path.startsWith('/') ? path : `${here === '/' ? '' : here}/${path}`
