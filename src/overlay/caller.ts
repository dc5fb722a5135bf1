/** Making things for a caller: they are the caller's, or they are not made. */

import { fchmodat, fchownat, fstatx, rmdirat, statxat, unlinkat } from '../sys/at.js'
import { S_ISGID } from '../sys/constants.js'
import { E } from '../sys/errno.js'
import { geteuid, popFsIds, pushFsIds } from '../sys/proc.js'
import { Stat } from '../sys/stat.js'
import type { ByteString, Caller, Result } from './ops.js'

const st = new Stat()

/**
 * Runs `make` as the caller: what it creates in the folder `dirfd` under `name` gets the caller's owner and
 * group. A server without CAP_SETUID can do that for its own user alone, with any group that it is in; for
 * others -EPERM, as chown(2) would say, and nothing is made.
 */
export function makeAs(
  caller: Caller,
  dirfd: number,
  name: ByteString,
  make: () => Result,
): Result {
  const pushed = pushFsIds(caller.uid, caller.gid)
  const own = pushed < 0 && caller.uid === geteuid()
  const result = pushed >= 0 || own ? make() : -E.EPERM
  popFsIds()
  if (!own || result < 0) return result
  const given = giveGroup(caller, dirfd, name)
  if (given >= 0) return result
  if (unlinkat(dirfd, name) < 0) rmdirat(dirfd, name)
  return given
}

/** The group that the kernel would have given: the caller's, unless the folder gives its own. */
function giveGroup(caller: Caller, dirfd: number, name: ByteString): Result {
  let result = fstatx(dirfd, st)
  if (result < 0 || (st.mode & S_ISGID) !== 0) return result
  result = statxat(dirfd, name, st)
  if (result < 0 || st.gid === caller.gid) return result
  const { mode } = st
  result = fchownat(dirfd, name, -1, caller.gid)
  // chown(2) has dropped them.
  return result >= 0 && (mode & 0o6000) !== 0 ? fchmodat(dirfd, name, mode & 0o7777) : result
}
