/** Opens a union from its options: opens, checks and locks the layers. */

import {
  fstatx,
  mkdirat,
  HANDLE_ROOM,
  nameToHandle,
  openat,
  openat2,
  openPath,
  pathOf,
  StatFs,
  statfs,
} from '../sys/at.js'
import {
  AT_FDCWD,
  FUSE_SUPER_MAGIC,
  OVERLAYFS_SUPER_MAGIC,
  O_CREAT,
  O_DIRECTORY,
  O_EXCL,
  O_PATH,
  O_RDONLY,
  O_WRONLY,
  RESOLVE_BENEATH,
  RESOLVE_NO_SYMLINKS,
  STATX_ATTR_IMMUTABLE,
  TMPFS_MAGIC,
} from '../sys/constants.js'
import { E, errnoMessage, errnoName, isPassing } from '../sys/errno.js'
import { close, getFlags, ioctl } from '../sys/io.js'
import { clonePrivate, cloneWritable, isStrict } from '../sys/mount.js'
import { geteuid, mayReadAll, raiseNofile, umask, unshareFs } from '../sys/proc.js'
import { Stat } from '../sys/stat.js'
import { MountError } from '../errors.js'
import type { Logger } from '../log.js'
import { setDescriptorLimit } from './layer/descriptor-budget.js'
import { chooseXattrNames, assignXattrNames, warnOfUserXattrs } from './layer/choose-xattr-names.js'
import { IoPool } from './jobs/pool.js'
import { Layer, directoryFds } from './layer/layer.js'
import { DirCache } from './namei/dir-cache.js'
import { unregisterRecordDirs } from './owner/owner-access-records.js'
import { lockReader, lockUpper } from '../host/lock.js'
import { isXattrRefusal, XattrBit, OverlayXattrs } from './layer/overlay-xattrs.js'
import { mountOf, type MountInfo } from '../host/proc-mounts.js'
import { NodeTable } from './inode/nodes.js'
import type { Node } from './inode/node.js'
import type { ByteString, Notifier, Result } from './ops.js'
import type { UnionOptions } from './options.js'
import { canFindOrigins, encodeOrigin } from './layer/origin.js'
import { makeIdmap } from './owner/idmap.js'
import { workdirError, rootError } from './layer/refusals.js'
import { findOverrides, prepareUpperOverride } from './layer/stat-override-layers.js'
import { trustFor } from './layer/trust.js'
import { isSlowType, SlowLayers } from './jobs/slow-layers.js'
import { SlowThreads } from './jobs/slow-threads.js'
import { Place } from './inode/place.js'
import { shownIno } from './layer/context.js'
import type { Union } from './namei/context.js'
import { validateUnion } from '../host/validate.js'
import { hasOpaqueFile } from './layer/whiteout.js'
import { Workdir } from './copy-up/workdir.js'

export interface UnionDeps {
  log: Logger
  notifier: Notifier
  /** The kernel writes pages back: descriptors for writing are also open for reading. */
  writeback: boolean
  /** The kernel itself reads and writes files of the upper layer. Default: false. */
  passthrough?: boolean
  /** The kernel sends neither OPEN nor RELEASE. Default: false. */
  noOpen?: boolean
  /**
   * MS_* flags of the mount: they determine how access times in the upper layer change. Default: 0.
   */
  mountFlags?: number
  /** `validateUnion` has already checked the layers, or the caller has created them itself. */
  checked?: true
}

/** _IOR(0x15, 0, struct fsuuid2): the file system's UUID, since Linux 6.9. */
const FS_IOC_GETFSUUID = 0x80111500

/**
 * @throws {MountError} if the layers cannot form a union; all descriptors are closed then
 */
export function openState(options: UnionOptions, deps: UnionDeps): Union {
  if (deps.checked !== true) validateUnion(options)
  // Callers and ACLs determine the mode of a new object. The other threads of the process keep
  // their umask.
  if (unshareFs() >= 0) umask(0)
  setDescriptorLimit(raiseNofile())
  const opened: number[] = []
  try {
    return open(options, deps, opened)
  } catch (error) {
    unregisterRecordDirs(opened)
    for (const fd of opened) close(fd)
    throw error
  }
}

