/**
 * Large WRITEs: the kernel's pages go from its request into the real file by reference, through a pipe, and are copied
 * there once. By read(2) and pwrite(2) they would be copied twice, through a buffer of this process.
 *
 * How a request is read has to be known before it is there, and a small one takes one or two system calls more by a pipe. So
 * the next goes that way where the one before was a large WRITE.
 */

import { E } from '../sys/errno.js'
import { read } from '../sys/io.js'
import { splice } from '../sys/splice.js'
import { IN_HEADER_SIZE, Opcode, WRITE_IN_SIZE } from './abi.js'
import { MIN_SPLICED, Pipe } from './pipe.js'
import { PIPE_SIZE } from './tuning.js'
import type { Request } from './wire.js'

/** What of a WRITE goes into the buffer in any case. */
const HEAD = IN_HEADER_SIZE + WRITE_IN_SIZE

const isLargeWrite = (req: Request, length: number): boolean =>
  req.opcode === Opcode.WRITE && length >= HEAD + MIN_SPLICED

/** So many other requests may come in between: what is written back ends in small ones. */
const PATIENCE = 2

export class Intake {
  readonly #pipe: Pipe
  #off = false
  /** How many requests are to be read through the pipe. */
  #expected = 0
  /** How many WRITEs came this way. */
  taken = 0

  /** @param pipe is empty between two requests, so that others may use it then */
  constructor(pipe = new Pipe()) {
    this.#pipe = pipe
  }

  /** As read(2) of a request into its buffer. Data that is in a pipe instead is what `req.source` says. */
  read(req: Request): number {
    const n =
      this.#expected > 0 && !this.#off && this.#pipe.open() ? this.#splice(req) : this.#read(req)
    if (n > 0) this.#expected = isLargeWrite(req, n) ? PATIENCE : Math.max(this.#expected - 1, 0)
    return n
  }

  #read(req: Request): number {
    return read(req.fd, req.buf, 0, req.buf.length)
  }

  #splice(req: Request): number {
    const n = splice(req.fd, this.#pipe.into, PIPE_SIZE)
    if (n === -E.EINVAL) {
      // So says the kernel where the largest request would not fit.
      this.#off = true
      return this.#read(req)
    }
    if (n <= 0) return n
    const head = Math.min(n, HEAD)
    if (!this.#take(req, 0, head)) return -E.EIO
    if (isLargeWrite(req, n)) {
      req.source = this.#pipe.from
      this.taken++
      return n
    }
    return this.#take(req, head, n - head) ? n : -E.EIO
  }

  /** So many bytes of what is in the pipe. */
  #take(req: Request, at: number, length: number): boolean {
    let got = 0
    while (got < length) {
      const n = read(this.#pipe.from, req.buf, at + got, length - got)
      if (n <= 0) break
      got += n
    }
    if (got < length) this.#pipe.close()
    return got === length
  }

  /** Brings the data into the buffer after all, for who needs it later. False: it is lost. */
  keep(req: Request): boolean {
    req.source = -1
    return this.#take(req, HEAD, req.length - HEAD)
  }

  /** Nobody needs what is left of the data. */
  drop(req: Request): void {
    req.source = -1
    this.#pipe.close()
  }
}
