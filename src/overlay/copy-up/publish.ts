/** How a finished copy gets into an upper directory. Analogous to fs/overlayfs/copy_up.c. */

import { fstatx, futimens } from '../../sys/at.js'
import { E } from '../../sys/errno.js'
import { Stat } from '../../sys/stat.js'
import { invalidateAttrs } from '../inode/invalidate.js'
import type { RealDir } from '../layer/layer.js'
import { OWNER_SEARCH, OWNER_WRITE, withOwnerAccess } from '../owner/owner-access.js'
import { isXattrRefusal } from '../layer/overlay-xattrs.js'
import type { Node } from '../inode/node.js'
import type { ByteString, Result } from '../ops.js'
import type { Union } from '../union.js'

const parentTimes = new Stat()

/**
 * Links or moves (fromFd, temp) to (dirfd, name). A function of a module, not one that is made for
 * each call: what the engine has compiled for that goes with the last one there is.
 */
export type Put = (fromFd: number, temp: ByteString, dirfd: number, name: ByteString) => Result

/**
 * Puts (fromFd, temp) under a name into a directory of the upper layer, keeping the directory's
 * times as they were, with the directory marked as one that holds objects of other origin. Its
 * ctime and its size may still change.
 */
export function publish(
  u: Union,
  parent: Node,
  name: ByteString,
  put: Put,
  fromFd: number,
  temp: ByteString,
): Result {
  const into = parent.upperDir
  if (into === null) return -E.EIO
  const fd = u.fds.get(into)
  if (fd < 0) return fd
  let result = fstatx(fd, parentTimes)
  if (result < 0) return result
  invalidateAttrs(u, parent)
  result = markImpure(u, into, fd)
  if (result < 0) return result
  result = put(fromFd, temp, fd, name)
  if (result === -E.EACCES)
    result = withOwnerAccess(fd, '', OWNER_WRITE | OWNER_SEARCH, () => put(fromFd, temp, fd, name))
  if (result < 0) return result
  const t = parentTimes
  const restored = futimens(fd, t.atimeSec, t.atimeNsec, t.mtimeSec, t.mtimeNsec)
  if (restored < 0)
    u.log.debug({ errno: -restored }, 'best effort: times of a directory stay changed')
  return 0
}

/** Sets `overlay.impure` on an upper directory (kernel: ovl_set_impure). */
export function markImpure(u: Union, dir: RealDir, fd: number): Result {
  if (dir.impure) return 0
  const result = u.xattrs.set(fd, '', 'impure', 'y')
  if (result < 0 && !isXattrRefusal(result)) return result
  dir.impure = true
  return 0
}
