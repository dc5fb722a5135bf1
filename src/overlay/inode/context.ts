/** The part of a union's state that this directory uses. */

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
  /** Null if owners are shown and stored unchanged. */
  readonly idmap: Idmap | null
  /**
   * The inode number of a copied-up file can't be found again by its origin. The file gets another
   * number after the kernel has forgotten the inode.
   */
  readonly losesNumbers: boolean
  /**
   * Called when an entry of the directory has got another inode number, so that nothing uses the
   * old listing.
   */
  readonly renumbered: (directory: Node) => void
  /** The number of messages about changed inode numbers that the kernel has not received yet. */
  readonly pendingMessages: { count: number }
  /**
   * The kernel caches writes. It also reads through descriptors that a caller opened write-only.
   */
  readonly writeback: boolean
  /** The kernel reads and writes files of the upper layer itself (FUSE passthrough). */
  readonly passthrough: boolean
  /**
   * The kernel sends no OPEN and RELEASE of files. Requests for data name a node (inode-files.ts).
   */
  readonly noOpen: boolean
  /**
   * This process may read every file, so that opening a file for reading can't fail with EACCES.
   */
  readonly readsAll: boolean
  /** The upper layer is on tmpfs, or syncing is off. fsync does nothing then. */
  readonly syncIsFree: boolean
  /** Scratch: the attributes of the last lookup or stat. Valid until the next call. */
  readonly st: Stat
  readonly place: Place
  /**
   * The node whose attributes are in the reply of the current request. A change needs no
   * notification then.
   */
  answering: Node | null
  /**
   * The node of the last lower file that was found without any extended attribute
   * (metacopy.ts:resolveMetacopy), or 0.
   */
  nodeWithoutXattrs: NodeId
  /** Null for a read-only union. */
  readonly workdir: {
    readonly form: Exclude<WhiteoutForm, 'auto'>
    readonly indexFd: number
  } | null
}

/** True without an upper layer, and for a read-only mount. */
export function isReadOnly(u: InodeContext): boolean {
  return u.workdir === null
}
