/**
 * Prefill: with the answer to a file's first OPEN, the server pushes the contents of a short file
 * into the kernel's page cache (FUSE_NOTIFY_STORE). The caller's read(2) then needs no READ
 * request.
 *
 * The kernel locks the pages for the notification. The holder of such a lock may be waiting for
 * this thread: for the answer to a READ, or for a write-back. So prefill is only used for a node
 * that cannot have pages, because it was never opened before.
 *
 * Kernels without "fuse: Initialize beyond-EOF page contents before setting uptodate" (6.11 and
 * some stable releases) leave uninitialized memory behind the end of file on its last page. So
 * prefill is only used with kernels that certainly have that fix.
 */

import { UNREAD_MAX, type NodeId, type Opened, type Ops } from '../../overlay/ops.js'
import { E, errnoName } from '../../sys/errno.js'
import { fstatx } from '../../sys/at.js'
import { pread, write } from '../../sys/io.js'
import { Stat } from '../../sys/stat.js'
import type { Logger } from '../../log.js'
import { NOTIFY_STORE, NOTIFY_STORE_OUT_SIZE, OUT_HEADER_SIZE } from '../protocol/abi.js'
import { Reply } from '../protocol/wire.js'

/** Offset of the file's contents in a message. */
const AT = OUT_HEADER_SIZE + NOTIFY_STORE_OUT_SIZE
/**
 * Bytes of the longest file that is prefilled. With longer files prefill gains nothing, and a
 * caller that reads only the beginning would wait for the whole file.
 */
export const MAX_PREFILL = 32 * 1024

/** The protocol's minor version of Linux 6.12. */
const MINOR_MIN = 41

/**
 * It has room for one more byte, which shows that the file is longer than expected. All connections
 * of the thread share it, because a message is written at once.
 */
const message = new Reply(AT + MAX_PREFILL + 1)

export class Prefill {
  readonly #fd: number
  readonly #log: Logger
  readonly #stat = new Stat()
  #off = false
  /** Number of files that were prefilled. */
  count = 0

  /** @param fd the device */
  constructor(fd: number, log: Logger) {
    this.#fd = fd
    this.#log = log
  }

  /** @param minor the minor version of the protocol */
  negotiated(minor: number): void {
    if (minor < MINOR_MIN) this.#off = true
  }

  /**
   * @param opened the answer of `ops` to an OPEN for reading; the kernel may keep the file's pages
   * @returns false: the file's length differs from the one that the kernel knows, so a layer was
   *   changed beneath the union
   */
  push(node: NodeId, opened: Opened, ops: Ops): boolean {
    const size = opened.unread
    if (size > MAX_PREFILL) return this.#isAsLong(ops.realFile(opened.fh), size)
    if (size <= 0 || this.#off) return true
    const fd = ops.realFile(opened.fh)
    if (fd < 0) return true
    // A single pread(2). The READ request that follows reports any error.
    const got = pread(fd, message.buf, AT, size + 1, 0)
    if (got !== size) return got < 0
    const length = AT + size
    message.header(length, NOTIFY_STORE, 0, 0)
    message.i64(OUT_HEADER_SIZE, node)
    message.i64(OUT_HEADER_SIZE + 8, 0)
    message.u32(OUT_HEADER_SIZE + 16, size)
    message.u32(OUT_HEADER_SIZE + 20, 0)
    const r = write(this.#fd, message.buf, 0, length)
    if (r === length) this.count++
    // ENOENT: the kernel has dropped the inode meanwhile. ENOMEM: it has no memory for pages.
    else if (r !== -E.ENOENT && r !== -E.ENOMEM) {
      this.#off = true
      this.#log.warn({ errno: errnoName(r) }, 'the kernel takes no pages of files')
    }
    return true
  }

  /**
   * Checks the length of a longer file with statx(2), which costs little compared to reading the
   * file.
   */
  #isAsLong(fd: number, size: number): boolean {
    const stat = this.#stat
    return fd < 0 || size >= UNREAD_MAX || fstatx(fd, stat) < 0 || stat.size === size
  }
}
