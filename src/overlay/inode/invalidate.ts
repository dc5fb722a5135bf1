/** Notifies the kernel of changed attributes that are not in the reply to the current request. */

import type { Node } from './node.js'
import type { InodeContext } from './context.js'

/**
 * Invalidates the attributes of a node in the kernel's cache: mode, owner, size, times and link
 * count. Call it after every change that is not in the current reply. An inode that the kernel does
 * not know has no cached attributes.
 *
 * This never blocks the union's thread: the kernel only marks the inode (fuse/protocol/notify.ts).
 */
export function invalidateAttrs(u: InodeContext, node: Node): void {
  if (node.lookups > 0 && node !== u.answering) u.notifier.attrChanged(node.id)
}
