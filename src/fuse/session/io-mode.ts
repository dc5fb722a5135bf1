/**
 * Which way the data of an opened file goes, per node and handle, such that the kernel's rules for
 * inode i/o modes are never broken (fs/fuse/iomode.c: breaking one fails the open with EIO):
 *
 * - all passthrough handles of an inode that are open at a time use one backing id;
 * - while one is open, every other open of the inode must be passthrough too;
 * - while a cached handle is open, none may be passthrough.
 *
 * In `cached` mode every handle uses the page cache, which nobody changes behind its back, and
 * nothing is kept here. In `passthrough` mode (then the page cache is write-through):
 *
 * | open of                                | goes                                             |
 * |----------------------------------------|--------------------------------------------------|
 * | a node with passthrough handles        | passthrough, with their backing id               |
 * | a node with cached handles             | cached                                           |
 * | a file of a lower layer (read-only)    | cached: it may be copied up while it is open     |
 * | the same, of a union without writing   | as a file of the upper layer                     |
 * | a file of the upper layer              | passthrough; cached if the kernel gives no id    |
 * | the same, made without a name there    | cached, if the upper layer is on FUSE            |
 *
 * Where there are copy-ups, a lower file never gets a backing id, so that none is shared across
 * one.
 *
 * Files of the upper layer are passed through for reading as well. A shared mapping made through a
 * passthrough handle is one of the real file and outlives the handle, unseen; pages cached here
 * would not show what is written through it. (It is also the faster way: no READ requests.)
 *
 * A backing id is kept for a while after the last handle was closed: files are often opened again,
 * and making an id takes three system calls. It keeps the real file from being freed, and its inode
 * in the kernel's memory, so it goes with the node (`forget`) at the latest, and all unions of a
 * thread keep so many together.
 *
 * Set-id bits: the kernel writes with the server's credentials, which may keep them. Where there
 * are any (Opened.privileged) a writable handle gets DIRECT_IO in addition: data then comes in
 * WRITE requests, which tell whether the writer may keep them, and only mappings are passed
 * through. For bits that appear while the file is open the kernel sends a SETATTR without
 * attributes before such a write.
 *
 * A mapping changes times and blocks unseen, and only a handle opened O_RDWR can be mapped for
 * writing: from when a passthrough one is opened until no one has the real file open for writing
 * any more, the node's attributes may not be cached (`attrsVolatile`).
 */

import type { Fh, NodeId, Notifier, Opened } from '../../overlay/ops.js'
import { O_ACCMODE, O_DIRECT, O_RDWR, O_TMPFILE } from '../../sys/constants.js'
import { E } from '../../sys/errno.js'
import { isSlow } from '../../sys/slow.js'
import { FOPEN_DIRECT_IO, FOPEN_KEEP_CACHE, FOPEN_PASSTHROUGH } from '../protocol/abi.js'
import type { IoMode } from '../protocol/init.js'

/** What is asked of the kernel about real files, by descriptor. */
export interface RealFiles {
  /** A new backing id, or -errno. `writable`: the descriptor is open for writing. */
  openBacking(fd: number, writable: boolean): number
  closeBacking(id: number): void
  /** Another descriptor of the file, for reading, or -errno. */
  reopen(fd: number): number
  /**
   * The kernel may open a real file with O_TMPFILE, as it does for who has made it so: false for a
   * FUSE file system, whose server is asked to open it with that flag and may refuse (ENOTDIR:
   * O_DIRECTORY is a part of it).
   */
  readonly opensUnnamed: boolean
  /** Whether the file can be opened with O_DIRECT. */
  hasDirectIo(fd: number): boolean
  /**
   * Whether anyone may still write through a descriptor or mapping. Closes `fd`, one of `reopen`.
   */
  mayBeWritten(fd: number): boolean
}

/** A node with open handles. */
class Node {
  cached = 0
  passthrough = 0
  /** Those of the passthrough handles which can be mapped for writing. */
  mappable = 0
  backingId = 0
}

/** Backing ids that a thread keeps without a handle. */
const IDLE_MAX = 4096

interface Idle {
  readonly owner: DataMode
  readonly node: NodeId
  readonly backingId: number
}

/** Ids without a handle, the longest unused first. */
export class IdleIds {
  readonly #most: number
  readonly #ids = new Set<Idle>()

  constructor(most = IDLE_MAX) {
    this.#most = most
  }

  add(idle: Idle): void {
    this.#ids.add(idle)
    if (this.#ids.size <= this.#most) return
    for (const { owner, node } of this.#ids) {
      owner.dropIdle(node)
      break
    }
  }

  delete(idle: Idle): void {
    this.#ids.delete(idle)
  }
}

const threadIdle = new IdleIds()

// What a handle is: CACHED, or PASSTHROUGH with or without MAPPABLE; above that its descriptor, if
// it had one.
const CACHED = 1
const PASSTHROUGH = 2
const MAPPABLE = 4
const FD_SHIFT = 3

export class DataMode {
  readonly #passthrough: boolean
  readonly #files: RealFiles
  readonly #notifier: Notifier
  readonly #realFile: (fh: Fh) => number
  readonly #threadIdle: IdleIds
  readonly #nodes = new Map<NodeId, Node>()
  readonly #handles = new Map<Fh, number>()
  readonly #idle = new Map<NodeId, Idle>()
  /** Nodes which are mapped, maybe. */
  readonly #mapped = new Set<NodeId>()
  /** Between `release` and `released`: a descriptor of the file, or -1. */
  #probe = -1
  /** For the reply to the last open: 0, or the id of passthrough. */
  backingId = 0

