/**
 * Files that are removed while they are open. libfuse passes paths rather than inodes, so it needs
 * a name for such a file. Instead of removing an open file, it renames it within its directory to
 * `.fuse_hidden` and sixteen hexadecimal digits. It removes that name at the last close
 * (lib/fuse.c:hide_node). The union creates no such file: its handles keep a removed file alive. So
 * the old name is removed at once, and only paths.ts knows the new one.
 *
 * Before a rename over an open file, libfuse hides the target file in a step of its own. If the
 * rename then failed, the target would be lost. So the removal waits for the next request of the
 * same libfuse thread: the rename, which then replaces the target in one step. Any other request of
 * any thread, or HIDE_MS without a request, triggers the removal first.
 */

import type { Logger } from '../log.js'
import { Pending, type Ops, type Result } from '../overlay/ops.js'
import { errnoName } from '../sys/errno.js'
import type { Dentry, Paths, Place } from './paths.js'

/** How long a removal waits for a rename, in milliseconds. A rename arrives much earlier. */
export const HIDE_MS = 20

const HIDDEN = /(?:^|\/)\.fuse_hidden[0-9a-f]{16}$/

/** Whether a path may end in a name that libfuse made up. */
export const isHidden = (path: string): boolean => HIDDEN.test(path)

/** Whether libfuse is hiding a file, as opposed to a rename by a caller. */
export const isHiding = (from: Dentry, to: Place): boolean =>
  from.parent === to.directory && HIDDEN.test(to.name)

interface Waiting {
  place: Place
  thread: unknown
  /** The rename has arrived and is not finished. */
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

  /** Gives the file its hidden name. The removal happens before the next request. */
  hide(dentry: Dentry, to: Place, thread: unknown): void {
    const place = { directory: to.directory, name: dentry.name }
    this.#paths.hide(dentry, to.name)
    this.#waiting = { place, thread, claimed: false }
  }

  /**
   * Whether a rename by this thread to this place is the one for which the file was hidden. If so,
   * the file keeps its name until `renamed`.
   */
  claim(thread: unknown, to: Place): boolean {
    const waiting = this.#waiting
    if (waiting === undefined || waiting.thread !== thread) return false
    const { directory, name } = waiting.place
    return (waiting.claimed = directory === to.directory && name === to.name)
  }

  /**
   * The rename has succeeded, and replaced the file, or has failed, and the file keeps its name.
   */
  renamed(): void {
    this.#waiting = undefined
  }

  /**
   * Removes the file that is waiting. An error is only logged, because libfuse has its answer
   * already.
   * @throws {Pending} the caller must try again later
   */
  removePending(): void {
    const waiting = this.#waiting
    if (waiting === undefined || waiting.claimed) return
    const { directory, name } = waiting.place
    let r: Result
    try {
      r = this.#ops.unlink(directory.id, name)
    } catch (error) {
      if (!(error instanceof Pending)) throw error
      // The job's result must not become the result of the operation that follows.
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
