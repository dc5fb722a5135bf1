/**
 * Data of files that nobody opens: with `noopen` the kernel sends neither OPEN nor RELEASE, and its requests for data
 * name the node alone. The union keeps a handle of its own for each node that was read or written lately. It is opened by
 * the first request that needs it, gives way to one that may write when that comes, is replaced at copy-up as any
 * handle is, and goes when the kernel forgets the node or others need the room.
 *
 * Since nobody says who has a file open, every node has to be reachable until it is forgotten: a removed one of the
 * upper layer by its anchor (remove.ts:holdLast), one of a lower layer by its place there.
 */

import { LRUCache } from 'lru-cache'
import { O_NOATIME, O_RDONLY, O_RDWR } from '../sys/constants.js'
import { E } from '../sys/errno.js'
import { close } from '../sys/io.js'
import { claim } from '../sys/slow.js'
import { copyUp } from './copyup.js'
import { FileHandle, HandleTable, openReal } from './handles.js'
import { isPrivileged } from './killpriv.js'
import type { Node } from './node.js'
import type { Fh, NodeId, Result } from './ops.js'
import type { Union } from './union.js'

export class StandingHandles extends HandleTable {
  readonly #u: Union
  readonly #open: LRUCache<NodeId, FileHandle>

  /** @param max how many descriptors may be open at once (at least 2: one request may need two files) */
  constructor(u: Union, max: number) {
    super()
    this.#u = u
    this.#open = new LRUCache<NodeId, FileHandle>({
      max: Math.max(2, max),
      dispose: ({ fd, node }) => {
        node.handles = null
        close(fd)
      },
      noDisposeOnSet: true,
    })
  }

  override reading(fh: Fh): FileHandle | Result {
    const open = this.#open.get(-fh)
    if (open !== undefined) return open
    const node = this.#node(fh)
    if (typeof node === 'number') return node
    const fd = openReal(this.#u, node, O_RDONLY)
    return fd < 0 ? fd : this.add(node, fd, false)
  }

  /**
   * Late pages of a protected file were written before it was, or through a mapping: no writer is there to be told, and
   * they are taken. Every other write is refused, also by O_APPEND, which nobody tells either.
   */
  override writing(fh: Fh, late: boolean): FileHandle | Result {
    const node = this.#node(fh)
    if (typeof node === 'number') return node
    if (node.protect !== 0 && !late) return -E.EPERM
    const open = this.#open.get(-fh)
    if (open?.writable === true) return open
    const copied = copyUp(this.#u, node)
    if (copied < 0) return copied
    // It serves reads as well, which move no time.
    const fd = openReal(this.#u, node, O_RDWR | O_NOATIME)
    if (fd < 0) return fd
    isPrivileged(this.#u, node, fd, this.#u.st)
    return this.add(node, fd, true)
  }

  #node(fh: Fh): Node | Result {
    const node = this.#u.nodes.get(-fh)
    return node === undefined ? -E.ESTALE : node.isReg ? node : -E.EBADF
  }

  /** What was opened for a request that says so, as CREATE does, stays open too, and has no number. */
  override add(node: Node, fd: number, writable: boolean): FileHandle {
    const handle = new FileHandle(0, node, fd, writable)
    if (fd < 0) return handle
    claim(fd)
    this.#open.delete(node.id)
    node.handles = [handle]
    this.#open.set(node.id, handle)
    return handle
  }

  override forgotten(node: Node): void {
    this.#open.delete(node.id)
  }

  /** Lets go of the half that was not used the longest. */
  override makeRoom(): boolean {
    const before = this.#open.size
    for (let n = (before + 1) >> 1; n > 0; n--) this.#open.pop()
    return before > 0
  }

  override get size(): number {
    return this.#open.size
  }

  override closeAll(): void {
    this.#open.clear()
  }
}