  /**
   * @param realFile the descriptor of a handle that was opened without one, or -errno
   * @param idle ids that are kept without a handle, also those of others
   */
  constructor(
    io: IoMode,
    files: RealFiles,
    notifier: Notifier,
    realFile: (fh: Fh) => number = () => -E.EBADF,
    idle = threadIdle,
  ) {
    this.#passthrough = io === 'passthrough'
    this.#files = files
    this.#notifier = notifier
    this.#realFile = realFile
    this.#threadIdle = idle
  }

  /**
   * A file was opened or (`created`, attributes going with the same reply) created. Returns the
   * FOPEN_* flags and sets `backingId`; or -errno, and the handle is to be closed.
   *
   * @param flags those of open(2)
   */
  open(id: NodeId, opened: Opened, flags: number, created: boolean): number {
    this.backingId = 0
    if (!this.#passthrough) return FOPEN_KEEP_CACHE
    // The kernel opens the real file with the same flags, and would make any error of that EIO.
    const direct = (flags & O_DIRECT) !== 0 && opened.lasting
    if (direct) {
      const fd = this.#descriptor(opened)
      if (fd < 0 && fd !== -E.EAGAIN) return fd
      if (fd >= 0 && !isSlow(fd) && !this.#files.hasDirectIo(fd)) return -E.EINVAL
    }
    const unnamed = (flags & O_TMPFILE) === O_TMPFILE
    const passes = opened.lasting && (!unnamed || this.#files.opensUnnamed)
    let node = this.#nodes.get(id)
    if (node === undefined) this.#nodes.set(id, (node = new Node()))
    if (
      node.cached === 0 &&
      (node.passthrough > 0 || (passes && this.#acquire(id, node, opened)))
    ) {
      return this.#openThrough(id, node, opened, flags, created)
    }
    node.cached++
    this.#handles.set(opened.fh, CACHED)
    // Pages left from before the node was written through passthrough are not to be kept.
    return opened.upper && node.cached === 1 ? 0 : FOPEN_KEEP_CACHE
  }

  #acquire(id: NodeId, node: Node, opened: Opened): boolean {
    const kept = this.#takeIdle(id)
    if (kept > 0) {
      node.backingId = kept
      return true
    }
    const fd = this.#descriptor(opened)
    if (fd < 0) return false
    const made = this.#files.openBacking(fd, opened.writable && !opened.onlyReads)
    if (made <= 0) return false
    node.backingId = made
    return true
  }

  #descriptor(opened: Opened): number {
    return opened.fd >= 0 ? opened.fd : (opened.fd = this.#realFile(opened.fh))
  }

  #keep(id: NodeId, backingId: number): void {
    const idle = { owner: this, node: id, backingId }
    this.#idle.set(id, idle)
    this.#threadIdle.add(idle)
  }

  /** Of a node; 0: none is kept. */
  #takeIdle(id: NodeId): number {
    const kept = this.#idle.get(id)
    if (kept === undefined) return 0
    this.#idle.delete(id)
    this.#threadIdle.delete(kept)
    return kept.backingId
  }

  /** The kernel has no use for the node any more. */
  forget(id: NodeId): void {
    if (this.#mapped.size > 0 && !this.#nodes.has(id)) this.#mapped.delete(id)
    this.dropIdle(id)
  }

  dropIdle(id: NodeId): void {
    const kept = this.#takeIdle(id)
    if (kept > 0) this.#files.closeBacking(kept)
  }

  /** The connection is closed, and its ids with it. */
  close(): void {
    for (const id of this.#idle.keys()) this.#takeIdle(id)
  }

  #openThrough(id: NodeId, node: Node, opened: Opened, flags: number, created: boolean): number {
    node.passthrough++
    this.backingId = node.backingId
    let kind = PASSTHROUGH | (opened.fd << FD_SHIFT)
    if ((flags & O_ACCMODE) === O_RDWR) {
      kind |= MAPPABLE
      node.mappable++
      // The kernel may have attributes of the node that were given for long.
      if (!created && !this.#mapped.has(id)) this.#notifier.attrChanged(id)
      this.#mapped.add(id)
    }
    this.#handles.set(opened.fh, kind)
    return opened.writable && opened.privileged
      ? FOPEN_PASSTHROUGH | FOPEN_DIRECT_IO
      : FOPEN_PASSTHROUGH
  }

  /** A handle is closed: to be called before the union closes it, and `released` after that. */
  release(id: NodeId, fh: Fh): void {
    if (!this.#passthrough) return
    const kind = this.#handles.get(fh)
    const node = this.#nodes.get(id)
    if (kind === undefined || node === undefined) return
    this.#handles.delete(fh)
    if (kind === CACHED) {
      node.cached--
    } else {
      if ((kind & MAPPABLE) !== 0) node.mappable--
      if (node.mappable === 0 && this.#mapped.has(id)) {
        const fd = kind >> FD_SHIFT
        this.#probe = this.#files.reopen(fd >= 0 ? fd : this.#realFile(fh))
      }
      // The kernel has left passthrough mode before it sent the RELEASE of the last handle.
      if (--node.passthrough === 0) this.#keep(id, node.backingId)
    }
    if (node.cached === 0 && node.passthrough === 0) this.#nodes.delete(id)
  }

  /** Where nobody writes any more, the kernel is told of every change again. */
  released(id: NodeId): void {
    if (this.#probe < 0) return
    if (!this.#files.mayBeWritten(this.#probe)) this.#mapped.delete(id)
    this.#probe = -1
  }

  /** Whether attributes of this node may change without the kernel noticing. */
  attrsVolatile(id: NodeId): boolean {
    return this.#mapped.size > 0 && this.#mapped.has(id)
  }

  /** Nodes with open handles, open handles: for statistics. */
  get nodeCount(): number {
    return this.#nodes.size
  }
  get handleCount(): number {
    return this.#handles.size
  }
}
