/** Open files and what is done through them. */

import { fchmod, fstatx, futimens, openat } from '../sys/at.js'
import {
  FALLOC_FL_KEEP_SIZE,
  O_ACCMODE,
  O_APPEND,
  O_CREAT,
  O_DIRECT,
  O_EXCL,
  O_NOATIME,
  O_RDONLY,
  O_RDWR,
  O_TRUNC,
  O_WRONLY,
  S_IFREG,
  S_ISGID,
  S_ISUID,
  UTIME_OMIT,
} from '../sys/constants.js'
import { E } from '../sys/errno.js'
import {
  close,
  copyFileRange as copyRange,
  dup,
  fallocate as allocate,
  lseek as seek,
  moveTo,
  pread,
  pwrite,
  read,
} from '../sys/io.js'
import { spliceTo } from '../sys/splice.js'
import { Stat } from '../sys/stat.js'
import { fsetxattr, getxattrat, getxattrValue } from '../sys/xattr.js'
import { copyUp } from './copyup.js'
import { CAPABILITY } from './id-values.js'
import { rightToOpen, withRight } from './lend.js'
import { settleData } from './metacopy.js'
import { Node, Protect } from './node.js'
import { Pending, type Caller, type Fh, type Opened, type Result } from './ops.js'
import type { Layer } from './layer.js'
import { amend, dropCapability, storedName, storeMode } from './override.js'
import { privilegesLeft } from './privileges.js'
import { fdPathOpen } from './reopen.js'
import { isReadOnly, layerOf, locate, Place, shownGid, statNode, type Union } from './union.js'

export class FileHandle {
  readonly fh: Fh
  readonly node: Node
  /**
   * The real file; replaced when the node is copied up. -1: it was not needed yet (`realFd` opens it), which
   * only a handle for reading may say.
   */
  fd: number
  readonly writable: boolean
  /** The descriptor is open for reading alone, though the handle may write: `HandleTable.writing` opens it anew. */
  onlyReads = false
  /** The file was seen, or made, without a capability, and nobody has set one since. */
  incapable = false

  constructor(fh: Fh, node: Node, fd: number, writable: boolean) {
    this.fh = fh
    this.node = node
    this.fd = fd
    this.writable = writable
  }
}

export class HandleTable {
  /** Always one: when no object of a class is left, the engine throws away what it has compiled for them. */
  protected readonly spare = new FileHandle(0, new Node(0, S_IFREG, 0), -1, false)
  readonly #files = new Map<Fh, FileHandle>()
  #next = 1

  get(fh: Fh): FileHandle | undefined {
    return this.#files.get(fh)
  }

