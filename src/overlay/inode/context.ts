/** What the code of this directory needs of a union. */

import type { Stat } from '../../sys/stat.js'
import type { LayerContext } from '../layer/context.js'
import type { NodeId, Notifier } from '../ops.js'
import type { WhiteoutForm } from '../options.js'
import type { Idmap } from '../owner/idmap.js'
import type { NodeTable } from './nodes.js'
import type { Node } from './node.js'
import type { Place } from './place.js'

export interface InodeContext extends LayerContext {
  readonly notifier: Notifier
  readonly nodes: NodeTable
  /** Null: owners are shown and written as they are. */
  readonly idmap: Idmap | null
  /**
   * A copy's number can't be found again by its origin, so it gets another one when the kernel has
   * forgotten it.
   */
  readonly losesNumbers: boolean
  /** What a directory lists has got another inode number: nobody goes by the old listing. */
  readonly renumbered: (directory: Node) => void
  /** How many messages about such numbers the kernel has not taken yet. */
  readonly pendingMessages: { count: number }
  /**
   * The kernel writes back pages: it also reads through descriptors that a client opened
   * write-only.
   */
  readonly writeback: boolean
  /** The kernel is to read and write files of the upper layer itself. */
  readonly passthrough: boolean
  /**
   * Files are opened and closed without a message: requests for data name a node (inode-files.ts).
   */
  readonly noOpen: boolean
  /**
   * This process may read every file, so that opening one for reading cannot be refused for want of
   * a right.
   */
  readonly readsAll: boolean
  /** The upper is on tmpfs, or all syncing is off: fsync costs nothing there. */
  readonly syncIsFree: boolean
  /** Scratch: the attributes that the last lookup or stat found. Valid until the next call. */
  readonly st: Stat
  readonly place: Place
  /**
   * The answer that is being made will tell this node's attributes: no need of a notice that they
   * change.
   */
  answering: Node | null
  /**
   * The node whose lower file was the last to be seen without any extended attribute
   * (metacopy.ts:resolveMetacopy), or 0.
   */
  bare: NodeId
  /** Null with a read-only union. */
  readonly workdir: {
    readonly form: Exclude<WhiteoutForm, 'auto'>
    readonly indexFd: number
  } | null
}

/** Nothing can be written: no upper, or mounted read-only. */
export function isReadOnly(u: InodeContext): boolean {
  return u.workdir === null
}
