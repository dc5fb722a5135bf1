/** From options to a union: opens, checks and locks the layers. */

import { fstatx, nameToHandle, openPath, StatFs, statfs, mkdirat, openat } from '../sys/at.js'
import {
  CAP_SYS_ADMIN,
  O_CREAT,
  O_DIRECTORY,
  O_RDONLY,
  O_WRONLY,
  TMPFS_MAGIC,
} from '../sys/constants.js'
import { E, errnoMessage, errnoName } from '../sys/errno.js'
import { close, ioctl } from '../sys/io.js'
import { clonePrivate } from '../sys/mount.js'
import {
  getrlimitNofile,
  hasCap,
  inInitialNamespace,
  mayReadAll,
  raiseNofile,
  umask,
  unshareFs,
} from '../sys/proc.js'
import { Stat } from '../sys/stat.js'
import { MountError } from '../errors.js'
import type { Logger } from '../log.js'
import { IoPool } from './io-pool.js'
import { DirFds, Layer } from './layer.js'
import { Listings } from './listing.js'
import { lockUpper } from './lock.js'
import { Mark, MarkReader } from './marks.js'
import { mountOf } from './mountinfo.js'
import { NodeTable, type Node } from './node.js'
import type { Notifier, Result } from './ops.js'
import type { UnionOptions } from './options.js'
import { canFindOrigins, encodeOrigin } from './origin.js'
import { makeOwners } from './owners.js'
import { findOverrides, prepareUpper } from './override-layers.js'
import { Place, shownIno, type Union } from './union.js'
import { validateUnion } from './validate.js'
import { hasDotOpaque } from './whiteout.js'
import { Workdir } from './work.js'

export interface UnionDeps {
  log: Logger
  notifier: Notifier
  /** The kernel writes back pages: descriptors of writers are opened for reading too. */
  writeback: boolean
  /** The kernel is to read and write files of the upper layer itself. Default: false. */
  passthrough?: boolean
  /** The kernel opens and closes files without a message. Default: false. */
  noOpen?: boolean
  /** The layers have passed `validateUnion`, or are the caller's own. */
  checked?: true
}

/** _IOR(0x15, 0, struct fsuuid2): the file system's UUID, since Linux 6.9. */
const FS_IOC_GETFSUUID = 0x80111500
/** Descriptors that are left to open files, threads and everything else. */
const SPARE_FDS = 64
const MOST_FOLDERS = 4096

/**
 * @throws {MountError} where the layers cannot make a union; nothing stays open then
 */
export function openState(options: UnionOptions, deps: UnionDeps): Union {
  if (deps.checked !== true) validateUnion(options)
  // Modes are as callers and ACLs say; the rest of the process keeps its own umask.
  if (unshareFs() >= 0) umask(0)
  const opened: number[] = []
  try {
    return open(options, deps, opened)
  } catch (error) {
    for (const fd of opened) close(fd)
    throw error
  }
}

