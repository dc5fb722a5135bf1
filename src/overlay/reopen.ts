/** Opening again: what a descriptor refers to, and what open handles read from. */

import { fdPath, openPath } from '../sys/at.js'
import { O_NOATIME, O_NOFOLLOW, O_RDONLY } from '../sys/constants.js'
import { E } from '../sys/errno.js'
import { close } from '../sys/io.js'
import { OWNER_READ, withRight } from './lend.js'
import type { Node } from './node.js'
import type { Result } from './ops.js'
import { openRead } from './tree.js'
import type { Place, Union } from './union.js'

/** open(2) of /proc/self/fd/N: follows that one magic link, which leads to the file itself. */
export function fdPathOpen(fd: number, flags: number): Result {
  const result = openPath(fdPath(fd), flags & ~O_NOFOLLOW)
  return result === -E.EPERM && (flags & O_NOATIME) !== 0
    ? openPath(fdPath(fd), flags & ~O_NOFOLLOW & ~O_NOATIME)
    : result
}

function openUpper({ fd, name }: Place): Result {
  return name === '' ? fdPathOpen(fd, O_RDONLY | O_NOATIME) : openRead(fd, name)
}

/** Open descriptors of the lower file are replaced, so that later writes are seen through them. */
export function moveHandles(u: Union, node: Node, place: Place): void {
  if (node.handles === null) return
  for (const handle of node.handles) {
    if (handle.fd < 0) continue
    let opened = openUpper(place)
    if (opened === -E.EACCES)
      opened = withRight(place.fd, place.name, OWNER_READ, () => openUpper(place))
    if (opened < 0) {
      u.log.warn({ errno: -opened }, 'an open file keeps reading its lower layer')
      continue
    }
    close(handle.fd)
    handle.fd = opened
  }
}
