/**
 * Large READs: the data passes by reference from the page cache of the real file through a pipe
 * into the kernel's reply. There it is copied once. With read(2) and write(2) it would be copied
 * twice, through a buffer of this process. Pages are never moved (SPLICE_F_MOVE), because that
 * would remove them from the real file's page cache.
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
  /** Bytes of data in the pipe, behind the header; -1: the pipe is empty. */
  #loaded = -1
  /** Number of replies sent through the pipe. */
  sent = 0

  /** @param pipe is empty between two replies, so that others may use it meanwhile */
  constructor(pipe = new Pipe()) {
    this.#pipe = pipe
  }

  /** Whether a reply with `length` bytes of data should pass through the pipe. */
  accepts(length: number): boolean {
    return length >= MIN_SPLICED && !this.#off && !this.#pipe.off
  }

  /**
   * Puts a reply with a file's data into the pipe. The pipe holds the header by reference: the
   * kernel reads the buffer's contents at the time of sending, so the length may still be
   * corrected. If the buffer's page has been replaced meanwhile, as after fork(2), the kernel sees
   * the old header and refuses a wrong length.
   *
   * @returns the number of bytes of data, which is less than `length` only at the end of file;
   *   below 0: the splice failed, and the pipe is empty
   */
  load(rep: Reply, fd: number, length: number, pos: Off): number {
    // Offsets beyond 2^53 take the ordinary way: such files are rare.
    if (typeof pos !== 'number' || !this.#pipe.open()) return -1
    const { writeFd } = this.#pipe
    // The header takes one slot.
    if (Math.ceil(((pos % PAGE) + length) / PAGE) >= PIPE_SLOTS) return -1
    if (vmsplice(writeFd, rep.buf, 0, OUT_HEADER_SIZE) !== OUT_HEADER_SIZE) return this.#refuse()
    let done = 0
    while (done < length) {
      const n = spliceFrom(fd, offPlus(pos, done), writeFd, length - done)
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

  /** Whether the latest reply is in the pipe. */
  get loaded(): boolean {
    return this.#loaded >= 0
  }

  /**
   * Sends the reply; returns the same as write(2) of the whole reply. After an error the pipe is
   * empty.
   */
  send(device: number, length: number): number {
    this.#loaded = -1
    const r = splice(this.#pipe.readFd, device, length)
    if (r === length) this.sent++
    else this.close()
    return r < 0 || r === length ? r : -E.EIO
  }

  /** Gives the pipe up for good. */
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