function open(given: UnionOptions, deps: UnionDeps, opened: number[]): Union {
  const { log } = deps
  let options = given
  const devs: number[] = []
  const layerOf = (option: string, path: string, index: number): Layer => {
    const cloned = openPrivate(path, opened)
    const fd = cloned < 0 ? openDirectory(option, path, opened) : cloned
    return createLayer(fd, path, index, devs, cloned >= 0)
  }
  const writable = options.upper !== undefined && !options.readOnly
  const both = writable ? openWritable(options, deps, opened) : null
  const upper =
    options.upper === undefined
      ? null
      : both === null
        ? layerOf('upperdir', options.upper, 0)
        : createLayer(both.upper, options.upper, 0, devs, both.isPrivate, both.movesTimes)
  const lowers = options.lower.map((path, i) => layerOf('lowerdir', path, i + 1))
  const base = both?.workdir ?? -1
  const choice = chooseXattrNames(options, base, upper)
  const xattrs = assignXattrNames(choice, upper, lowers, log)
  const trust = trustFor(choice.userPrefix, options.shared)
  if (trust === 'none') options = withoutRedirects(given, log)
  for (const layer of upper === null ? lowers : [upper, ...lowers]) {
    const lower = layer !== upper
    const bits = layer.xattrs.read(layer.fd, '', lower)
    if (bits < 0) throw rootError(layer, bits)
    // The root of an upper layer that was made opaque elsewhere may contain whiteouts; as the root
    // of a union it is merged.
    if (
      (bits & XattrBit.OPAQUE) !== 0 &&
      (!lower || layer.xattrs.opaque(layer.fd, '', lower) === 'x')
    )
      layer.root.xattrWhiteouts = true
  }
  const fs = new StatFs()
  let workdir: Workdir | null = null
  if (upper !== null && !writable) lockForReading(upper, options.work, lockTimeout(options))
  if (upper !== null && writable) {
    workdir = openWorkdir(options, base, upper, lowers, xattrs, log, opened)
    const bits = xattrs.read(upper.fd, '', false)
    if (bits < 0) throw rootError(upper, bits)
    upper.root.impure = (bits & XattrBit.IMPURE) !== 0
  }
  if (options.xattrPermissions !== 0) {
    findOverrides(lowers)
    if (upper !== null) prepareUpperOverride(upper, lowers, options.xattrPermissions, writable)
  }
  const idmap = makeIdmap(options.owners)
  if (idmap?.uids.hasRanges === true || idmap?.gids.hasRanges === true) {
    for (const layer of lowers) if (isIdmapped(layer.path)) layer.mountIdmap = idmap
  }
  const stacked = upper === null ? lowers : [upper, ...lowers]
  const opaqueAt = stacked.findIndex(layer => {
    const opaque = hasOpaqueFile(layer, layer !== upper, layer.fd, '.')
    if (opaque < 0) throw rootError(layer, opaque)
    return opaque > 0
  })
  const merged = opaqueAt < 0 ? stacked : stacked.slice(0, opaqueAt + 1)
  const st = new Stat()
  // The root shows the inode number of the upper root, which does not stay constant over copy-up
  // (kernel: ovl_get_root).
  const top = (upper ?? lowers[0]) as Layer
  const topStated = fstatx(top.fd, st)
  if (topStated < 0) throw rootError(top, topStated)
  const onTmpfs = upper !== null && statfs(upper.fd, fs) >= 0 && fs.type === TMPFS_MAGIC
  const fsCount = devs.length
  const { notifier } = deps
  const dirCache = new DirCache()
  const pool = new IoPool(log)
  const losesNumbers = !canFindOrigins(lowers)
  const pendingMessages = { count: 0 }
  const onSent = (result: Result): Result => {
    pendingMessages.count--
    return result
  }
  const renumbered = (directory: Node): void => {
    dirCache.drop(directory.id)
    const message = directory.lookups === 0 ? null : notifier.dropPages(directory.id)
    if (message === null) return
    pendingMessages.count++
    pool.submit({ kind: 'write', ...message }, onSent)
  }
  const nodes = new NodeTable(
    shownIno({ fsCount }, top, st.ino),
    merged.map(layer => layer.root),
    losesNumbers ? renumbered : null,
    dir => directoryFds.drop(dir),
    fd => pool.closeLater(fd),
  )
  return {
    options,
    log,
    notifier,
    upper,
    lowers,
    fds: directoryFds.join(),
    xattrs,
    trust,
    override: options.xattrPermissions !== 0,
    appliesOverrides:
      options.xattrPermissions !== 0 || lowers.some(layer => layer.mountIdmap !== null),
    idmap,
    workdir,
    pool,
    slow: slowLayers(lowers, log, pool, nodes),
    dirCache,
    losesNumbers,
    renumbered,
    pendingMessages,
    // With write-back the kernel shows the times that it has sent, even if the file system has
    // rounded them.
    writeback: deps.writeback && workdir?.keepsTimes() !== false,
    passthrough: deps.passthrough === true,
    noOpen: deps.noOpen === true,
    readsAll: mayReadAll(),
    syncIsFree: options.volatile || !options.fsync || onTmpfs,
    fsCount,
    nodes,
    st,
    place: new Place(),
    answering: null,
    copied: { objects: 0, bytes: 0 },
    nodeWithoutXattrs: 0,
  }
}

