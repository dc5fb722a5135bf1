/**
 * The state that all operations of a union share. Each directory names the part that it needs in
 * its `context.ts`.
 *
 * Everything here belongs to one thread and every operation runs to its end (or throws `Pending`
 * before it changed anything), so there are no locks. What may happen between a `Pending` and the
 * second try: any other operation, on the same node too.
 */

import type { CopyUpContext } from '../copy-up/context.js'
import type { DirCache } from './dir-cache.js'

export interface Union extends CopyUpContext {
  readonly dirCache: DirCache
}
