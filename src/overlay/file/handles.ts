/** Open files, and operations on them. */

import { FileHandle } from '../inode/node.js'
import { fstatx } from '../../sys/at.js'
import {
  O_ACCMODE,
  O_APPEND,
  O_CREAT,
  O_DIRECT,
  O_DIRECTORY,
  O_EXCL,
  O_NOATIME,
  O_RDONLY,
  O_RDWR,
  O_TRUNC,
  O_WRONLY,
  S_ISGID,
  S_ISUID,
} from '../../sys/constants.js'
import { E } from '../../sys/errno.js'
import { close, dup, ftruncate, lseek as seek, moveTo, pread, pwrite } from '../../sys/io.js'
import { offPlus, type Off } from '../../sys/types.js'
import { claim } from '../../sys/slow.js'
import { Stat } from '../../sys/stat.js'
import { openToTruncate, truncateat } from '../../sys/truncate.js'
import { invalidateAttrs } from '../inode/invalidate.js'
import { copyUp } from '../copy-up/copy-up.js'
import { truncateInBackground, freesMuch } from './truncate.js'
import { statPlace } from '../inode/drop-privileges.js'
import {
  addHandle,
  isMappable,
  isOpenToWrite,
  removeHandle,
  setFd,
  withDescriptor,
} from '../inode/handle-list.js'
import { isSame } from '../layer/real-identity.js'
import {
  dropForWrite,
  isPrivileged,
  restoreMtime,
  readLostCapability,
  restoreCapability,
  restoreSetId,
} from '../inode/killpriv.js'
import { accessToOpen, withOwnerAccess } from '../owner/owner-access.js'
import { openData, resolveMetacopy } from '../copy-up/metacopy.js'
import { Node, throwIfBusy, Protect } from '../inode/node.js'
import { Pending, type Caller, type Fh, type Opened, type Result } from '../ops.js'
import { applyOverride } from '../layer/stat-override.js'
import { openRegular, orPending, reopenRegular } from '../layer/open-regular.js'
import { isReadOnly } from '../inode/context.js'
import { Place } from '../inode/place.js'
import { layerOf, locate, statNode } from '../inode/real-object.js'
import type { CopyUpContext } from '../copy-up/context.js'
import { CHANGED, forgetVersion, isOtherVersion } from '../inode/lower-version.js'

export class HandleTable {
  readonly #files = new Map<Fh, FileHandle>()
  #next = 1

  get(fh: Fh): FileHandle | undefined {
    return this.#files.get(fh)
  }

