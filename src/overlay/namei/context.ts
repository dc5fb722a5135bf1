/**
 * The state that all operations of a union share. The `context.ts` of each directory declares the
 * part that the directory needs.
 *
 * The state belongs to one thread, and every operation runs to its end or throws `Pending` at a
 * point where it can be called again, so there are no locks. Between the two calls, any other
 * operation may run, also on the same node.
 */

import type { CopyUpContext } from '../copy-up/context.js'
import type { DirCache } from './dir-cache.js'

export interface Union extends CopyUpContext {
  readonly dirCache: DirCache
}