/** Registers the layers whose file system may block a system call. */
function slowLayers(
  lowers: Layer[],
  log: Logger,
  pool: IoPool,
  nodes: NodeTable,
): SlowLayers | null {
  const fs = new StatFs()
  const slow = lowers.filter(layer => statfs(layer.fd, fs) >= 0 && isSlowType(fs.type))
  if (slow.length === 0) return null
  const layers = new SlowLayers(new SlowThreads(log, pool.wakeFd), nodes)
  for (const layer of slow) {
    layer.slow = true
    layer.sharesExtents = false
    layers.register(layer.fd, false)
  }
  return layers
}

/**
 * Disables redirects: a server running as root follows no redirect that other users could have
 * written, and writes none.
 *
 * @throws {MountError} if the options request both (kernel: ovl_fs_params_verify)
 */
function withoutRedirects(options: UnionOptions, log: Logger): UnionOptions {
  const { redirectDir } = options
  if ((redirectDir === 'on' || redirectDir === 'follow') && options.userxattr === true)
    throw new MountError(
      `userxattr and redirect_dir=${redirectDir}: root follows no redirect in a user. attribute, because another user could have written it; leave out one of the two`,
      { option: 'redirect_dir', code: 'EINVAL' },
    )
  if (redirectDir === 'on')
    log.warn(
      { upperdir: options.upper },
      "redirect_dir=on is off: the upper layer takes no trusted. attributes, and root follows no redirect in a user. attribute, so directories of lower layers can't be renamed",
    )
  return { ...options, redirectDir: 'nofollow' }
}

function openDirectory(option: string, path: string, opened: number[]): number {
  const fd = openPath(path, O_RDONLY | O_DIRECTORY)
  if (fd < 0)
    throw new MountError(`${option}=${path} can't be opened: ${errnoMessage(-fd)}`, {
      option,
      path,
      code: errnoName(-fd),
    })
  opened.push(fd)
  return fd
}

/**
 * Whether a path is reached through an idmapped mount. Podman creates idmapped mounts for lower
 * layers if the kernel supports it, and also passes the same mapping as an option. The option then
 * applies only to the upper layer, which is not idmapped.
 */
const isIdmapped = (path: string): boolean =>
  mountAt(path)?.options.split(',').includes('idmapped') === true

/** The mount of the path itself, not the private mount through which the layer may be reached. */
function mountAt(path: string): MountInfo | undefined {
  const fd = openPath(path, O_RDONLY | O_DIRECTORY)
  if (fd < 0) return undefined
  const mount = mountOf(fd)
  close(fd)
  return mount
}

