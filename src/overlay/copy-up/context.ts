/** What the code of this directory and of `file` needs of a union. */

import type { InodeContext } from '../inode/context.js'
import type { Workdir } from './workdir.js'

/** Files, directories and whatever else was copied up, and the bytes of the files. */
export interface CopyCounts {
  objects: number
  bytes: number
}

export interface CopyUpContext extends InodeContext {
  /** Null with a read-only union. */
  readonly workdir: Workdir | null
  /** What was copied up. */
  readonly copied: CopyCounts
}
