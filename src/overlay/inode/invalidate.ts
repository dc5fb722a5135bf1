/** What the union changes of an inode beside what the reply to a request tells. */

import type { Node } from './node.js'
import type { InodeContext } from './context.js'

/**
 * Tells the kernel that what it has cached of a node's attributes is no longer true: mode, owner,
 * size, times, link count. To be called after every change that the answer under way does not tell
 * itself. An inode that the kernel does not know has nothing cached.
 *
 * From the union's thread this never waits: the kernel only marks the inode
 * (fuse/protocol/notify.ts).
 */
export function invalidateAttrs(u: InodeContext, node: Node): void {
  if (node.lookups > 0 && node !== u.answering) u.notifier.attrChanged(node.id)
}
