/**
 * Data of files that nobody opens: with `noopen` the kernel sends neither OPEN nor RELEASE, and its
 * requests for data name the node alone. The union keeps a handle of its own for each node that was
 * read or written lately. It is opened by the first request that needs it, gives way to one that
 * may write when that comes, is replaced at copy-up as any handle is, and goes when the kernel
 * forgets the node or others need the room.
 *
 * Since nobody says who has a file open, every node has to be reachable until it is forgotten: a
 * removed one of the upper layer by its anchor (remove.ts:keepOrphanFd), one of a lower layer by
 * its place there.
 */

import { O_NOATIME, O_RDONLY, O_RDWR } from '../../sys/constants.js'
import { E } from '../../sys/errno.js'
import { close } from '../../sys/io.js'
import { claim } from '../../sys/slow.js'
import { BoundedCache } from '../layer/bounded-cache.js'
import { MAX_BUDGET, inodeFileBudget } from '../layer/descriptor-budget.js'
import { copyUp } from '../copy-up/copy-up.js'
import { FileHandle } from '../inode/node.js'
import { HandleTable, openReal } from './handles.js'
import { isPrivileged } from '../inode/killpriv.js'
import type { Node } from '../inode/node.js'
import type { Fh, Result } from '../ops.js'
import type { CopyUpContext } from '../copy-up/context.js'

type Open = BoundedCache<FileHandle, StandingHandles>

/** @param most at least 2: one request may need two files */
export const standingCache = (most: number, bound = () => most): Open =>
  new BoundedCache(most, bound, (owner, handle) => owner.closed(handle))

/** Of all unions of this thread. */
export const threadStanding = standingCache(MAX_BUDGET, inodeFileBudget)

export class StandingHandles extends HandleTable {
  readonly #u: CopyUpContext
  readonly #open: Open
  readonly #own = new Set<FileHandle>()

  constructor(u: CopyUpContext, open = threadStanding) {
    super()
    this.#u = u
    this.#open = open
  }

  override reading(fh: Fh): FileHandle | Result {
    const node = this.#node(fh)
    if (typeof node === 'number') return node
    const open = this.#standing(node)
    if (open !== undefined) return open
    const fd = openReal(this.#u, node, O_RDONLY)
    return fd < 0 ? fd : this.add(node, fd, false)
  }

  /**
   * Late pages of a protected file were written before it was, or through a mapping: no writer is
   * there to be told, and they are taken. Every other write is refused, also by O_APPEND, which
   * nobody tells either.
   */
  override writing(fh: Fh, late: boolean): FileHandle | Result {
    const node = this.#node(fh)
    if (typeof node === 'number') return node
    if (node.protect !== 0 && !late) return -E.EPERM
    const open = this.#standing(node)
    if (open?.writable === true) return open
    const copied = copyUp(this.#u, node)
    if (copied < 0) return copied
    // It serves reads as well, which move no time.
    const fd = openReal(this.#u, node, O_RDWR | O_NOATIME)
    if (fd < 0) return fd
    isPrivileged(this.#u, node, fd, this.#u.st)
    return this.add(node, fd, true)
  }

  /** What is open of the node, which is used now. */
  #standing({ handles }: Node): FileHandle | undefined {
    const handle = handles?.[0]
    if (handle !== undefined) this.#open.get(handle)
    return handle
  }

  #node(fh: Fh): Node | Result {
    const node = this.#u.nodes.get(-fh)
    return node === undefined ? -E.ESTALE : node.isReg ? node : -E.EBADF
  }

  /**
   * What was opened for a request that says so, as CREATE does, stays open too, and has no number.
   */
  override add(node: Node, fd: number, writable: boolean): FileHandle {
    const handle = new FileHandle(0, node, fd, writable)
    if (fd < 0) return handle
    claim(fd)
    this.forgotten(node)
    node.handles = [handle]
    this.#own.add(handle)
    this.#open.set(handle, this)
    return handle
  }

  override forgotten({ handles }: Node): void {
    for (const handle of handles ?? []) this.#open.delete(handle)
  }

  /** Called by the cache. */
  closed(handle: FileHandle): void {
    this.#own.delete(handle)
    handle.node.handles = null
    close(handle.fd)
  }

  /** Lets go of the half that was not used the longest, whichever union's. */
  override makeRoom(): boolean {
    return this.#open.halve()
  }

  override get size(): number {
    return this.#own.size
  }

  override closeAll(): void {
    for (const handle of this.#own) this.#open.delete(handle)
  }
}
