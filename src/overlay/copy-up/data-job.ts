/** Copies of data that take long, on a thread of the pool. */

import { close } from '../../sys/io.js'
import { claim, isSlow } from '../../sys/slow.js'
import type { Off } from '../../sys/types.js'
import type { Node } from '../inode/node.js'
import { Pending, type Result } from '../ops.js'
import type { Union } from '../union.js'

/** Files up to this size are copied on the union's own thread: handing over costs more. */
const INLINE_COPY = 1 << 20

/** Whether to copy so many bytes from `src` would keep other requests waiting. */
export const takesLong = (u: Union, src: number, size: Off): boolean =>
  size > INLINE_COPY || !u.syncIsFree || isSlow(src)

/**
 * Copies `size` bytes of a node's data from one descriptor to another, and closes both at the end.
 * Until then the node has a job, for which everybody waits who wants to change it.
 *
 * @param finish runs on the union's thread when the data is there, or is not; its result is the
 *   job's
 * @throws Pending always
 */
export function copyInBackground(
  u: Union,
  node: Node,
  src: number,
  dst: number,
  size: Off,
  finish: (copied: Result) => Result,
): never {
  const closeBoth = (): void => {
    close(src)
    close(dst)
  }
  const done = (copied: Result): Result => {
    node.job = null
    const { slow } = u
    const end = slow === null ? finish(copied) : slow.withAnswers(told, () => finish(copied))
    closeBoth()
    u.nodes.release(node)
    return end
  }
  const told = u.slow?.current ?? null
  claim(src)
  const threads = u.slow !== null && isSlow(src) ? u.slow : u.pool
  const job = threads.submit({ kind: 'copy', src, dst, size, sync: !u.syncIsFree }, done, closeBoth)
  node.job = { job }
  throw new Pending(job, false)
}
