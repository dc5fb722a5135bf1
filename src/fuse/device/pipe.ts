/** A pipe that has room for the largest request or reply. */

import { E } from '../../sys/errno.js'
import { close } from '../../sys/io.js'
import { pipe, setPipeSize } from '../../sys/splice.js'
import { PAGE, PIPE_SIZE } from '../../config/tuning.js'

/**
 * With fewer bytes of data a splice gains nothing: the copy costs no more than the additional
 * system calls.
 */
export const MIN_SPLICED = 64 * 1024

/** Each page takes a slot, even if only a part of it is used. */
export const PIPE_SLOTS = PIPE_SIZE / PAGE

export class Pipe {
  /** The file descriptors of its read end and its write end, or -1. */
  readFd = -1
  writeFd = -1
  #off = false

  /** The pipe cannot be created, or the kernel does not splice here. It stays off. */
  get off(): boolean {
    return this.#off
  }

  /** Creates the pipe if it does not exist. False: there is no pipe at present, or it is off. */
  open(): boolean {
    if (this.readFd >= 0) return true
    if (this.#off) return false
    const ends = pipe()
    // The lack of descriptors may be temporary.
    if (ends === -E.EMFILE || ends === -E.ENFILE) return false
    if (typeof ends !== 'number') [this.readFd, this.writeFd] = ends
    if (this.readFd < 0 || setPipeSize(this.writeFd, PIPE_SIZE) < PIPE_SIZE) this.giveUp()
    return !this.#off
  }

  /** Closes the pipe; its contents are lost. */
  close(): void {
    if (this.readFd >= 0) {
      close(this.readFd)
      close(this.writeFd)
    }
    this.readFd = -1
    this.writeFd = -1
  }

  giveUp(): void {
    this.#off = true
    this.close()
  }
}
