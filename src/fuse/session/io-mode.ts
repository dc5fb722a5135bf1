/**
 * Chooses the io mode of an opened file, per node and handle. The choice never violates the
 * kernel's rules for inode io modes (fs/fuse/iomode.c: a violation fails the open with EIO):
 *
 * - all open passthrough handles of an inode use one backing id;
 * - while a passthrough handle is open, every other open of the inode must be passthrough, too;
 * - while a cached handle is open, no handle may be passthrough.
 *
 * In `cached` mode every handle uses the page cache, and this module keeps no state. In
 * `passthrough` mode the page cache is write-through:
 *
 * | open of                                | io mode                                          |
 * |----------------------------------------|--------------------------------------------------|
 * | a node with passthrough handles        | passthrough, with their backing id               |
 * | a node with cached handles             | cached                                           |
 * | a file of a lower layer (read-only)    | cached: it may be copied up while it is open     |
 * | the same, of a read-only union         | as a file of the upper layer                     |
 * | a file of the upper layer              | passthrough; cached if the kernel gives no id    |
 * | the same, created with O_TMPFILE       | cached, if the upper layer is on FUSE            |
 *
 * In a union with copy-ups, a lower file never gets a backing id, so no id survives a copy-up.
 *
 * Files of the upper layer use passthrough for reading, too. A shared mapping of a passthrough
 * handle maps the real file and outlives the handle without the server's knowledge. Pages cached
 * for the mount would not show what is written through such a mapping. Passthrough is also faster,
 * because it needs no READ requests.
 *
 * A backing id is kept for a while after the last handle was closed: files are often opened again,
 * and a new id takes three system calls. The id prevents the kernel from freeing the real file and
 * its inode. So it is closed with the node (`forget`) at the latest, and all unions of a thread
 * share a limit of idle ids.
 *
 * Set-id bits: the kernel writes with the server's credentials, which may keep these bits. If the
 * file has any (Opened.privileged), a writable handle gets DIRECT_IO in addition. Data then arrives
 * in WRITE requests, which tell whether the writer may keep the bits; only mappings use
 * passthrough. For bits that appear while the file is open, the kernel sends a SETATTR without
 * attributes before such a write.
 *
 * Writes through a mapping change times and blocks without a request, and only an O_RDWR handle
 * allows a writable mapping. So the kernel may not cache the node's attributes (`attrsVolatile`)
 * from the open of such a passthrough handle until the real file is no longer open for writing.
 */

import type { RealFiles } from '../device/backing.js'
import type { Fh, NodeId, Notifier, Opened } from '../../overlay/ops.js'
import { O_ACCMODE, O_DIRECT, O_RDWR, O_TMPFILE } from '../../sys/constants.js'
import { E } from '../../sys/errno.js'
import { isSlow } from '../../sys/slow.js'
import { FOPEN_DIRECT_IO, FOPEN_KEEP_CACHE, FOPEN_PASSTHROUGH } from '../protocol/abi.js'
import type { IoMode } from '../protocol/init.js'

/** A node with open handles. */
class Node {
  cached = 0
  passthrough = 0
  /** Passthrough handles that allow a writable mapping. */
  mappable = 0
  backingId = 0
}

/** Maximum number of idle backing ids of a thread. */
const IDLE_MAX = 4096

interface Idle {
  readonly owner: IoModes
  readonly node: NodeId
  readonly backingId: number
}

/** Backing ids without a handle, in the order in which they became idle. */
export class IdleIds {
  readonly #max: number
  readonly #ids = new Set<Idle>()

  constructor(max = IDLE_MAX) {
    this.#max = max
  }

