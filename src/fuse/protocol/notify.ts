/**
 * What is sent to the kernel unasked, fs/fuse/notify.c (fs/fuse/dev.c up to 6.18).
 *
 * From the serving thread itself only an inode's attributes are invalidated (offset -1): the kernel
 * then marks the inode and returns. Invalidating pages waits for their write-back, and
 * FUSE_NOTIFY_INVAL_ENTRY for the directory's lock; the holder of either may be waiting for this
 * thread.
 */

import type { NodeId, Notifier } from '../../overlay/ops.js'
import { E } from '../../sys/errno.js'
import { write } from '../../sys/io.js'
import type { Logger } from '../../log.js'
import {
  NOTIFY_INVAL_INODE,
  NOTIFY_INVAL_INODE_OUT_SIZE,
  NOTIFY_PRUNE,
  NOTIFY_PRUNE_OUT_SIZE,
  OUT_HEADER_SIZE,
} from './abi.js'
import { Reply } from './wire.js'

const SIZE = OUT_HEADER_SIZE + NOTIFY_INVAL_INODE_OUT_SIZE

/** struct fuse_notify_inval_inode_out: the attributes of a node, and none of its pages. */
export const writeInvalAttr = (rep: Reply, node: NodeId): number => {
  rep.header(SIZE, NOTIFY_INVAL_INODE, 0, 0)
  rep.i64(OUT_HEADER_SIZE, node)
  rep.i64(OUT_HEADER_SIZE + 8, -1)
  rep.i64(OUT_HEADER_SIZE + 16, 0)
  return SIZE
}

/** The same, with all of its pages: the kernel writes back those that are dirty first. */
export const writeInvalPages = (rep: Reply, node: NodeId): number => {
  const length = writeInvalAttr(rep, node)
  rep.i64(OUT_HEADER_SIZE + 8, 0)
  return length
}

/**
 * struct fuse_notify_prune_out, and the numbers of nodes. Those that nobody uses leave the kernel's
 * cache.
 */
export const writePrune = (rep: Reply, nodes: readonly NodeId[]): number => {
  const at = OUT_HEADER_SIZE + NOTIFY_PRUNE_OUT_SIZE
  const length = at + nodes.length * 8
  rep.header(length, NOTIFY_PRUNE, 0, 0)
  rep.zero(OUT_HEADER_SIZE, at)
  rep.u32(OUT_HEADER_SIZE, nodes.length)
  nodes.forEach((node, i) => rep.i64(at + i * 8, node))
  return length
}

export class DeviceNotifier implements Notifier {
  readonly #message = new Reply(SIZE)
  readonly #log: Logger
  #fd = -1
  /** The kernel knows FUSE_NOTIFY_PRUNE. */
  prunes = false

  constructor(log: Logger) {
    this.#log = log
  }

  /**
   * From now on notifications go to this device; before there is a mount there is nothing to tell.
   */
  attach(fd: number): void {
    this.#fd = fd
  }

  dropPages(node: NodeId): { fd: number; bytes: Uint8Array } | null {
    if (this.#fd < 0) return null
    const message = new Reply(SIZE)
    const length = writeInvalPages(message, node)
    return { fd: this.#fd, bytes: Uint8Array.from(message.buf.subarray(0, length)) }
  }

  forgetNodes(nodes: readonly NodeId[]): { fd: number; bytes: Uint8Array } | null {
    if (this.#fd < 0 || !this.prunes) return null
    const message = new Reply(OUT_HEADER_SIZE + NOTIFY_PRUNE_OUT_SIZE + nodes.length * 8)
    const length = writePrune(message, nodes)
    return { fd: this.#fd, bytes: Uint8Array.from(message.buf.subarray(0, length)) }
  }

  attrChanged(node: NodeId): void {
    if (this.#fd < 0) return
    const length = writeInvalAttr(this.#message, node)
    const r = write(this.#fd, this.#message.buf, 0, length)
    // ENOENT: the kernel does not have the inode in memory, so nothing of it is cached.
    if (r < 0 && r !== -E.ENOENT) {
      this.#log.warn({ node, errno: -r }, 'the kernel did not take an invalidation')
    }
  }
}
