/** Opening again what a descriptor refers to: files that have no name any more. */

import { fdPath, openPath } from '../sys/at.js'
import { O_NOATIME, O_NOFOLLOW } from '../sys/constants.js'
import { E } from '../sys/errno.js'
import type { Result } from './ops.js'

/** open(2) of /proc/self/fd/N: follows that one magic link, which leads to the file itself. */
export function fdPathOpen(fd: number, flags: number): Result {
  const result = openPath(fdPath(fd), flags & ~O_NOFOLLOW)
  return result === -E.EPERM && (flags & O_NOATIME) !== 0
    ? openPath(fdPath(fd), flags & ~O_NOFOLLOW & ~O_NOATIME)
    : result
}