function open(options: UnionOptions, deps: UnionDeps, opened: number[]): Union {
  const { log } = deps
  const devs: number[] = []
  const layerOf = (option: string, path: string, index: number): Layer => {
    const cloned = index === 0 ? -1 : openPrivate(path, opened)
    const fd = cloned < 0 ? openFolder(option, path, opened) : cloned
    return makeLayer(fd, path, index, devs, cloned >= 0)
  }
  const upper = options.upper === undefined ? null : layerOf('upperdir', options.upper, 0)
  const lowers = options.lower.map((path, i) => layerOf('lowerdir', path, i + 1))
  const writable = options.upper !== undefined && !options.readOnly
  const base = writable ? openFolder('workdir', options.work ?? '', opened) : -1
  const marks = new MarkReader(usesUserPrefix(options, base))
  for (const layer of upper === null ? lowers : [upper, ...lowers]) {
    const lower = layer !== upper
    const bits = marks.read(layer.fd, '', lower)
    // An upper root that was made opaque elsewhere has whiteouts all the same: as a root it is merged.
    if ((bits & Mark.OPAQUE) !== 0 && (!lower || marks.opaque(layer.fd, '', lower) === 'x'))
      layer.root.xattrWhiteouts = true
  }
  const fs = new StatFs()
  let work: Workdir | null = null
  if (upper !== null && writable) {
    work = openWork(options, base, upper, lowers, marks, log, opened)
    upper.root.impure = (marks.read(upper.fd, '', false) & Mark.IMPURE) !== 0
  }
  if (options.xattrPermissions !== 0) {
    findOverrides(lowers)
    if (upper !== null) prepareUpper(upper, lowers, options.xattrPermissions, writable)
  }
  const owners = makeOwners(options.owners)
  if (owners?.uids.hasRanges === true || owners?.gids.hasRanges === true) {
    for (const layer of lowers) if (isIdmapped(layer.path)) layer.shownBy = owners
  }
  const stacked = upper === null ? lowers : [upper, ...lowers]
  const cut = stacked.findIndex(layer => hasDotOpaque(layer.fd, '.'))
  const merged = cut < 0 ? stacked : stacked.slice(0, cut + 1)
  const st = new Stat()
  // The root shows the number of the upper root, with nothing constant over copy-up (kernel: ovl_get_root).
  const top = (upper ?? lowers[0]) as Layer
  fstatx(top.fd, st)
  const onTmpfs = upper !== null && statfs(upper.fd, fs) >= 0 && fs.type === TMPFS_MAGIC
  const fsCount = devs.length
  const { notifier } = deps
  const listings = new Listings()
  const pool = new IoPool(log)
  const fds = new DirFds(folderBudget())
  const losesNumbers = !canFindOrigins(lowers)
  const telling = { count: 0 }
  const told = (result: Result): Result => {
    telling.count--
    return result
  }
  const numberGone = (folder: Node): void => {
    listings.drop(folder.id)
    const message = folder.lookups === 0 ? null : notifier.dropPages(folder.id)
    if (message === null) return
    telling.count++
    pool.submit({ kind: 'write', ...message }, told)
  }
  return {
    options,
    log,
    notifier,
    upper,
    lowers,
    fds,
    marks,
    override: options.xattrPermissions !== 0,
    amends: options.xattrPermissions !== 0 || lowers.some(layer => layer.shownBy !== null),
    owners,
    work,
    pool,
    listings,
    losesNumbers,
    telling,
    writeback: deps.writeback,
    passthrough: deps.passthrough === true,
    noOpen: deps.noOpen === true,
    readsAll: mayReadAll(),
    syncIsFree: options.volatile || !options.fsync || onTmpfs,
    fsCount,
    nodes: new NodeTable(
      shownIno({ fsCount }, top, st.ino),
      merged.map(layer => layer.root),
      losesNumbers ? numberGone : null,
      dir => fds.drop(dir),
    ),
    st,
    place: new Place(),
    answering: null,
    bare: 0,
  }
}

/**
 * Whether marks have the prefix `user.`. Of itself it is taken where `trusted.` is refused: that belongs to
 * CAP_SYS_ADMIN in the initial user namespace.
 *
 * @param base the work folder, or -1 for a union that writes nothing
 */
function usesUserPrefix(options: UnionOptions, base: number): boolean {
  if (options.userxattr !== 'auto') return options.userxattr
  if (base < 0) return !hasCap(CAP_SYS_ADMIN) || !inInitialNamespace()
  return !new MarkReader(false).canSet(base) && new MarkReader(true).canSet(base)
}

