/**
 * The library's `mount()`: checks the options, starts the server and returns a handle. The command
 * line uses the same functions.
 */

import type { Mount } from './live-mount.js'
import { closeSync, constants, openSync, realpathSync } from 'node:fs'
import { cwd } from 'node:process'

import { checkMountOptions, checkUnmountOptions } from '../config/check-options.js'
import { awaitEndings, registerMount } from '../host/endings.js'
import { MountError } from '../errors.js'
import { guardExit } from './exit-guard.js'
import type { Server } from './transport.js'
import { defaultTuning, type Tuning } from '../config/tuning.js'
import type { UnionThread } from './thread.js'
import { silentLogger, type Logger, type LogLevel } from '../log.js'
import { defaultUnionOptions } from '../config/defaults.js'
import { checkId, checkRanges } from '../config/ids.js'
import { addMountFlag } from '../config/mount-flags.js'
import type { Assert, LibraryKey, Same } from '../config/table.js'
import type { IoMode, MountFlag, Transport } from '../config/types.js'
import type {
  IdRange,
  OwnerOptions,
  RedirectDir,
  UnionOptions,
  WhiteoutForm,
  XattrPermissions,
} from '../overlay/options.js'
import type { Marker } from '../host/markers.js'
import { deviceOn, isCovered, readMountInfo } from '../host/proc-mounts.js'
import { isKoffiMissing } from '../sys/koffi.js'

export interface MountOptions {
  /**
   * The read-only layers, topmost first; at least one. Relative paths start at the process's
   * current directory.
   */
  lower: string | readonly string[]
  /** The writable layer. Without it the union is read-only. */
  upper?: string
  /**
   * The workdir: an empty directory on the filesystem of `upper`, for the union's internal use.
   * Required with `upper`.
   */
  work?: string
  /** The mountpoint, a directory. */
  mountpoint: string
  /** Refuse all writes although there is an `upper`. Default: false. */
  readOnly?: boolean
  /**
   * How directories of a lower layer are renamed; see the option of kernel overlayfs. Default:
   * `off`.
   */
  redirectDir?: RedirectDir
  /** The form of new whiteouts. Default: `auto`, the kernel's form if it can be created. */
  whiteout?: WhiteoutForm
  /** Preserve hard links across copy-up and remount. Default: true. */
  index?: boolean
  /**
   * Use `user.overlay.` xattrs instead of `trusted.overlay.`. Default: true if the latter cannot be
   * written, as for an ordinary user and in a user namespace.
   */
  userxattr?: boolean
  /** Never sync. Faster, but a crash destroys the upper layer. Default: false. */
  volatile?: boolean
  /**
   * Maps user ids of the layers to ids of the union. A file that is created or changed through the
   * union gets the layer's id on disk. An id outside all ranges is shown as the kernel's overflow
   * id (65534); setting it, or creating with it, fails with EOVERFLOW. Default: no mapping.
   */
  uidMapping?: readonly IdRange[]
  /** Maps group ids, like `uidMapping`. */
  gidMapping?: readonly IdRange[]
  /**
   * Show this user as the owner of everything. On disk, a file that is created or changed gets its
   * real owner if possible.
   */
  squashToUid?: number
  /** Show this group as the group of everything. */
  squashToGid?: number
  /** The same as `squashToUid: 0` and `squashToGid: 0`, unless these are given. Default: false. */
  squashToRoot?: boolean
  /**
   * Stat override: keep owner, mode and type in an xattr of the upper layer, for users that may not
   * change owners or create devices. 1: `security.fuseoverlayfs.override_stat`, which needs
   * CAP_SYS_ADMIN. 2: `user.containers.override_stat`, as in containers/storage. Lower layers are
   * read this way if their root directory has the xattr. Default: 0, the inode's own attributes are
   * used.
   */
  xattrPermissions?: XattrPermissions
  /** Default: `auto`. */
  io?: IoMode
  /**
   * Open and close files without requests to the server, in the io mode `cached`. Errors of open(2)
   * are then reported by a later write(2) or close(2). Default: only if it changes no result. See
   * docs/IO-MODES.md.
   */
  noOpen?: boolean
  /** Default: `kernel`. The other one needs the package fuse-native and supports fewer features. */
  transport?: Transport
  /** The source that /proc/mounts shows. Default: `tsoverlay`. */
  fsname?: string
  /** The type that /proc/mounts shows after `fuse.`. Default: `tsoverlay`. */
  subtype?: string
  /** Other users than the mounter have access. Default: true for root, else false. */
  allowOther?: boolean
  /**
   * Mount flags such as `nosuid`, `nodev`, `noexec`, `noatime`. A later word overrides an earlier
   * one.
   */
  flags?: readonly MountFlag[]
  /**
   * How long the kernel may cache names and attributes, in seconds. Default: depends on the
   * transport.
   */
  timeout?: number
  /** Receives the server's log messages (in pino's shape). Default: no log. */
  logger?: Logger
  /**
   * The lowest level that the server passes to `logger`. Default: `info`, or `silent` without a
   * logger.
   */
  logLevel?: LogLevel
}

