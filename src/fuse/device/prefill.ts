/**
 * The contents of a short file are given to the kernel with the answer to its first OPEN
 * (FUSE_NOTIFY_STORE), so that no READ has to be asked and waited for.
 *
 * The kernel locks the pages for that. Who holds such a lock may be waiting for this thread: a READ
 * that is not answered yet, or pages that are written back. So it is done for a node of which there
 * can be no pages: it was never opened before.
 *
 * Kernels without "fuse: Initialize beyond-EOF page contents before setting uptodate" (6.11 and
 * some stable releases) leave what is behind the file's end on its last page as the memory was. So
 * it is done by kernels alone that surely have it.
 */

import { UNREAD_MAX, type NodeId, type Opened, type Ops } from '../../overlay/ops.js'
import { E, errnoName } from '../../sys/errno.js'
import { fstatx } from '../../sys/at.js'
import { pread, write } from '../../sys/io.js'
import { Stat } from '../../sys/stat.js'
import type { Logger } from '../../log.js'
import { NOTIFY_STORE, NOTIFY_STORE_OUT_SIZE, OUT_HEADER_SIZE } from '../protocol/abi.js'
import { Reply } from '../protocol/wire.js'

/** Where the contents are in a message. */
const AT = OUT_HEADER_SIZE + NOTIFY_STORE_OUT_SIZE
/**
 * Bytes of the longest file that is given. Beyond this nothing is gained, and who wants a file's
 * head alone has it all read.
 */
export const MAX_STORED = 32 * 1024

/** That of Linux 6.12. */
const MINOR_MIN = 41

/** With room for a byte that the file should not have. One for all: it is sent at once. */
const message = new Reply(AT + MAX_STORED + 1)

export class PageStore {
  readonly #fd: number
  readonly #log: Logger
  readonly #stat = new Stat()
  #off = false
  /** How many files were given. */
  stored = 0

  /** @param fd the device */
  constructor(fd: number, log: Logger) {
    this.#fd = fd
    this.#log = log
  }

  /** @param minor version of the protocol */
  negotiated(minor: number): void {
    if (minor < MINOR_MIN) this.#off = true
  }

  /**
   * @param opened what `ops` has answered to an OPEN for reading, of a file whose pages the kernel
   *   may keep
   * @returns false: the file has another length than the kernel was told, so a layer was changed
   *   beneath the union
   */
  give(node: NodeId, opened: Opened, ops: Ops): boolean {
    const size = opened.unread
    if (size > MAX_STORED) return this.#isAsLong(ops.realFile(opened.fh), size)
    if (size <= 0 || this.#off) return true
    const fd = ops.realFile(opened.fh)
    if (fd < 0) return true
    // By one call. An error comes up with READ.
    const got = pread(fd, message.buf, AT, size + 1, 0)
    if (got !== size) return got < 0
    const length = AT + size
    message.header(length, NOTIFY_STORE, 0, 0)
    message.i64(OUT_HEADER_SIZE, node)
    message.i64(OUT_HEADER_SIZE + 8, 0)
    message.u32(OUT_HEADER_SIZE + 16, size)
    message.u32(OUT_HEADER_SIZE + 20, 0)
    const r = write(this.#fd, message.buf, 0, length)
    if (r === length) this.stored++
    // Gone meanwhile, or no memory for more pages.
    else if (r !== -E.ENOENT && r !== -E.ENOMEM) {
      this.#off = true
      this.#log.warn({ errno: errnoName(r) }, 'the kernel takes no pages of files')
    }
    return true
  }

  /** A longer one is opened at once, too, which costs little beside reading it. */
  #isAsLong(fd: number, size: number): boolean {
    const stat = this.#stat
    return fd < 0 || size >= UNREAD_MAX || fstatx(fd, stat) < 0 || stat.size === size
  }
}
