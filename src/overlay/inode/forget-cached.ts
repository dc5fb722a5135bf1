/**
 * Releases nodes that only the kernel's cache keeps alive: the server asks the kernel to forget
 * them, and the kernel answers with FORGET.
 */

import { series } from '../jobs/pool.js'
import type { IoTask } from '../jobs/task.js'
import type { NodeId, Result } from '../ops.js'
import type { InodeContext } from './context.js'

/**
 * Nodes of a single message. The kernel needs time for each of them. The pool thread can run other
 * tasks between two messages.
 */
const BATCH = 1024

/**
 * Runs in the background.
 *
 * @param over is called after the last message
 */
export function forgetCachedNodes(u: InodeContext, most: number, over: () => void): void {
  const nodes = u.nodes.cached()
  let left = most
  const next = (result: Result): IoTask | Result => {
    const some: NodeId[] = []
    for (let node; some.length < Math.min(BATCH, left) && !(node = nodes.next()).done;)
      some.push(node.value)
    left -= some.length
    const message = result < 0 || some.length === 0 ? null : u.notifier.forgetNodes(some)
    if (message !== null) return { kind: 'write', ...message }
    over()
    return result
  }
  series(u.pool, next, over)
}