  add(node: Node, fd: number, writable: boolean, keepsTime = false): FileHandle {
    const handle = new FileHandle(this.#next++, node, fd, writable, keepsTime)
    if (fd >= 0) claim(fd)
    this.#files.set(handle.fh, handle)
    node.unread = -1
    if (writable) forgetVersion(node)
    if (node.handles === null) node.handles = [handle]
    else addHandle(node.handles, handle)
    return handle
  }

  remove(fh: Fh): FileHandle | undefined {
    const handle = this.#files.get(fh)
    if (handle === undefined) return undefined
    this.#files.delete(fh)
    const list = handle.node.handles
    if (list !== null) {
      removeHandle(list, handle)
      if (list.length === 0) handle.node.handles = null
    }
    if (handle.fd >= 0) close(handle.fd)
    return handle
  }

  /** The handle to read through, or -errno. */
  reading(fh: Fh): FileHandle | Result {
    return this.#files.get(fh) ?? -E.EBADF
  }

  /**
   * The handle to write through, or -errno.
   *
   * @param _late as in `Ops.write`
   * @throws Pending if the file must be copied up first (inode-files.ts)
   */
  writing(fh: Fh, _late: boolean): FileHandle | Result {
    const handle = this.#files.get(fh)
    if (handle === undefined || !handle.writable) return -E.EBADF
    const result = handle.onlyReads ? openForWriting(handle) : 0
    return result < 0 ? result : handle
  }

  /** The kernel has taken back all lookups of a node that has handles. */
  forgotten(_node: Node): void {}

  /** As in `Ops`. Must not be called while a handle is in use. */
  closeIdleFds(): boolean {
    return false // every handle is a file that a caller has open
  }

  get size(): number {
    return this.#files.size
  }

  closeAll(): void {
    for (const handle of this.#files.values()) if (handle.fd >= 0) close(handle.fd)
    this.#files.clear()
  }
}

/**
 * Replaces the file behind the descriptor; the descriptor keeps its number, which the transport
 * knows.
 */
function openForWriting(handle: FileHandle): Result {
  const fd = reopenRegular(handle.fd, O_RDWR, handle.node)
  if (fd < 0) return fd
  const result = moveTo(fd, handle.fd)
  if (result < 0) close(fd)
  else handle.onlyReads = false
  return result
}

const st = new Stat()
const place = new Place()

/**
 * Flags that are not passed to the open of the real file: it already exists, and offsets are
 * explicit. O_DIRECTORY is part of O_TMPFILE: a union that has this union as a layer sends it,
 * because its kernel opens the new file with the flags of its caller.
 */
const FLAGS_NOT_FOR_REAL =
  O_CREAT | O_EXCL | O_APPEND | O_DIRECT | O_DIRECTORY | O_TRUNC | O_ACCMODE

/** The open(2) flags for the real file that correspond to a caller's flags. */
export function realFlags(u: CopyUpContext, flags: number): number {
  const mode = flags & O_ACCMODE
  // With write-back the kernel reads to fill partly written pages. With noopen all callers share
  // one descriptor, also those that read.
  const real = (u.writeback || u.noOpen) && mode === O_WRONLY ? O_RDWR : mode
  return (flags & ~FLAGS_NOT_FOR_REAL & 0o7777777) | real
}

/**
 * Truncates an open file to 0, after it has dropped set-id bits and the capability. O_TRUNC is not
 * used, because the identity of the file must be checked first.
 *
 * @throws Pending if the truncation may take long; then `fd` is closed
 */
function truncateOpened(
  u: CopyUpContext,
  node: Node,
  fd: number,
  killFor: Caller | null,
  writable: boolean,
): Result {
  const result = dropForWrite(u, node, fd, false, killFor)
  if (result < 0) return result
  if (freesMuch(node, { fd, name: '' }, 0)) {
    const own = writable ? dup(fd) : openToTruncate(fd, '')
    if (own < 0) return own
    close(fd)
    truncateInBackground(u, node, own, 0, false)
  }
  return writable ? ftruncate(fd, 0) : truncateat(fd, '', 0)
}

/**
 * Opens a regular file. A writable open copies it up first. If the server may read every file, an
 * open for reading does not open the real file yet: most files that are opened again are read from
 * the kernel's cache.
 */
export function openFile(
  u: CopyUpContext,
  handles: HandleTable,
  node: Node,
  flags: number,
  killFor: Caller | null,
  out: Opened,
): Result {
  const mode = flags & O_ACCMODE
  const truncate = (flags & O_TRUNC) !== 0
  const writable = mode !== O_RDONLY
  /** The copy is already empty, so an error would be wrong: the remaining step is retried once. */
  let copiesEmpty = false
  if (node.version === CHANGED) return -E.ESTALE
  if (writable || truncate) {
    if ((node.protect & Protect.IMMUTABLE) !== 0) return -E.EPERM
    if ((node.protect & Protect.APPEND) !== 0 && ((flags & O_APPEND) === 0 || truncate))
      return -E.EPERM
    if (truncate) throwIfBusy(node)
    copiesEmpty = truncate && !node.upper
    const copied = copyUp(u, node, !truncate)
    if (copied < 0) return copied
    if (truncate) forgetVersion(node)
  } else if (u.readsAll && !isOnSlow(u, node)) {
    // If another object has the name now, the kernel must look the name up again. When data is
    // read, it is too late for that.
    let result = locate(u, node, place)
    if (result >= 0) result = statPlace(place, st)
    if (result >= 0 && !isSame(node, st)) result = -E.ESTALE
    if (result < 0) return result
    out.unread = node.unread
    out.privileged = false
    fillOpened(u, node, handles.add(node, -1, false, (flags & O_NOATIME) !== 0), out)
    return 0
  }
  let real = realFlags(u, flags)
  // The kernel reads only to fill a page, so the access time must not change.
  if (mode === O_WRONLY) real |= O_NOATIME
  let opened = openReal(u, node, real)
  if (opened < 0 && copiesEmpty) opened = openReal(u, node, real)
  const fd = orPending(u, opened, flags)
  if (fd < 0) return fd
  if (truncate) {
    let result = truncateOpened(u, node, fd, killFor, writable)
    if (result < 0 && copiesEmpty) result = truncateOpened(u, node, fd, killFor, writable)
    if (result < 0) {
      close(fd)
      return orPending(u, result, flags)
    }
  }
  out.privileged = writable && isPrivileged(u, node, fd, st)
  // As in `copyUp`: the kernel would combine its writes with cached pages of the previous file.
  if (writable && !truncate && isOtherVersion(u, node, st)) {
    close(fd)
    node.version = CHANGED
    return -E.ESTALE
  }
  // A slow layer is read by a thread, on request only.
  out.unread = truncate || isOnSlow(u, node) ? -1 : node.unread
  fillOpened(u, node, handles.add(node, fd, writable, (flags & O_NOATIME) !== 0), out)
  return 0
}

/** Whether an open or a read of the file may block on another server. */
function isOnSlow(u: CopyUpContext, node: Node): boolean {
  if (u.slow === null) return false
  const resolved = resolveMetacopy(u, node)
  if (resolved < 0) return true
  return node.metacopy ? node.data?.dir.layer.slow === true : layerOf(u, node)?.slow === true
}

/**
 * The descriptor of a handle's real file, which is opened if it was not needed before; or -errno as
 * from `openReal`.
 */
export function realFd(u: CopyUpContext, handle: FileHandle): Result {
  // The kernel would combine the new data with pages that it caches, and with the size that it
  // keeps.
  if (handle.node.version === CHANGED && u.writeback) return -E.ESTALE
  if (handle.fd >= 0) return handle.fd
  const fd = openReal(u, handle.node, handle.keepsTime ? O_RDONLY | O_NOATIME : O_RDONLY)
  if (fd >= 0) {
    claim(fd)
    setFd(handle.node.handles, handle, fd)
  }
  return fd
}

/**
 * Opens the node's real file, or the data file of a metadata-only copy.
 *
 * @returns the descriptor, or -errno; -EAGAIN while another process holds a lease on the file, for
 *   `orPending`
 */
export function openReal(u: CopyUpContext, node: Node, flags: number): Result {
  const wants =
    (flags & O_ACCMODE) !== O_RDONLY
      ? flags
      : flags | (node.upper && u.upper !== null ? u.upper.readFlags : O_NOATIME)
  const result = openRealOnce(u, node, wants)
  // A READ, for example, does not let the kernel look the name up again. It does so when the name
  // is used the next time.
  if (result === -E.ESTALE) invalidateAttrs(u, node)
  if (result !== -E.EMFILE && result !== -E.ENFILE) return result
  u.fds.shrink()
  return openRealOnce(u, node, wants)
}

function openRealOnce(u: CopyUpContext, node: Node, flags: number): Result {
  const resolved = resolveMetacopy(u, node)
  if (resolved < 0) return resolved
  if (node.metacopy && node.data !== null) return openData(u, node, node.data, flags)
  const located = locate(u, node, place)
  if (located < 0) return located
  const first = openRegular(place.fd, place.name, flags, node)
  if (first !== -E.EACCES || !node.upper) return first
  const retried = withOwnerAccess(place.fd, place.name, accessToOpen(flags), () =>
    openRegular(place.fd, place.name, flags, node),
  )
  // The temporary change of the mode has changed the ctime.
  if (retried !== -E.EACCES) invalidateAttrs(u, node)
  return retried
}

/** Fills in the properties of a handle that the transport needs. */
function fillOpened(u: CopyUpContext, node: Node, handle: FileHandle, out: Opened): void {
  out.fh = handle.fh
  out.fd = handle.fd
  out.writable = handle.writable
  out.onlyReads = handle.onlyReads
  out.upper = node.upper && !node.metacopy
  const lower = node.metacopy ? node.data?.dir : node.lowerDir
  out.stable = out.upper || (isReadOnly(u) && lower?.layer.isPrivate === true)
  handle.incapable = handle.writable && !node.capable
}

export function readFile(
  u: CopyUpContext,
  handle: FileHandle,
  buf: Buffer,
  offset: number,
  length: number,
  pos: Off,
): Result {
  // A file system may lock the inode also for a reader.
  throwIfBusy(handle.node)
  const fd = orPending(u, realFd(u, handle))
  if (fd < 0) return fd
  let done = 0
  while (done < length) {
    const n = pread(fd, buf, offset + done, length - done, offPlus(pos, done))
    if (n < 0) return done > 0 ? done : n
    if (n === 0) break
    done += n
  }
  return done
}

/**
 * The number of bytes that were written before an error or a full file system; -errno if the first
 * write failed.
 */
function writeAll(fd: number, buf: Buffer, offset: number, length: number, pos: Off): Result {
  let done = 0
  while (done < length) {
    const n = pwrite(fd, buf, offset + done, length - done, offPlus(pos, done))
    if (n < 0) return done > 0 ? done : n
    if (n === 0) break
    done += n
  }
  return done
}

/**
 * Writes the data of a write(2). `writeLate` writes pages that the kernel has cached.
 *
 * @param killFor as in `dropForWrite`
 */
export function writeFile(
  u: CopyUpContext,
  handle: FileHandle,
  buf: Buffer,
  offset: number,
  length: number,
  pos: Off,
  killFor: Caller | null,
): Result {
  const { node, fd } = handle
  throwIfBusy(node)
  // Before the data, as in the kernel. A failed write may have dropped them, but no successful
  // write keeps them.
  const dropped = length === 0 ? 0 : dropForWrite(u, node, fd, false, killFor)
  if (dropped < 0) return dropped
  const known = u.writeback && fstatx(fd, st) >= 0
  const { mtimeSec, mtimeNsec } = st
  const done = writeAll(fd, buf, offset, length, pos)
  // As in ranges.ts, without a closure for each write.
  if (done >= 0 && known) restoreMtime(u, fd, mtimeSec, mtimeNsec)
  return done
}

/**
 * Writes pages from the kernel's cache (`late` in `Ops.write`). A write(2) drops capability and
 * set-id bits before its pages are late. A write through a mapping never drops them. So a late
 * write restores both.
 *
 * @param killFor as in `dropForWrite`
 */
export function writeLate(
  u: CopyUpContext,
  handle: FileHandle,
  buf: Buffer,
  offset: number,
  length: number,
  pos: Off,
  killFor: Caller | null,
): Result {
  const { node, fd } = handle
  throwIfBusy(node)
  const kept = node.capable ? readLostCapability(fd) : -E.ENODATA
  if (typeof kept === 'number' && kept !== -E.ENODATA) return kept
  // As in `writeFile`.
  const dropped = length === 0 ? 0 : dropForWrite(u, node, fd, true, killFor)
  if (dropped < 0) return dropped
  const known = fstatx(fd, st) >= 0
  const { mode, mtimeSec, mtimeNsec } = st
  const done = writeAll(fd, buf, offset, length, pos)
  if (done < 0) return done
  if (typeof kept !== 'number') restoreCapability(u, fd, kept)
  if (known && (mode & (S_ISUID | S_ISGID)) !== 0) restoreSetId(u, fd, mode)
  if (u.writeback && known) restoreMtime(u, fd, mtimeSec, mtimeNsec)
  return done
}

/**
 * fsync(2) on a job thread.
 *
 * @throws Pending always, unless syncing is free or disabled
 */
export function syncFd(u: CopyUpContext, fd: number, datasync: boolean): Result {
  if (u.syncIsFree) return 0
  // The job gets its own descriptor, because the handle may be closed in the meantime.
  const own = dup(fd)
  if (own < 0) return own
  const end = (result: Result): Result => {
    close(own)
    return result
  }
  throw new Pending(
    u.pool.submit({ kind: 'fsync', fd: own, datasync }, end, () => void close(own)),
    true,
  )
}

export function lseekFile(u: CopyUpContext, handle: FileHandle, offset: Off, whence: number): Off {
  throwIfBusy(handle.node)
  flushKernelPages(u, handle.node)
  const fd = orPending(u, realFd(u, handle))
  return fd < 0 ? fd : seek(fd, offset, whence)
}

/**
 * Makes sure that the real file has all written data. With write-back the kernel may hold back any
 * write; otherwise only writes through mappings.
 *
 * @throws Pending once, while the kernel writes the pages back
 */
export function flushKernelPages(u: CopyUpContext, node: Node): void {
  // With noopen the server does not know which files are open.
  const held = u.noOpen ? node.isReg : u.writeback ? isOpenToWrite(node) : isMappable(node)
  if (held && !node.flushed) {
    const message = u.notifier.dropPages(node.id)
    if (message !== null)
      throw new Pending(
        u.pool.submit({ kind: 'write', ...message }, () => {
          node.flushed = true
          return 0
        }),
        false,
      )
  }
  node.flushed = false
}

/** A handle of the node that has a descriptor: `preferred`, if it has one. */
export const openHandle = (
  node: Node,
  preferred: FileHandle | undefined,
): FileHandle | undefined =>
  preferred !== undefined && preferred.fd >= 0 ? preferred : withDescriptor(node.handles)

/**
 * A descriptor of the node's object in the upper layer, taken from a handle open for writing; saves
 * the lookup of the name. Else -1.
 */
export function writersFd(node: Node): number {
  const first = node.handles?.[0]
  return first?.writable === true ? first.fd : -1
}

/** The attributes of a node. They are read through a handle if that is faster or the only way. */
export function statOpen(
  u: CopyUpContext,
  handles: HandleTable,
  node: Node,
  fh: Fh,
  out: Stat,
): Result {
  let fd = node.superseded ? (openHandle(node, handles.get(fh))?.fd ?? -1) : writersFd(node)
  if (fd < 0) {
    const result = statNode(u, node, out)
    const stale = result >= 0 && !isSame(node, out)
    // A caller that has the replaced file open keeps reading it, so the size of that file counts.
    if (result >= 0 && !stale && (node.handles === null || !isOtherVersion(u, node, out)))
      return result
    const handle = openHandle(node, fh === 0 ? undefined : handles.get(fh))
    if (handle === undefined) return stale ? -E.ESTALE : result
    fd = handle.fd
  }
  const stated = fstatx(fd, out)
  return stated < 0 || !u.appliesOverrides ? stated : applyOverride(layerOf(u, node), fd, '', out)
}
