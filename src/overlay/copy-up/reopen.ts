/** Reopens the descriptors of open handles after copy-up. */

import { O_NOATIME, O_RDONLY } from '../../sys/constants.js'
import { E } from '../../sys/errno.js'
import { close } from '../../sys/io.js'
import { OWNER_READ, withOwnerAccess } from '../owner/owner-access.js'
import type { Node } from '../inode/node.js'
import type { Result } from '../ops.js'
import { openRegular } from '../layer/open-regular.js'
import type { Place } from '../inode/place.js'
import type { CopyUpContext } from './context.js'

type Where = Pick<Place, 'fd' | 'name'>

function openUpper({ fd, name }: Where, flags: number, node: Node): Result {
  return openRegular(fd, name, flags, node)
}

/** Replaces open descriptors of the lower file, so that reads through them see later writes. */
export function reopenHandles(u: CopyUpContext, node: Node, place: Where): void {
  if (node.handles === null) return
  for (const handle of node.handles) {
    if (handle.fd < 0) continue
    const flags = O_RDONLY | (handle.keepsTime ? O_NOATIME : (u.upper?.readFlags ?? 0))
    let opened = openUpper(place, flags, node)
    if (opened === -E.EACCES)
      opened = withOwnerAccess(place.fd, place.name, OWNER_READ, () =>
        openUpper(place, flags, node),
      )
    if (opened < 0) {
      u.log.warn(
        { errno: -opened },
        'cannot reopen a copied-up file: its handle still reads the lower file',
      )
      continue
    }
    close(handle.fd)
    handle.fd = opened
  }
}
