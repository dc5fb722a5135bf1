/**
 * Taking set-id bits and file capabilities from files that are written to, or given to somebody.
 * With FUSE_HANDLE_KILLPRIV_V2 the kernel leaves that to the server. It says so in most requests;
 * in one it does not.
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

/** The mode that a change by `caller` leaves of the one in `of` (modeWithoutSetid). */
export function modeAfterChange(u: InodeContext, of: Stat, caller: Caller): number {
  return modeWithoutSetid(of.mode, shownUid(u, of), shownGid(u, of), caller)
}

/**
 * Drops from an open file of the upper layer what a write or a truncation by `caller` takes from
 * it.
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
  // Neither a WRITE nor an OPEN has attributes in its answer.
  if (result >= 0) invalidateAttrs(u, node)
  return result
}

/** What a SETATTR that names no attribute is about. */
export const BareSetattr = {
  /** chown(2) with -1 for both, which takes the bits from everybody's file. */
  CHOWN: 0,
  /** A change of data that is about to happen, by somebody who may not keep the bits. */
  DROPS: 1,
  /** The same by somebody who may (CAP_FSETID): only the capability goes. */
  KEEPS: 2,
} as const

/** Attributes that a SETATTR can set; without any it is about set-id bits and the capability. */
const ANY = V.MODE | V.UID | V.GID | V.SIZE | V.ATIME | V.MTIME | V.KILL_SUIDGID
export const isBareSetattr = (valid: number): boolean => (valid & ANY) === 0

/**
 * What a request without attributes is about (kernel: fuse_setattr, which takes ATTR_KILL_SUID and
 * its kind out): chown(2), or a change of data that comes next (file_remove_privs). With write-back
 * the former has a time. Without, it is the system call that tells, where anybody has the file open
 * for writing. Where nothing tells it is a change of data, which the caller would be allowed to
 * make.
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
  // Data of others has no set-id bits to lose.
  if (!node.isReg) return true
  if (u.writeback) return (valid & V.CTIME) !== 0
  return isNeverWritten(u, node) || isInChown(caller) === true
}

/** Whether nobody has the file open for writing. */
const isNeverWritten = (u: InodeContext, node: Node): boolean => !u.noOpen && !isOpenToWrite(node)

/**
 * Whether a chown that takes set-id bits away is the caller's to make (kernel: notify_change, which
 * makes of that a change of the mode, then setattr_prepare).
 *
 * @param of the file's attributes
 * @returns 0 or -EPERM
 */
export function checkChown(u: InodeContext, of: Stat, caller: Caller): Result {
  if (of.isDir || (of.mode & 0o6000) === 0 || modeAfterChange(u, of, caller) === of.mode) return 0
  return mayChangeMode(caller, shownUid(u, of)) ? 0 : -E.EPERM
}

/**
 * The same for the removal of a capability, which the kernel asks for before it tells of a chown
 * (setattr_prepare). Before a change of data and for removexattr(2) it asks in the same words;
 * where nothing tells it is one of those.
 *
 * @param of the file's attributes
 * @returns 0 or -EPERM
 */
export function checkCapabilityRemoval(u: InodeContext, of: Stat, caller: Caller): Result {
  return checkChown(u, of, caller) < 0 && isInChown(caller) === true ? -E.EPERM : 0
}

/** Attributes of the object at a place of the upper layer, or of its descriptor. */
export function statPlace(at: Place, out: Stat): Result {
  return at.name === '' ? fstatx(at.fd, out) : statxat(at.fd, at.name, out)
}
