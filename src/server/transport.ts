/** The interface of a transport: `startServer(options: ServeOptions)` resolves to a `Server`. */

import type { IoMode } from '../fuse/protocol/init.js'
import type { Stats } from '../fuse/session/stats.js'
import type { Answer } from '../overlay/namei/which.js'
import type { ByteString } from '../overlay/ops.js'

/** A live mount. */
export interface Server {
  readonly mountpoint: string
  readonly io: IoMode
  /**
   * Settles when the mount has ended for any reason, and its thread and descriptors are gone.
   * Rejects if the thread died of an error.
   */
  readonly closed: Promise<void>
  /**
   * Unmounts. A busy mount rejects with a MountError (EBUSY) unless `lazy`. With `lazy`, the mount
   * is detached at once and served until it is no longer in use.
   */
  unmount(options?: { lazy?: boolean }): Promise<void>
  /** Ends the server at once, even with open files. Called when the process is about to exit. */
  abandon(): void
  /** Counters, such as requests by opcode. */
  stats(): Promise<Stats>
  /**
   * Finds the layers that serve a path, given as its names from the root on. Undefined: no answer.
   * Not all transports support it.
   */
  explain?(names: ByteString[]): Promise<Answer | undefined>
  /** If the server is a process of its own: kills it at once. False: it has ended already. */
  kill?(): boolean
}