function openFolder(option: string, path: string, opened: number[]): number {
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
 * Whether a path is reached through an idmapped mount. Podman makes those for lower layers where the kernel can,
 * and asks for the same mapping once more: it holds for the upper layer, which has none.
 */
function isIdmapped(path: string): boolean {
  const fd = openPath(path, O_RDONLY | O_DIRECTORY)
  if (fd < 0) return false
  const mount = mountOf(fd)
  close(fd)
  return mount?.options.split(',').includes('idmapped') === true
}

/**
 * A lower layer is reached through a private read-only mount where the process may make one: then the
 * kernel itself refuses every write to it. Else it is opened as it is.
 */
function openPrivate(path: string, opened: number[]): Result {
  const tree = clonePrivate(path)
  if (tree < 0) return tree
  const fd = openat(tree, '.', O_RDONLY | O_DIRECTORY)
  close(tree)
  if (fd >= 0) opened.push(fd)
  return fd
}

function makeLayer(
  fd: number,
  path: string,
  index: number,
  devs: number[],
  isPrivate: boolean,
): Layer {
  const st = new Stat()
  fstatx(fd, st)
  let fsIndex = devs.indexOf(st.dev)
  if (fsIndex < 0) fsIndex = devs.push(st.dev) - 1
  const handle = Buffer.allocUnsafeSlow(128)
  const answer = Buffer.allocUnsafeSlow(17).fill(0)
  // len, then the bytes; a file system without a UUID keeps zeros.
  const uuid = Buffer.alloc(16)
  if (ioctl(fd, FS_IOC_GETFSUUID, answer) >= 0 && answer[0] === 16) answer.copy(uuid, 0, 1)
  const handles = nameToHandle(fd, '', handle) > 0
  return new Layer({ index, path, fd, dev: st.dev, fsIndex, uuid, handles, isPrivate })
}

function openWork(
  options: UnionOptions,
  base: number,
  upper: Layer,
  lowers: Layer[],
  marks: MarkReader,
  log: Logger,
  opened: number[],
): Workdir {
  const path = options.work ?? ''
  lockUpper(upper.fd, base, upper.path, path)
  const work = Workdir.open(base, options.whiteout, marks, log)
  const fail = (result: number): never => {
    throw new MountError(
      `workdir=${path} can't be prepared: ${errnoMessage(-result)}; is its file system writable?`,
      { option: 'workdir', path, code: errnoName(-result) },
    )
  }
  if (typeof work === 'number') return fail(work)
  opened.push(work.fd)
  const marked = marks.canSet(work.fd)
  // Whoever mounted it with the other prefix has hidden things with it.
  if (options.userxattr === 'auto' && marks.onAll && marks.read(upper.fd, '', false) === 0)
    if (new MarkReader(true).read(upper.fd, '', false) !== 0)
      log.warn(
        { upperdir: upper.path },
        'the upper layer bears user.overlay. attributes, which are not read: what they hide may show; mount it with userxattr',
      )
  if (!marked)
    log.warn(
      { workdir: path },
      `overlay attributes can be written ${options.userxattr === false ? 'not as trusted. (try userxattr)' : 'neither as trusted. nor as user.'}: hard links part at copy-up, folders of lower layers cannot be renamed, and inode numbers change`,
    )
  if (options.index && marked && lowers.some(layer => layer.handles)) {
    const result = work.openIndex(base)
    if (result < 0) return fail(result)
    opened.push(work.indexFd)
    // Kernel: ovl_set_upper_fh on the index folder says which upper layer it belongs to.
    const origin = encodeOrigin(upper, upper.fd, '', true)
    if (origin !== null) marks.set(work.indexFd, '', 'upper', origin.toString('latin1'))
    markRootOrigin(upper, lowers[0], marks)
  }
  if (options.volatile) markVolatile(work.fd, path)
  return work
}

/**
 * Says on the upper root over which lower layer it lies: the index means nothing over another one (kernel:
 * ovl_verify_origin, which then refuses to mount).
 */
function markRootOrigin(upper: Layer, lower: Layer | undefined, marks: MarkReader): void {
  if (lower === undefined || marks.value(upper.fd, '', 'origin') !== null) return
  const origin = encodeOrigin(lower, lower.fd, '')
  if (origin !== null) marks.set(upper.fd, '', 'origin', origin.toString('latin1'))
}

/** Leaves `work/incompat/volatile/dirty`, which makes the next mount refuse (kernel: ovl_create_volatile_dirty). */
function markVolatile(workFd: number, path: string): void {
  let fd = workFd
  for (const name of ['incompat', 'volatile']) {
    const made = mkdirat(fd, name, 0o700)
    const next = made >= 0 || made === -E.EEXIST ? openat(fd, name, O_RDONLY | O_DIRECTORY) : made
    if (fd !== workFd) close(fd)
    if (next < 0)
      throw new MountError(
        `workdir=${path}: the volatile mark can't be made: ${errnoMessage(-next)}`,
        {
          option: 'volatile',
          path,
          code: errnoName(-next),
        },
      )
    fd = next
  }
  const dirty = openat(fd, 'dirty', O_CREAT | O_WRONLY, 0o600)
  if (dirty >= 0) close(dirty)
  close(fd)
}

/** How many standing handles may be open at once: half of what folders leave. */
export const standingBudget = (): number =>
  Math.max(16, Math.min(MOST_FOLDERS, (getrlimitNofile() - SPARE_FDS) >> 2))

/** How many folder descriptors may be open at once: what the limit allows, with room for the rest. */
function folderBudget(): number {
  const half = (raiseNofile() - SPARE_FDS) >> 1
  return Math.max(16, Math.min(MOST_FOLDERS, half))
}