/** Compile-time: the keys are those of the table of options. */
export type KeysAreThoseOfTheTable = Assert<Same<keyof MountOptions, LibraryKey>>

/**
 * Makes a key that MountOptions does not have a type error, even if the options are passed in a
 * variable.
 */
export type NoOtherKeys<T extends MountOptions> = T & {
  readonly [K in Exclude<keyof T, keyof MountOptions>]: never
}

/**
 * Mounts a union. The server runs in a thread of its own, or with `transport: 'fuse-native'` in a
 * process of its own. So the program may use its own mount, even with synchronous calls. A live
 * mount keeps the process alive. If the process exits nevertheless, the mount is detached.
 *
 * @returns the mount, when it is live
 * @throws {MountError} nothing is mounted; the message names the option, the path and the remedy
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

/** @throws {MountError} the current directory was removed, so no thread can be started */
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

/** The server of each mount. */
const servers = new WeakMap<Mount, Server>()

/**
 * Kills a server at once if it is a process of its own; else returns false. Processes with open
 * files on the mount get ENOTCONN.
 */
export const killServer = (handle: Mount): boolean => servers.get(handle)?.kill?.() ?? false

/** The input of `startMount`: paths are absolute, option words are parsed. */
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
  /**
   * Fail with EBUSY at once, rather than wait for another process that is about to release a
   * directory.
   */
  impatient?: boolean
  /** A thread that `startEarly` has started. */
  thread?: UnionThread | undefined
  /** The union may share its thread with other unions of this process (server/serve.ts). */
  share?: boolean
}

/**
 * Checks everything that can be checked without side effects, then starts the server.
 * @throws {MountError}
 */
export const startMount = async (options: StartOptions): Promise<Mount> => {
  checkNoOpen(options)
  // Loaded late because they load the foreign-function library.
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
  const handle = handleOf(server, device, registerMount(writable, place, server.closed))
  servers.set(handle, server)
  await guardExit(handle, () => server.abandon(), device)
  return handle
}

/**
 * The `Mount` of a server.
 * @param device the mounted device, as major:minor. Unmounting goes by path, and must not hit
 *   another filesystem that was mounted on top
 * @param onLazy called before a lazy unmount
 */
export const handleOf = (server: Server, device?: string, onLazy = (): void => {}): Mount => {
  let ended = false
  const closed = server.closed.finally(() => {
    ended = true
  })
  closed.catch(() => {}) // Callers need not await `closed`.
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
 * Checks that /dev/fuse exists and can be opened.
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

/**
 * Turns the error of a missing foreign-function library (sys/koffi.ts) into a MountError. @throws
 * {MountError}
 */
const noLibrary = (error: unknown): never => {
  if (!isKoffiMissing(error)) throw error
  throw new MountError(error.message, { code: error.code, cause: error })
}

const noNoOpen = (reason: string): MountError =>
  new MountError(`noopen: ${reason}`, { option: 'noopen', code: 'EINVAL' })

/** Refuses options that exclude noopen. @throws {MountError} */
const checkNoOpen = ({ io, tuning }: StartOptions): void => {
  if (!tuning.noOpen) return
  if (io === 'passthrough')
    throw noNoOpen('with io=passthrough every open is a message; use io=cached, or leave it out')
  // The server signals a file that may not be written with an xattr.
  if (!tuning.xattrs) throw noNoOpen('it needs attributes; leave out noxattrs=1')
}

const noRightForNative = (mountpoint: string): MountError =>
  new MountError(
    `mountpoint=${mountpoint}: no right to mount, which the transport fuse-native needs; use the transport kernel, or run as root or in a user namespace of your own (unshare -rm)`,
    { option: 'mountpoint', path: mountpoint, code: 'EPERM' },
  )

/** The part of the mount's marker, which other processes read, that the options determine. */
const markOf = ({
  union,
}: StartOptions): Omit<Marker, 'mountpoint' | 'device' | 'keys' | 'io' | 'questions'> => ({
  lower: union.lower,
  ...(union.upper === undefined ? {} : { upper: union.upper }),
  ...(union.work === undefined ? {} : { work: union.work }),
  writable: union.upper !== undefined && !union.readOnly,
  since: Date.now(),
})

/** Makes a path absolute by a prefix; the path itself is not normalized. */
const absolute = (path: string, here: string): string =>
  path.startsWith('/') ? path : `${here === '/' ? '' : here}/${path}`
