/** The mark `.wh..wh..opq` of container layers: a folder that hides what lies below it. */

import { openat } from '../sys/at.js'
import { O_CREAT, O_WRONLY } from '../sys/constants.js'
import { close } from '../sys/io.js'
import type { ByteString, Result } from './ops.js'

/** The AUFS and OCI form of "opaque": a file of this name in the folder. */
export const DOT_OPAQUE = '.wh..wh..opq'

/** Puts the mark into the folder (fd, name). */
export function markDotOpaque(fd: number, name: ByteString): Result {
  const path = name === '' ? DOT_OPAQUE : `${name}/${DOT_OPAQUE}`
  const mark = openat(fd, path, O_CREAT | O_WRONLY, 0)
  if (mark < 0) return mark
  close(mark)
  return 0
}
