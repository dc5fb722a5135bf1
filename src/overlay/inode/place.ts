/** Where a real object is. */

import type { ByteString } from '../ops.js'

/**
 * Where a real object is: a name in an open directory, or, with name '', what the descriptor refers
 * to.
 */
export class Place {
  fd = -1
  name: ByteString = ''
  /** The descriptor was opened for this (pin.ts). */
  pinned = false
}
