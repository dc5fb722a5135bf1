/** A pipe that the largest request, or reply, fits into. */

import { E } from '../../sys/errno.js'
import { close } from '../../sys/io.js'
import { pipe, setPipeSize } from '../../sys/splice.js'
import { PAGE, PIPE_SIZE } from '../../config/tuning.js'

/**
 * Below so many bytes of data nothing is gained: the copy costs no more than the additional system
 * calls.
 */
export const MIN_SPLICED = 64 * 1024

/** Each page takes a slot, also one that is used in part. */
export const PIPE_SLOTS = PIPE_SIZE / PAGE

export class Pipe {
  /** The ends to read from and to write to, or -1. */
  from = -1
  into = -1
  #off = false

  /** It is not to be had, or of no use here, and was given up. */
  get off(): boolean {
    return this.#off
  }

  /** Makes it where there is none. False: it was given up. */
  open(): boolean {
    if (this.from >= 0) return true
    if (this.#off) return false
    const ends = pipe()
    // There may be descriptors again, soon.
    if (ends === -E.EMFILE || ends === -E.ENFILE) return false
    if (typeof ends !== 'number') [this.from, this.into] = ends
    if (this.from < 0 || setPipeSize(this.into, PIPE_SIZE) < PIPE_SIZE) this.giveUp()
    return !this.#off
  }

  /** Throws away what is in it. */
  close(): void {
    if (this.from >= 0) {
      close(this.from)
      close(this.into)
    }
    this.from = -1
    this.into = -1
  }

  giveUp(): void {
    this.#off = true
    this.close()
  }
}
