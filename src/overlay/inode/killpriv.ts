/**
 * The set-id bits and the capability that a write removes, and the times that it sets. Corresponds
 * to fs/inode.c:file_remove_privs().
 */

import { fchmod, fstatx, futimens } from '../../sys/at.js'
import { S_ISGID, S_ISUID, UTIME_OMIT } from '../../sys/constants.js'
import { E } from '../../sys/errno.js'
import { Stat } from '../../sys/stat.js'
import { fsetxattr, getxattrat, getxattrValue, removexattrat } from '../../sys/xattr.js'
import { dropPrivileges } from './drop-privileges.js'
import { CAPABILITY } from '../owner/xattr-ids.js'
import type { Node } from './node.js'
import type { Caller, Result } from '../ops.js'
import { applyOverride, dropCapability, storedName } from '../layer/stat-override.js'
import type { Place } from './place.js'
import type { InodeContext } from './context.js'

const st = new Stat()
const capability = Buffer.allocUnsafeSlow(64)

/**
 * Whether a write by an ordinary user removes something from an upper file. Sets `node.capable` if
 * the file has a capability. An error counts as "yes". Fills `out` with the attributes.
 */
export function isPrivileged(u: InodeContext, node: Node, fd: number, out: Stat): boolean {
  const name = u.override ? storedName(u.upper, CAPABILITY) : CAPABILITY
  const found = getxattrat(fd, '', name, capability)
  const capable = found !== -E.ENODATA && found !== -E.EOPNOTSUPP
  if (capable) node.capable = true
  let stated = fstatx(fd, out)
  if (stated >= 0 && u.override) stated = applyOverride(u.upper, fd, '', out)
  return capable || stated < 0 || (out.mode & (S_ISUID | S_ISGID)) !== 0
}

/**
 * Removes what a write removes.
 *
 * @param late as in `Ops.write`
 * @param killFor the writing caller if it may not keep set-id bits, or null
 */
export function dropForWrite(
  u: InodeContext,
  node: Node,
  fd: number,
  late: boolean,
  killFor: Caller | null,
): Result {
  const result = u.override && !late ? dropCapability(u.upper, fd, '') : 0
  return result < 0 || killFor === null ? result : dropPrivileges(u, node, fd, killFor)
}

/**
 * Removes the capability of an upper object, as the kernel does before a change of data. An empty
 * capability stays.
 */
export function removeCapability(u: InodeContext, { fd, name }: Place): Result {
  const attribute = u.override ? storedName(u.upper, CAPABILITY) : CAPABILITY
  let result = getxattrat(fd, name, attribute, capability)
  if (result === 0 || result === -E.EINVAL) return 0
  if (result > 0 || result === -E.ERANGE) result = removexattrat(fd, name, attribute)
  return result === -E.ENODATA || result === -E.EOPNOTSUPP ? 0 : result
}

/**
 * Reads the capability that a late write is about to remove. Returns -errno, and -ENODATA if the
 * write removes none.
 *
 * An empty capability can't be read (EINVAL). A write leaves it
 * (security/commoncap.c:cap_inode_need_killpriv).
 */
export function readLostCapability(fd: number): Buffer | Result {
  const value = getxattrValue(fd, '', CAPABILITY)
  return value === -E.EINVAL || value === -E.EOPNOTSUPP ? -E.ENODATA : value
}

/**
 * Restores a capability that a late write has removed. If it fails, the file has fewer rights than
 * before, never more.
 */
export function restoreCapability(u: InodeContext, fd: number, value: Buffer): void {
  let result = fsetxattr(fd, CAPABILITY, value, 0)
  if (result < 0) result = fsetxattr(fd, CAPABILITY, value, 0)
  if (result < 0) u.log.warn({ errno: -result }, 'a file has lost its capability by a late write')
}

/**
 * Restores set-id bits that a late write has cleared. The kernel clears them if the server has no
 * CAP_FSETID in the initial user namespace (kernel: setattr_should_drop_suidgid).
 */
export function restoreSetId(u: InodeContext, fd: number, mode: number): void {
  let result = fstatx(fd, st)
  if (result >= 0 && ((st.mode ^ mode) & (S_ISUID | S_ISGID)) !== 0)
    result = fchmod(fd, mode & 0o7777)
  if (result < 0) u.log.warn({ errno: -result }, 'a file has lost set-id bits by a late write')
}

/**
 * Restores the mtime after a change of data, because the kernel sends the mtime itself. Best
 * effort.
 */
export function restoreMtime(u: InodeContext, fd: number, sec: number, nsec: number): void {
  const result = futimens(fd, 0, UTIME_OMIT, sec, nsec)
  if (result < 0)
    u.log.debug({ errno: -result }, "the mtime of a file can't be restored (best effort)")
}
