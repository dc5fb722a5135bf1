/**
 * Files that are removed while they are open. libfuse tells no inode, only paths, so it needs a
 * name for them: instead of removing an open file it renames it, in its directory, to
 * `.fuse_hidden` and sixteen hexadecimal digits, and removes that at the last close
 * (lib/fuse.c:hide_node). Here no such file is ever made: the union keeps a removed file by its
 * handles, so the name is removed at once, and the other one is only known to paths.ts.
 *
 * Before a rename over an open file libfuse does the same to the file that is in the way, in a step
 * of its own; if the rename then failed, that file would be lost. So the removal waits for what the
 * same thread of libfuse asks next: the rename, which then replaces the file itself, in one step.
 * Everything else that anyone asks, and 20 ms without a question, have the file removed first.
 */

import type { Logger } from '../log.js'
import { Pending, type Ops, type Result } from '../overlay/ops.js'
import { errnoName } from '../sys/errno.js'
import type { Dentry, Paths, Place } from './paths.js'

/** How long a removal waits for a rename. That comes within a fraction of a millisecond. */
export const HIDE_MS = 20

const HIDDEN = /(?:^|\/)\.fuse_hidden[0-9a-f]{16}$/

/** Whether a path may end in a name that libfuse has given. */
export const isHidden = (path: string): boolean => HIDDEN.test(path)

/** Whether libfuse wants a file out of the way, rather than a user a new name for it. */
export const isHiding = (from: Dentry, to: Place): boolean =>
  from.parent === to.directory && HIDDEN.test(to.name)

interface Waiting {
  place: Place
  thread: unknown
  /** The rename has come, and is not done yet. */
  claimed: boolean
}

export class Hidden {
  readonly #ops: Ops
  readonly #paths: Paths
  readonly #log: Logger
  #waiting: Waiting | undefined

  constructor(ops: Ops, paths: Paths, log: Logger) {
    this.#ops = ops
    this.#paths = paths
    this.#log = log
  }

  get isWaiting(): boolean {
    return this.#waiting !== undefined
  }

  /** The file gets its other name; it is removed with the next question. */
  hide(dentry: Dentry, to: Place, thread: unknown): void {
    const place = { directory: to.directory, name: dentry.name }
    this.#paths.hide(dentry, to.name)
    this.#waiting = { place, thread, claimed: false }
  }

  /**
   * Whether a rename by this thread to this place is the one that the file was put out of the way
   * for. Until `renamed` it stays where it is then.
   */
  claim(thread: unknown, to: Place): boolean {
    const waiting = this.#waiting
    if (waiting === undefined || waiting.thread !== thread) return false
    const { directory, name } = waiting.place
    return (waiting.claimed = directory === to.directory && name === to.name)
  }

  /** The rename was made, or has failed: the file is gone, or has its name still. */
  renamed(): void {
    this.#waiting = undefined
  }

  /**
   * Removes what waits for it. Nobody can be told of an error: libfuse was answered already.
   * @throws {Pending} to be called again
   */
  settle(): void {
    const waiting = this.#waiting
    if (waiting === undefined || waiting.claimed) return
    const { directory, name } = waiting.place
    let r: Result
    try {
      r = this.#ops.unlink(directory.id, name)
    } catch (error) {
      if (!(error instanceof Pending)) throw error
      // Its result is not that of the operation which came after.
      const { job } = error
      throw new Pending({ onDone: callback => job.onDone(() => callback(0)) }, false)
    }
    this.#waiting = undefined
    if (r < 0) {
      this.#log.error(
        { name, errno: errnoName(r) },
        'an open file could not be removed, and keeps its name',
      )
    }
  }
}