/**
 * Opens a lower layer through a private read-only mount, if the process may create one: the kernel
 * then rejects every write to the layer. Otherwise the caller opens the layer directly.
 */
function openPrivate(path: string, opened: number[]): Result {
  const tree = clonePrivate(path)
  if (tree < 0) return tree
  const fd = openat(tree, '.', O_RDONLY | O_DIRECTORY)
  close(tree)
  if (fd >= 0) opened.push(fd)
  return fd
}

/** Descriptors of the upper directory and the workdir. */
interface Writable {
  upper: number
  workdir: number
  /** Both are reached through the same private mount. */
  isPrivate: boolean
  /** Access times change according to the union's mount flags. */
  movesTimes: boolean
}

/**
 * Opens the upper directory and the workdir through a private mount, if the process may create one:
 * mounts below them are then hidden, and access times follow the union's flags. One mount must
 * contain both directories, because no rename leads from one mount into another. (Kernel:
 * ovl_get_upper, ovl_get_workdir.) Otherwise they are opened directly.
 *
 * @throws {MountError} also if every read must update an access time (strictatime) but some reads
 *   would not
 */
function openWritable(options: UnionOptions, deps: UnionDeps, opened: number[]): Writable {
  const { mountFlags = 0, passthrough = false, log } = deps
  const directories = [
    openDirectory('upperdir', options.upper ?? '', opened),
    openDirectory('workdir', options.work ?? '', opened),
  ] as const
  const shared = cloneOver(directories, mountFlags)
  if (typeof shared === 'number') log.debug({ errno: -shared }, 'no private mount of upperdir')
  const movesTimes = typeof shared !== 'number' && shared.movesTimes
  if (isStrict(mountFlags) && !(movesTimes && passthrough))
    throw new MountError(
      "strictatime: it takes io=passthrough and the privilege to set mount flags (root has it), because reads from the kernel's cache update no access time; leave it out",
      { option: 'strictatime', code: 'EINVAL' },
    )
  if (typeof shared === 'number')
    return { upper: directories[0], workdir: directories[1], isPrivate: false, movesTimes }
  for (const fd of directories) close(fd)
  const [upper, workdir] = shared.fds
  opened.splice(-2, 2, upper, workdir)
  return { upper, workdir, isPrivate: true, movesTimes }
}

const RESOLVE_INSIDE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS

/** Reopens two directories through a private mount of their nearest common ancestor; or -errno. */
function cloneOver(
  directories: readonly [number, number],
  flags: number,
): { fds: [number, number]; movesTimes: boolean } | Result {
  const paths = directories.map(fd => pathOf(fd).split('/'))
  const [one, other] = paths as [ByteString[], ByteString[]]
  let depth = 0
  while (depth < one.length - 1 && one[depth] === other[depth]) depth++
  const above = openat(AT_FDCWD, one.slice(0, depth).join('/') || '/', O_PATH | O_DIRECTORY)
  if (above < 0) return above
  let tree: Result = -E.EXDEV
  let movesTimes = true
  if (directories.every(fd => isSameMount(fd, above))) {
    tree = cloneWritable(above, flags)
    if (tree === -E.EPERM) {
      movesTimes = false
      tree = cloneWritable(above)
    }
  }
  close(above)
  if (tree < 0) return tree
  const fds = paths.map(names => {
    const path = names.slice(depth).join('/') || '.'
    return openat2(tree, path, O_RDONLY | O_DIRECTORY, 0, RESOLVE_INSIDE)
  }) as [number, number]
  close(tree)
  // Another process may have renamed a directory or mounted a file system in between.
  if (fds.every((fd, i) => fd >= 0 && isSameDirectory(fd, directories[i] as number)))
    return { fds, movesTimes }
  for (const fd of fds) if (fd >= 0) close(fd)
  return -E.ESTALE
}

const statOne = new Stat()
const statOther = new Stat()

