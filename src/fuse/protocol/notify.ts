/**
 * Notifications to the kernel, fs/fuse/notify.c (fs/fuse/dev.c up to 6.18).
 *
 * The serving thread itself only invalidates an inode's attributes (offset -1): the kernel then
 * marks the inode and returns. Invalidating pages waits for their write-back, and
 * FUSE_NOTIFY_INVAL_ENTRY waits for the directory's lock. The holder of either may be waiting for
 * this thread.
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

/** struct fuse_notify_inval_inode_out for the attributes of a node, without its pages. */
export const writeInvalAttr = (rep: Reply, node: NodeId): number => {
  rep.header(SIZE, NOTIFY_INVAL_INODE, 0, 0)
  rep.i64(OUT_HEADER_SIZE, node)
  rep.i64(OUT_HEADER_SIZE + 8, -1)
  rep.i64(OUT_HEADER_SIZE + 16, 0)
  return SIZE
}

/** The same for all its pages, too. The kernel writes the dirty ones back first. */
export const writeInvalPages = (rep: Reply, node: NodeId): number => {
  const length = writeInvalAttr(rep, node)
  rep.i64(OUT_HEADER_SIZE + 8, 0)
  return length
}

/**
 * struct fuse_notify_prune_out and the nodeids. The kernel drops those that are not in use from its
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
  /** The kernel supports FUSE_NOTIFY_PRUNE. */
  prunes = false

  constructor(log: Logger) {
    this.#log = log
  }

  /**
   * Sends the notifications that follow to this device. Before the mount exists there is nothing to
   * invalidate.
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
    // ENOENT: the kernel has no such inode in memory, so it has cached nothing of it.
    if (r < 0 && r !== -E.ENOENT) {
      this.#log.warn({ node, errno: -r }, 'the kernel did not take an invalidation')
    }
  }
}
