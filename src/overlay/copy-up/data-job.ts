/** Copies of large files, on a job thread. */

import { close } from '../../sys/io.js'
import { claim, isSlow } from '../../sys/slow.js'
import type { Off } from '../../sys/types.js'
import type { Node } from '../inode/node.js'
import { Pending, type Result } from '../ops.js'
import type { CopyUpContext } from './context.js'

/**
 * A file up to this size is copied on the union's thread, because a job would cost more than the
 * copy.
 */
const INLINE_COPY = 1 << 20

/** Whether a copy of `size` bytes from `src` would delay other requests. */
export const takesLong = (u: CopyUpContext, src: number, size: Off): boolean =>
  size > INLINE_COPY || !u.syncIsFree || isSlow(src)

/**
 * Copies `size` bytes of a node's data from one descriptor to another. The job owns both
 * descriptors and closes them. Until it ends, `node.job` is set, and every operation that changes
 * the node waits for it.
 *
 * @param finish runs on the union's thread after the copy has succeeded or failed; its result is
 *   the result of the job
 * @throws Pending always
 */
export function copyInBackground(
  u: CopyUpContext,
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
    const end = slow === null ? finish(copied) : slow.withAnswers(answers, () => finish(copied))
    closeBoth()
    u.nodes.release(node)
    return end
  }
  const answers = u.slow?.current ?? null
  claim(src)
  const threads = u.slow !== null && isSlow(src) ? u.slow : u.pool
  const job = threads.submit({ kind: 'copy', src, dst, size, sync: !u.syncIsFree }, done, closeBoth)
  node.job = { job }
  throw new Pending(job, false)
}