  add(node: Node, fd: number, writable: boolean): FileHandle {
    const handle = new FileHandle(this.#next++, node, fd, writable)
    this.#files.set(handle.fh, handle)
    node.unread = -1
    if (node.handles === null) node.handles = [handle]
    else node.handles.push(handle)
    return handle
  }

  remove(fh: Fh): FileHandle | undefined {
    const handle = this.#files.get(fh)
    if (handle === undefined) return undefined
    this.#files.delete(fh)
    const list = handle.node.handles
    if (list !== null) {
      const at = list.indexOf(handle)
      if (at >= 0) list.splice(at, 1)
      if (list.length === 0) handle.node.handles = null
    }
    if (handle.fd >= 0) close(handle.fd)
    return handle
  }

  /** What to read through, or -errno. */
  reading(fh: Fh): FileHandle | Result {
    return this.#files.get(fh) ?? -E.EBADF
  }

  /**
   * What to write through, or -errno.
   *
   * @param _late as `Ops.write`
   * @throws Pending where the file is only now copied up (standing.ts)
   */
  writing(fh: Fh, _late: boolean): FileHandle | Result {
    const handle = this.#files.get(fh)
    if (handle === undefined || !handle.writable) return -E.EBADF
    const result = handle.onlyReads ? openForWriting(handle) : 0
    return result < 0 ? result : handle
  }

  /** The transport has taken back all lookups of a node that has handles. */
  forgotten(_node: Node): void {}

  /** As in Ops. Not while a handle is in use. */
  makeRoom(): boolean {
    return false // each one stands for a file that somebody has open
  }

  get size(): number {
    return this.#files.size
  }

  closeAll(): void {
    for (const handle of this.#files.values()) if (handle.fd >= 0) close(handle.fd)
    this.#files.clear()
  }
}

/** Under the same number, by which others know it. */
function openForWriting(handle: FileHandle): Result {
  const fd = fdPathOpen(handle.fd, O_RDWR)
  if (fd < 0) return fd
  const result = moveTo(fd, handle.fd)
  if (result < 0) close(fd)
  else handle.onlyReads = false
  return result
}

const st = new Stat()
const place = new Place()
const capability = Buffer.allocUnsafeSlow(64)

/** Flags that make no sense on the real descriptor: it is there already, and offsets are explicit. */
const NOT_FOR_REAL = O_CREAT | O_EXCL | O_APPEND | O_DIRECT | O_TRUNC | O_ACCMODE

/** What to open the real file with, for a client's flags. */
export function realFlags(u: Union, flags: number): number {
  const mode = flags & O_ACCMODE
  // With write-back the kernel fills up partly written pages: it reads too; so does who opens later, where all share one.
  const real = (u.writeback || u.noOpen) && mode === O_WRONLY ? O_RDWR : mode
  return (flags & ~NOT_FOR_REAL & 0o7777777) | real
}

/**
 * Opens a regular file; a writable open copies it up first. For reading nothing is opened yet, where the server may
 * read everything: most files that are opened again are read from the kernel's cache.
 */
export function openFile(
  u: Union,
  handles: HandleTable,
  node: Node,
  flags: number,
  killFor: Caller | null,
  out: Opened,
): Result {
  const mode = flags & O_ACCMODE
  const truncate = (flags & O_TRUNC) !== 0
  const writable = mode !== O_RDONLY
  if (writable || truncate) {
    if ((node.protect & Protect.IMMUTABLE) !== 0) return -E.EPERM
    if ((node.protect & Protect.APPEND) !== 0 && ((flags & O_APPEND) === 0 || truncate))
      return -E.EPERM
    const copied = copyUp(u, node, !truncate)
    if (copied < 0) return copied
  } else if (u.readsAll) {
    out.unread = node.unread
    describe(u, node, handles.add(node, -1, false), out)
    return 0
  }
  const fd = openReal(u, node, realFlags(u, flags) | (truncate ? O_TRUNC : 0))
  if (fd < 0) return fd
  if (truncate && killFor !== null) {
    const result = dropPrivileges(u, fd, killFor)
    if (result < 0) {
      close(fd)
      return result
    }
  }
  if (truncate && u.override) dropCapability(u.upper, fd, '')
  out.unread = truncate ? -1 : node.unread
  describe(u, node, handles.add(node, fd, writable), out)
  return 0
}

/** The descriptor of a handle's real file, opened now where it was not needed before; or -errno. */
export function realFd(u: Union, handle: FileHandle): Result {
  if (handle.fd >= 0) return handle.fd
  const fd = openReal(u, handle.node, O_RDONLY)
  if (fd >= 0) handle.fd = fd
  return fd
}

/** Opens the node's real file, or its data for a metadata-only copy. */
export function openReal(u: Union, node: Node, flags: number): Result {
  const wants = (flags & O_ACCMODE) === O_RDONLY ? flags | O_NOATIME : flags
  const result = openRealOnce(u, node, wants)
  if (result !== -E.EMFILE && result !== -E.ENFILE) return result
  u.fds.shrink()
  return openRealOnce(u, node, wants)
}

function openRealOnce(u: Union, node: Node, flags: number): Result {
  const settled = settleData(u, node)
  if (settled < 0) return settled
  if (node.metacopy && node.dataDir !== null) {
    const fd = u.fds.get(node.dataDir)
    return fd < 0 ? fd : openat(fd, node.dataName, flags)
  }
  const located = locate(u, node, place)
  if (located < 0) return located
  const first = openPlace(place, flags)
  if (first !== -E.EACCES || !node.upper) return first
  return withRight(place.fd, place.name, rightToOpen(flags), () => openPlace(place, flags))
}

function openPlace(at: Place, flags: number): Result {
  if (at.name === '') return fdPathOpen(at.fd, flags)
  const result = openat(at.fd, at.name, flags)
  if (result === -E.EPERM && (flags & O_NOATIME) !== 0)
    return openat(at.fd, at.name, flags & ~O_NOATIME)
  return result
}

/** Fills in what the transport needs to know of a handle. */
function describe(u: Union, node: Node, handle: FileHandle, out: Opened): void {
  out.fh = handle.fh
  out.fd = handle.fd
  out.writable = handle.writable
  out.onlyReads = handle.onlyReads
  out.upper = node.upper && !node.metacopy
  const lower = node.metacopy ? node.dataDir : node.lowerDir
  out.lasting = out.upper || (isReadOnly(u) && lower?.layer.isPrivate === true)
  out.privileged = handle.writable && isPrivileged(u, node, handle.fd)
  handle.incapable = handle.writable && !node.capable
}

/** Whether an upper file has what a write by an ordinary user takes away; remembers a capability. */
export function isPrivileged(u: Union, node: Node, fd: number): boolean {
  if (fstatx(fd, st) < 0) return false
  if (u.override) amend(u.upper, fd, '', st)
  const name = u.override ? storedName(u.upper, CAPABILITY) : CAPABILITY
  const capable = getxattrat(fd, '', name, capability) > 0
  if (capable) node.capable = true
  return capable || (st.mode & (S_ISUID | S_ISGID)) !== 0
}

/** Drops from an open file what a write by `caller` takes from it. */
function dropPrivileges(u: Union, fd: number, caller: Caller): Result {
  const result = fstatx(fd, st)
  if (result < 0) return result
  if (u.override && u.upper !== null) return dropOverridden(u, u.upper, fd, caller)
  const mode = privilegesLeft(st.mode, shownGid(u, st), caller)
  return mode === st.mode ? 0 : fchmod(fd, mode & 0o7777)
}

/** As `dropPrivileges`, where the mode is kept in an attribute. */
function dropOverridden(u: Union, upper: Layer, fd: number, caller: Caller): Result {
  const result = amend(upper, fd, '', st)
  if (result < 0) return result
  const mode = privilegesLeft(st.mode, shownGid(u, st), caller)
  return mode === st.mode ? 0 : storeMode(upper, fd, '', st, mode)
}

export function readFile(
  u: Union,
  handle: FileHandle,
  buf: Buffer,
  offset: number,
  length: number,
  pos: number,
): Result {
  const fd = realFd(u, handle)
  if (fd < 0) return fd
  let done = 0
  while (done < length) {
    const n = pread(fd, buf, offset + done, length - done, pos + done)
    if (n < 0) return done > 0 ? done : n
    if (n === 0) break
    done += n
  }
  return done
}

/** How many bytes were written before the file took no more, or -errno of the first. */
function writeAll(fd: number, buf: Buffer, offset: number, length: number, pos: number): Result {
  let done = 0
  while (done < length) {
    const n = pwrite(fd, buf, offset + done, length - done, pos + done)
    if (n < 0) return done > 0 ? done : n
    if (n === 0) break
    done += n
  }
  return done
}

/** As `writeAll`, with what is in a pipe; by way of the buffer where the file takes nothing from pipes. */
function writeFrom(
  source: number,
  fd: number,
  buf: Buffer,
  offset: number,
  length: number,
  pos: number,
): Result {
  let done = 0
  while (done < length) {
    const n = spliceTo(source, fd, pos + done, length - done)
    if (n === -E.EINVAL && done === 0) {
      while (done < length) {
        const got = read(source, buf, offset + done, length - done)
        if (got <= 0) return -E.EIO
        done += got
      }
      return writeAll(fd, buf, offset, length, pos)
    }
    if (n < 0) return done > 0 ? done : n
    if (n === 0) break
    done += n
  }
  return done
}

export function writeFile(
  u: Union,
  handle: FileHandle,
  buf: Buffer,
  offset: number,
  length: number,
  pos: number,
  killFor: Caller | null,
  late: boolean,
  source: number,
): Result {
  const kept = late && handle.node.capable ? getxattrValue(handle.fd, '', CAPABILITY) : -E.ENODATA
  const keepTime = (late || u.writeback) && fstatx(handle.fd, st) >= 0
  const { mtimeSec, mtimeNsec } = st
  const done =
    source < 0
      ? writeAll(handle.fd, buf, offset, length, pos)
      : writeFrom(source, handle.fd, buf, offset, length, pos)
  if (done < 0) return done
  // Who wrote late pages by write(2) has given the capability up then; by a mapping nobody does.
  if (typeof kept !== 'number') fsetxattr(handle.fd, CAPABILITY, kept, 0)
  if (u.override && !late) dropCapability(u.upper, handle.fd, '')
  // As in keepingTime, without a closure for every write.
  if (keepTime) futimens(handle.fd, 0, UTIME_OMIT, mtimeSec, mtimeNsec)
  if (killFor !== null && done > 0) {
    const result = dropPrivileges(u, handle.fd, killFor)
    if (result < 0) return result
  }
  return done
}

/**
 * fsync on a thread of the pool.
 *
 * @throws Pending always, unless syncing is free or off
 */
export function syncFd(u: Union, fd: number, datasync: boolean): Result {
  if (u.syncIsFree) return 0
  // Of its own: the handle may be closed meanwhile.
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

/**
 * Changes a real file's data. With write-back the kernel keeps the time of that itself and brings it with
 * a request of its own, before or after this: the real file's stays until then.
 */
function keepingTime(u: Union, handle: FileHandle, change: () => Result): Result {
  if (u.override) dropCapability(u.upper, handle.fd, '')
  if (!u.writeback || fstatx(handle.fd, st) < 0) return change()
  const { mtimeSec, mtimeNsec } = st
  const result = change()
  if (result >= 0) futimens(handle.fd, 0, UTIME_OMIT, mtimeSec, mtimeNsec)
  return result
}

export function fallocateFile(
  u: Union,
  handle: FileHandle,
  mode: number,
  offset: number,
  length: number,
): Result {
  if (!handle.writable) return -E.EBADF
  // Kernel: vfs_fallocate(). Only growing is allowed to an append-only file.
  if ((handle.node.protect & Protect.IMMUTABLE) !== 0) return -E.EPERM
  if ((handle.node.protect & Protect.APPEND) !== 0 && (mode & ~FALLOC_FL_KEEP_SIZE) !== 0)
    return -E.EPERM
  return keepingTime(u, handle, () => allocate(handle.fd, mode, offset, length))
}

export function lseekFile(u: Union, handle: FileHandle, offset: number, whence: number): Result {
  settle(u, handle.node)
  const fd = realFd(u, handle)
  return fd < 0 ? fd : seek(fd, offset, whence)
}

/**
 * Makes sure that the real file has all that was written: the kernel may still hold some of it back.
 *
 * @throws Pending once, while it writes back
 */
export function settle(u: Union, node: Node): void {
  // Where nobody says who has a file open, anybody may.
  const written = u.noOpen ? node.isReg : node.handles?.some(h => h.writable) === true
  if (u.writeback && !node.flushed && written) {
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

export function copyFileRange(
  u: Union,
  source: FileHandle,
  offIn: number,
  target: FileHandle,
  offOut: number,
  length: number,
): Result {
  if (!target.writable) return -E.EBADF
  // Kernel: generic_copy_file_checks().
  if ((target.node.protect & Protect.IMMUTABLE) !== 0) return -E.EPERM
  const from = realFd(u, source)
  if (from < 0) return from
  return keepingTime(u, target, () => copyRange(from, offIn, target.fd, offOut, length))
}

/** A handle of the node that has a descriptor: the preferred one, if it does. */
export const openHandle = (
  node: Node,
  preferred: FileHandle | undefined,
): FileHandle | undefined =>
  preferred !== undefined && preferred.fd >= 0 ? preferred : node.handles?.find(h => h.fd >= 0)

/**
 * A descriptor by which the node's object in the upper layer is reached without a walk to its name: that of whoever
 * has it open for writing, if it is the first who has it open. Else -1.
 */
export function writersFd(node: Node): number {
  const first = node.handles?.[0]
  return first?.writable === true ? first.fd : -1
}

/** Attributes of a node, through a handle where that is quicker or the only way that is left. */
export function statOpen(u: Union, handles: HandleTable, node: Node, fh: Fh, out: Stat): Result {
  let fd = writersFd(node)
  if (fd < 0) {
    const result = statNode(u, node, out)
    if (result >= 0) return result
    const handle = openHandle(node, fh === 0 ? undefined : handles.get(fh))
    if (handle === undefined) return result
    fd = handle.fd
  }
  const stated = fstatx(fd, out)
  return stated < 0 || !u.amends ? stated : amend(layerOf(u, node), fd, '', out)
}