  add(idle: Idle): void {
    this.#ids.add(idle)
    if (this.#ids.size <= this.#max) return
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

// The kind of a handle: CACHED, or PASSTHROUGH with or without MAPPABLE. The higher bits are its
// descriptor, or -1.
const CACHED = 1
const PASSTHROUGH = 2
const MAPPABLE = 4
const FD_SHIFT = 3

export class IoModes {
  readonly #passthrough: boolean
  readonly #files: RealFiles
  readonly #notifier: Notifier
  readonly #realFile: (fh: Fh) => number
  readonly #threadIdle: IdleIds
  readonly #nodes = new Map<NodeId, Node>()
  readonly #handles = new Map<Fh, number>()
  readonly #idle = new Map<NodeId, Idle>()
  /** Nodes that may have a writable mapping. */
  readonly #mapped = new Set<NodeId>()
  /** Between `release` and `released`: a descriptor of the file, or -1. */
  #probe = -1
  /** For the reply to the latest open: the backing id, or 0 without passthrough. */
  backingId = 0

  /**
   * @param realFile returns the descriptor of a handle that was opened without one, or -errno
   * @param idle the idle ids, shared with other unions of the thread
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
   * A file was opened or created (`created`: the reply carries attributes, too). Returns the
   * FOPEN_* flags and sets `backingId`; or -errno, and the caller must close the handle.
   *
   * @param flags those of open(2)
   */
  open(id: NodeId, opened: Opened, flags: number, created: boolean): number {
    this.backingId = 0
    if (!this.#passthrough) return FOPEN_KEEP_CACHE
    // With passthrough the kernel opens the real file with the same flags and turns any error into
    // EIO.
    const direct = (flags & O_DIRECT) !== 0 && opened.stable
    if (direct) {
      const fd = this.#descriptor(opened)
      if (fd < 0 && fd !== -E.EAGAIN) return fd
      if (fd >= 0 && !isSlow(fd) && !this.#files.hasDirectIo(fd)) return -E.EINVAL
    }
    const unnamed = (flags & O_TMPFILE) === O_TMPFILE
    const passes = opened.stable && (!unnamed || this.#files.opensUnnamed)
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
    // Without FOPEN_KEEP_CACHE the kernel drops old pages: the node may have been written through
    // passthrough since.
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

  /** Removes the idle id of a node; 0: it has none. */
  #takeIdle(id: NodeId): number {
    const kept = this.#idle.get(id)
    if (kept === undefined) return 0
    this.#idle.delete(id)
    this.#threadIdle.delete(kept)
    return kept.backingId
  }

  /** The kernel has forgotten the node. */
  forget(id: NodeId): void {
    if (this.#mapped.size > 0 && !this.#nodes.has(id)) this.#mapped.delete(id)
    this.dropIdle(id)
  }

  dropIdle(id: NodeId): void {
    const kept = this.#takeIdle(id)
    if (kept > 0) this.#files.closeBacking(kept)
  }

  /** The connection is closed, which has closed its ids, too. */
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
      // The kernel may have cached attributes of the node with a long timeout.
      if (!created && !this.#mapped.has(id)) this.#notifier.attrChanged(id)
      this.#mapped.add(id)
    }
    this.#handles.set(opened.fh, kind)
    return opened.writable && opened.privileged
      ? FOPEN_PASSTHROUGH | FOPEN_DIRECT_IO
      : FOPEN_PASSTHROUGH
  }

  /** A handle is being closed. Call this before the union closes it, and `released` afterwards. */
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
      // The kernel leaves passthrough mode before it sends the RELEASE of the last handle.
      if (--node.passthrough === 0) this.#keep(id, node.backingId)
    }
    if (node.cached === 0 && node.passthrough === 0) this.#nodes.delete(id)
  }

  /** If the file is no longer open for writing, the kernel may cache the attributes again. */
  released(id: NodeId): void {
    if (this.#probe < 0) return
    if (!this.#files.mayBeWritten(this.#probe)) this.#mapped.delete(id)
    this.#probe = -1
  }

  /** Whether attributes of this node may change without a request. */
  attrsVolatile(id: NodeId): boolean {
    return this.#mapped.size > 0 && this.#mapped.has(id)
  }

  /** Nodes with open handles, and open handles; for statistics. */
  get nodeCount(): number {
    return this.#nodes.size
  }
  get handleCount(): number {
    return this.#handles.size
  }
}