const isSameMount = (one: number, other: number): boolean =>
  fstatx(one, statOne) >= 0 && fstatx(other, statOther) >= 0 && statOne.mntId === statOther.mntId

const isSameDirectory = (one: number, other: number): boolean =>
  fstatx(one, statOne) >= 0 &&
  fstatx(other, statOther) >= 0 &&
  statOne.dev === statOther.dev &&
  statOne.ino === statOther.ino

function createLayer(
  fd: number,
  path: string,
  index: number,
  devs: number[],
  isPrivate: boolean,
  movesTimes = false,
): Layer {
  const st = new Stat()
  const stated = fstatx(fd, st)
  if (stated < 0) throw rootError({ path, isUpper: index === 0 }, stated)
  let fsIndex = devs.indexOf(st.dev)
  if (fsIndex < 0) fsIndex = devs.push(st.dev) - 1
  const handle = Buffer.allocUnsafeSlow(HANDLE_ROOM)
  const answer = Buffer.allocUnsafeSlow(17).fill(0)
  // The length, then the bytes. A file system without a UUID keeps zeros.
  const uuid = Buffer.alloc(16)
  const identified = ioctl(fd, FS_IOC_GETFSUUID, answer)
  if (identified >= 0 && answer[0] === 16) answer.copy(uuid, 0, 1)
  // A file handle of a FUSE file system contains an inode number that may belong to another object
  // after a restart of its server.
  const fs = new StatFs()
  const handleLength = nameToHandle(fd, '', handle)
  const statfsResult = statfs(fd, fs)
  // After a temporary error the layer must not be used: origins written without UUID or file
  // handles would stay, and would not match those of a later mount.
  const failed = [identified, handleLength, statfsResult].find(isPassing)
  if (failed !== undefined) throw rootError({ path, isUpper: index === 0 }, failed)
  const handles = handleLength > 0 && statfsResult >= 0 && fs.type !== FUSE_SUPER_MAGIC
  const keepsInos = !handles && isUnion(mountAt(path))
  const keepsBirthTimes =
    statfsResult >= 0 && fs.type !== FUSE_SUPER_MAGIC && fs.type !== OVERLAYFS_SUPER_MAGIC
  const flags = (Number(st.attributes) & STATX_ATTR_IMMUTABLE) === 0 ? 0 : getFlags(fd)
  return new Layer({
    index,
    path,
    fd,
    dev: st.dev,
    fsIndex,
    uuid,
    handles,
    keepsInos,
    keepsBirthTimes,
    hasFlags: flags !== -E.ENOTTY && flags !== -E.EOPNOTSUPP,
    isPrivate,
    movesTimes,
  })
}

/**
 * Whether the inode numbers of a file system are those of its layers, and unique. fuse-overlayfs
 * shows numbers without the layers' devices. A server of another user may show any numbers, and its
 * owner also chooses the type of the mount.
 */
function isUnion(mount: MountInfo | undefined): boolean {
  if (mount === undefined || mount.type === 'overlay') return mount !== undefined
  const owners = [0, geteuid()].map(uid => `user_id=${uid}`)
  return (
    mount.type === 'fuse.tsoverlay' &&
    mount.superOptions.split(',').some(option => owners.includes(option))
  )
}

/** The timeout for locks; undefined: the default. */
const lockTimeout = ({ impatient }: UnionOptions): number | undefined =>
  impatient === true ? 0 : undefined

/**
 * Locks the upper layer of a read-only union.
 *
 * @throws {MountError} EBUSY: the layer is in use
 */
function lockForReading(upper: Layer, workdir = '', patience?: number): void {
  const fd = openPath(workdir, O_RDONLY | O_DIRECTORY)
  try {
    lockReader(upper.fd, fd, upper.path, workdir, patience)
  } finally {
    if (fd >= 0) close(fd)
  }
}

