/**
 * Removes set-id bits and file capabilities of files that are written to or get another owner. With
 * FUSE_HANDLE_KILLPRIV_V2 the kernel leaves this to the server. Most requests state it explicitly.
 * A SETATTR without attributes does not.
 */

import { fchmod, fstatx, statxat } from '../../sys/at.js'
import { CAP_FSETID } from '../../sys/constants.js'
import { E } from '../../sys/errno.js'
import { Stat } from '../../sys/stat.js'
import { invalidateAttrs } from './invalidate.js'
import { isOpenToWrite } from './handle-list.js'
import type { Node } from './node.js'
import { SetAttrValid as V, type Caller, type Result } from '../ops.js'
import { applyOverride, writeOverrideMode } from '../layer/stat-override.js'
import { isCapable, isInChown, mayChangeMode, modeWithoutSetid } from '../owner/setid.js'
import { shownGid, shownUid } from './shown-attr.js'
import type { Place } from './place.js'
import type { InodeContext } from './context.js'

const st = new Stat()

/** The mode in `of` after a change by `caller` (setid.ts:modeWithoutSetid). */
export function modeAfterChange(u: InodeContext, of: Stat, caller: Caller): number {
  return modeWithoutSetid(of.mode, shownUid(u, of), shownGid(u, of), caller)
}

/**
 * Removes the set-id bits of an open file of the upper layer as a write or truncation by `caller`
 * does.
 */
export function dropPrivileges(u: InodeContext, node: Node, fd: number, caller: Caller): Result {
  let result = fstatx(fd, st)
  if (result >= 0 && u.override) result = applyOverride(u.upper, fd, '', st)
  if (result < 0) return result
  const mode = modeAfterChange(u, st, caller)
  if (mode === st.mode) return 0
  result =
    u.override && u.upper !== null
      ? writeOverrideMode(u.upper, fd, '', st, mode)
      : fchmod(fd, mode & 0o7777)
  // The replies to WRITE and OPEN contain no attributes.
  if (result >= 0) invalidateAttrs(u, node)
  return result
}

/** The reasons for a SETATTR without attributes. */
export const BareSetattr = {
  /** chown(2) with -1 for both ids, which clears the set-id bits of any caller. */
  CHOWN: 0,
  /** A change of data follows, by a caller that may not keep the set-id bits. */
  DROPS: 1,
  /** A change of data follows, by a caller with CAP_FSETID. Only the capability is removed. */
  KEEPS: 2,
} as const

/**
 * The attributes that a SETATTR can set. Without any of them, the request is about set-id bits and
 * the capability.
 */
const ANY = V.MODE | V.UID | V.GID | V.SIZE | V.ATIME | V.MTIME | V.KILL_SUIDGID
export const isBareSetattr = (valid: number): boolean => (valid & ANY) === 0

/**
 * Determines the reason for a SETATTR without attributes (kernel: fuse_setattr, which removes
 * ATTR_KILL_SUID and similar flags). It is either chown(2) or the change of data that follows
 * (file_remove_privs). With write-back, only the chown(2) has a ctime. Without write-back, a file
 * that is open for writing requires a look at the caller's system call. If that is unknown, a
 * change of data is assumed, which the kernel has already allowed.
 */
export function classifyBareSetattr(
  u: InodeContext,
  node: Node,
  valid: number,
  caller: Caller,
): number {
  if (isChown(u, node, valid, caller)) return BareSetattr.CHOWN
  return isCapable(caller, CAP_FSETID) ? BareSetattr.KEEPS : BareSetattr.DROPS
}

function isChown(u: InodeContext, node: Node, valid: number, caller: Caller): boolean {
  // Only regular files lose set-id bits by a change of data.
  if (!node.isReg) return true
  if (u.writeback) return (valid & V.CTIME) !== 0
  return isNeverWritten(u, node) || isInChown(caller) === true
}

/** Whether the file is certainly not open for writing. */
const isNeverWritten = (u: InodeContext, node: Node): boolean => !u.noOpen && !isOpenToWrite(node)

/**
 * Whether the caller may make a chown that clears set-id bits (kernel: notify_change turns it into
 * a change of the mode, which setattr_prepare checks).
 *
 * @param of the file's attributes
 * @returns 0 or -EPERM
 */
export function checkChown(u: InodeContext, of: Stat, caller: Caller): Result {
  if (of.isDir || (of.mode & 0o6000) === 0 || modeAfterChange(u, of, caller) === of.mode) return 0
  return mayChangeMode(caller, shownUid(u, of)) ? 0 : -E.EPERM
}

/**
 * As `checkChown`, for the removal of a capability. The kernel requests that before it sends a
 * chown (setattr_prepare). The same request precedes a change of data and removexattr(2). If the
 * system call is unknown, one of the latter is assumed.
 *
 * @param of the file's attributes
 * @returns 0 or -EPERM
 */
export function checkCapabilityRemoval(u: InodeContext, of: Stat, caller: Caller): Result {
  return checkChown(u, of, caller) < 0 && isInChown(caller) === true ? -E.EPERM : 0
}

/** The attributes of the object at a location in the upper layer. */
export function statPlace(at: Place, out: Stat): Result {
  return statxat(at.fd, at.name, out)
}
