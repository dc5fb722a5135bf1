/**
 * Large READs: the data goes from the page cache of the real file into the kernel's reply by
 * reference, through a pipe, and is copied there once. By read(2) and write(2) it would be copied
 * twice, through a buffer of this process. Pages are never moved (SPLICE_F_MOVE): the kernel would
 * take them out of the real file's cache.
 */

import { offPlus, type Off } from '../../sys/types.js'
import { E } from '../../sys/errno.js'
import { splice, spliceFrom, vmsplice } from '../../sys/splice.js'
import { OUT_HEADER_SIZE } from '../protocol/abi.js'
import { MIN_SPLICED, Pipe, PIPE_SLOTS } from './pipe.js'
import { PAGE } from '../../config/tuning.js'
import type { Reply } from '../protocol/wire.js'

export class ReplyPipe {
  readonly #pipe: Pipe
  #off = false
  /** Bytes of data that are in the pipe, behind the header; -1: nothing is. */
  #loaded = -1
  /** How many replies went this way. */
  sent = 0

  /** @param pipe is empty between two replies, so that others may use it then */
  constructor(pipe = new Pipe()) {
    this.#pipe = pipe
  }

  /** Whether a reply with so much data should go this way. */
  takes(length: number): boolean {
    return length >= MIN_SPLICED && !this.#off && !this.#pipe.off
  }

  /**
   * Puts a reply with a file's data into the pipe. The header is there by reference: what the
   * reply's buffer holds when it is sent counts, so the length may be corrected. (Should the memory
   * have become another page meanwhile, as after fork(2), the kernel sees the header as it was, and
   * refuses a length that is not true.) How many bytes of data there are, less than `length` only
   * at the file's end; below 0: this can't be done, and there is nothing in the pipe.
   */
  load(rep: Reply, fd: number, length: number, pos: Off): number {
    // Nobody has large files that far out.
    if (typeof pos !== 'number' || !this.#pipe.open()) return -1
    const { into } = this.#pipe
    // The header takes one.
    if (Math.ceil(((pos % PAGE) + length) / PAGE) >= PIPE_SLOTS) return -1
    if (vmsplice(into, rep.buf, 0, OUT_HEADER_SIZE) !== OUT_HEADER_SIZE) return this.#refuse()
    let done = 0
    while (done < length) {
      const n = spliceFrom(fd, offPlus(pos, done), into, length - done)
      if (n === -E.EINVAL) return this.#refuse()
      if (n < 0) {
        this.close()
        return -1
      }
      if (n === 0) break
      done += n
    }
    this.#loaded = done
    return done
  }

  /** Whether the reply that was made last lies in the pipe. */
  get loaded(): boolean {
    return this.#loaded >= 0
  }

  /** Sends it; as write(2) of the whole reply. After an error nothing is left in the pipe. */
  send(device: number, length: number): number {
    this.#loaded = -1
    const r = splice(this.#pipe.from, device, length)
    if (r === length) this.sent++
    else this.close()
    return r < 0 || r === length ? r : -E.EIO
  }

  /** Never again. */
  #refuse(): -1 {
    this.stop()
    return -1
  }

  close(): void {
    this.#pipe.close()
    this.#loaded = -1
  }

  /** Large replies are sent by write(2) from now on. */
  stop(): void {
    this.#off = true
    this.close()
  }
}