function openWorkdir(
  options: UnionOptions,
  base: number,
  upper: Layer,
  lowers: Layer[],
  xattrs: OverlayXattrs,
  log: Logger,
  opened: number[],
): Workdir {
  const path = options.work ?? ''
  lockUpper(upper.fd, base, upper.path, path, lockTimeout(options))
  const workdir = Workdir.open(base, upper.fd, options.whiteout, xattrs, log)
  const fail = (result: number): never => {
    throw workdirError(path, result)
  }
  if (typeof workdir === 'number') return fail(workdir)
  opened.push(workdir.fd)
  const canSetXattrs = xattrs.canSet(workdir.fd)
  if (canSetXattrs < 0) return fail(canSetXattrs)
  const hasXattrs = canSetXattrs > 0
  if (options.userxattr === 'auto') warnOfUserXattrs(upper, log)
  if (xattrs.infix === 'tsoverlay.') {
    // Tells the next mount which prefix is used.
    const result = xattrs.setXattrWhiteouts(upper.fd)
    if (result < 0) return fail(result)
    upper.root.xattrWhiteouts = true
    log.info(
      { upperdir: upper.path },
      `the file system of the upper layer keeps no overlay attributes: ${xattrs.names.prefix} is used, which only tsoverlay reads`,
    )
  }
  if (!hasXattrs)
    log.warn(
      { workdir: path },
      `overlay attributes can be written ${options.userxattr === false ? 'not as trusted. (try userxattr)' : 'neither as trusted. nor as user.'}: hard links part at copy-up, directories of lower layers cannot be renamed, and inode numbers change`,
    )
  if (options.index && hasXattrs && lowers.some(layer => layer.handles || layer.keepsInos)) {
    const result = workdir.openIndex(base)
    if (workdir.indexFd >= 0) opened.push(workdir.indexFd)
    if (result < 0) return fail(result)
    // Kernel: ovl_set_upper_fh. The upper xattr of the index directory identifies the upper layer.
    const origin = encodeOrigin(upper, upper.fd, '', true)
    const upperSet = Buffer.isBuffer(origin)
      ? xattrs.set(workdir.indexFd, '', 'upper', origin.toString('latin1'))
      : (origin ?? 0)
    const originSet = upperSet < 0 ? upperSet : setRootOrigin(upper, lowers[0], xattrs)
    if (originSet < 0 && !isXattrRefusal(originSet)) return fail(originSet)
  }
  if (options.volatile) createVolatileDirty(workdir.fd, path)
  return workdir
}

/**
 * Sets the origin of the upper root to the first lower layer: the index is valid only with this
 * lower layer (kernel: ovl_verify_origin, which otherwise refuses the mount).
 */
function setRootOrigin(upper: Layer, lower: Layer | undefined, xattrs: OverlayXattrs): Result {
  const present = xattrs.value(upper.fd, '', 'origin')
  if (lower === undefined || present !== null) return typeof present === 'number' ? present : 0
  const origin = encodeOrigin(lower, lower.fd, '')
  if (!Buffer.isBuffer(origin)) return origin ?? 0
  return xattrs.set(upper.fd, '', 'origin', origin.toString('latin1'))
}

/**
 * Creates `work/incompat/volatile/dirty`, which makes the next mount fail (kernel:
 * ovl_create_volatile_dirty).
 */
function createVolatileDirty(workFd: number, path: string): void {
  let fd = workFd
  for (const name of ['incompat', 'volatile']) {
    const made = mkdirat(fd, name, 0o700)
    const next = made >= 0 || made === -E.EEXIST ? openat(fd, name, O_RDONLY | O_DIRECTORY) : made
    if (fd !== workFd) close(fd)
    if (next < 0) throw volatileError(path, next)
    fd = next
  }
  const dirty = openat(fd, 'dirty', O_CREAT | O_EXCL | O_WRONLY, 0o600)
  if (dirty >= 0) close(dirty)
  close(fd)
  if (dirty < 0 && dirty !== -E.EEXIST) throw volatileError(path, dirty)
}

const volatileError = (path: string, result: Result): MountError =>
  new MountError(`workdir=${path}: the volatile mark can't be made: ${errnoMessage(-result)}`, {
    option: 'volatile',
    path,
    code: errnoName(-result),
  })
