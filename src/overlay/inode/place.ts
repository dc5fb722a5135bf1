/** Where a real object is. */

import type { ByteString } from '../ops.js'

/**
 * The location of a real object: a name in an open directory, or with the name '' the object that
 * the descriptor refers to.
 */
export class Place {
  fd = -1
  name: ByteString = ''
  /** The descriptor was opened by pin.ts, which also closes it. */
  pinned = false
}
