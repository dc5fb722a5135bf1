/**
 * Inode files: data of files without open handles. With `noopen` the kernel sends neither OPEN nor
 * RELEASE, and its data requests name only the node. The union keeps one open file for each node
 * that was recently read or written. The first request that needs it opens it. A writable one
 * replaces it when a write comes, and copy-up replaces it like any handle. It is closed when the
 * kernel forgets the node or when other inode files need the descriptor.
 *
 * The server does not know which files are open, so every node must be reachable until the kernel
 * forgets it. A removed file of the upper layer is reached by its orphan fd
 * (remove.ts:keepOrphanFd), a file of a lower layer by its name there.
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

type Open = BoundedCache<FileHandle, InodeFileTable>

/** @param most at least 2, because one request may need two files */
export const inodeFileCache = (most: number, bound = () => most): Open =>
  new BoundedCache(most, bound, (owner, handle) => owner.closed(handle))

/** The inode file cache of all unions of this thread. */
export const threadInodeFiles = inodeFileCache(MAX_BUDGET, inodeFileBudget)

export class InodeFileTable extends HandleTable {
  readonly #u: CopyUpContext
  readonly #open: Open
  readonly #own = new Set<FileHandle>()

  constructor(u: CopyUpContext, open = threadInodeFiles) {
    super()
    this.#u = u
    this.#open = open
  }

  override reading(fh: Fh): FileHandle | Result {
    const node = this.#node(fh)
    if (typeof node === 'number') return node
    const open = this.#inodeFile(node)
    if (open !== undefined) return open
    const fd = openReal(this.#u, node, O_RDONLY)
    return fd < 0 ? fd : this.add(node, fd, false)
  }

  /**
   * Late pages of a protected file are accepted: they were written before the file was protected,
   * or through a mapping, and no writer can get an error. Every other write is refused, also with
   * O_APPEND, because the server does not know the open flags.
   */
  override writing(fh: Fh, late: boolean): FileHandle | Result {
    const node = this.#node(fh)
    if (typeof node === 'number') return node
    if (node.protect !== 0 && !late) return -E.EPERM
    const open = this.#inodeFile(node)
    if (open?.writable === true) return open
    const copied = copyUp(this.#u, node)
    if (copied < 0) return copied
    // The file also serves reads, which must not change the access time.
    const fd = openReal(this.#u, node, O_RDWR | O_NOATIME)
    if (fd < 0) return fd
    isPrivileged(this.#u, node, fd, this.#u.st)
    return this.add(node, fd, true)
  }

  /** The inode file of the node, marked as recently used. */
  #inodeFile({ handles }: Node): FileHandle | undefined {
    const handle = handles?.[0]
    if (handle !== undefined) this.#open.get(handle)
    return handle
  }

  #node(fh: Fh): Node | Result {
    const node = this.#u.nodes.get(-fh)
    return node === undefined ? -E.ESTALE : node.isReg ? node : -E.EBADF
  }

  /**
   * A file that a request opens explicitly (CREATE) also becomes the inode file, and gets no handle
   * number.
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

  /** Closes the least recently used half, of all unions of this thread. */
  override closeIdleFds(): boolean {
    return this.#open.halve()
  }

  override get size(): number {
    return this.#own.size
  }

  override closeAll(): void {
    for (const handle of this.#own) this.#open.delete(handle)
  }
}
