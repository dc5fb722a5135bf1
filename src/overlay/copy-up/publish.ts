/** Moves a finished copy into an upper directory. Mirrors fs/overlayfs/copy_up.c. */

import { fstatx, futimens } from '../../sys/at.js'
import { E } from '../../sys/errno.js'
import { Stat } from '../../sys/stat.js'
import { invalidateAttrs } from '../inode/invalidate.js'
import type { RealDir } from '../layer/layer.js'
import { OWNER_SEARCH, OWNER_WRITE, withOwnerAccess } from '../owner/owner-access.js'
import { isXattrRefusal } from '../layer/overlay-xattrs.js'
import type { Node } from '../inode/node.js'
import type { ByteString, Result } from '../ops.js'
import type { CopyUpContext } from './context.js'

const parentTimes = new Stat()

/**
 * Links or renames (fromFd, temp) to (dirfd, name). The functions of this type are module-level: V8
 * discards the code that it compiled for a closure when the last instance of the closure is gone.
 */
export type NameCopy = (fromFd: number, temp: ByteString, dirfd: number, name: ByteString) => Result

/**
 * Links or renames (fromFd, temp) to a name in an upper directory. The directory gets the impure
 * xattr, because it now holds an object with another origin. Its atime and mtime are restored; its
 * ctime and size may change.
 */
export function publish(
  u: CopyUpContext,
  parent: Node,
  name: ByteString,
  nameCopy: NameCopy,
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
  result = setImpure(u, into, fd)
  if (result < 0) return result
  result = nameCopy(fromFd, temp, fd, name)
  if (result === -E.EACCES)
    result = withOwnerAccess(fd, '', OWNER_WRITE | OWNER_SEARCH, () =>
      nameCopy(fromFd, temp, fd, name),
    )
  if (result < 0) return result
  const t = parentTimes
  const restored = futimens(fd, t.atimeSec, t.atimeNsec, t.mtimeSec, t.mtimeNsec)
  if (restored < 0)
    u.log.debug({ errno: -restored }, 'best effort: cannot restore the times of a directory')
  return 0
}

/** Sets `overlay.impure` on an upper directory (kernel: ovl_set_impure). */
export function setImpure(u: CopyUpContext, dir: RealDir, fd: number): Result {
  if (dir.impure) return 0
  const result = u.xattrs.set(fd, '', 'impure', 'y')
  if (result < 0 && !isXattrRefusal(result)) return result
  dir.impure = true
  return 0
}
