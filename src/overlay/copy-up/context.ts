/** The part of a union that this directory and `file` use. */

import type { InodeContext } from '../inode/context.js'
import type { Workdir } from './workdir.js'

/** The number of copied-up objects of any type, and of the bytes of the regular files. */
export interface CopyCounts {
  objects: number
  bytes: number
}

export interface CopyUpContext extends InodeContext {
  /** Null in a read-only union. */
  readonly workdir: Workdir | null
  /** Counts copy-ups. */
  readonly copied: CopyCounts
}
