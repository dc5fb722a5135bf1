/** Making things for a caller: they are the caller's, or they are not made. */

import { fchmodat, fchownat, fstatx, rmdirat, statxat, unlinkat } from '../../sys/at.js'
import { S_ISGID } from '../../sys/constants.js'
import { geteuid, popFsIds, pushFsIds } from '../../sys/proc.js'
import { Stat } from '../../sys/stat.js'
import type { ByteString, Caller, Result } from '../ops.js'
import type { Idmap } from './idmap.js'

const st = new Stat()

/** Of the caller that `pushCallerIds` was called for last, on disk. */
let uid = 0
let gid = 0

/**
 * Makes the caller the owner of what is created next, until `popFsIds`, which is needed after an
 * error, too. Where owners are squashed, who has no id on disk gives what they make to whoever
 * mounts.
 *
 * @returns 0, or -EPERM: this process can't do that for somebody else
 */
export function pushCallerIds(idmap: Idmap | null, caller: Caller): Result {
  uid = idmap === null ? caller.uid : idmap.uids.creatorToDisk(caller.uid, idmap.squashes)
  gid = idmap === null ? caller.gid : idmap.gids.creatorToDisk(caller.gid, idmap.squashes)
  const result = pushFsIds(uid, gid)
  return result < 0 && idmap?.squashes === true ? 0 : result
}

/**
 * Makes the object at (dirfd, name) with this mode (type and permissions); a descriptor or 0, or
 * -errno.
 */
export type CreateObject = (dirfd: number, name: ByteString, mode: number) => Result

/**
 * Runs `make` as the caller: what it creates in the directory `dirfd` under `name` gets the
 * caller's owner and group. A server without CAP_SETUID can do that for its own user alone, with
 * any group that it is in; for others -EPERM, as chown(2) would say, and nothing is made.
 */
export function createAs(
  idmap: Idmap | null,
  caller: Caller,
  dirfd: number,
  name: ByteString,
  mode: number,
  make: CreateObject,
): Result {
  const acting = pushCallerIds(idmap, caller)
  const own = acting < 0 && uid === geteuid()
  const result = acting >= 0 || own ? make(dirfd, name, mode) : acting
  popFsIds()
  if (!own || result < 0) return result
  const given = setGroup(dirfd, name)
  if (given >= 0) return result
  // Whoever asked is told of the first error.
  if (unlinkat(dirfd, name) < 0) void rmdirat(dirfd, name)
  return given
}

/** The group that the kernel would have given: the caller's, unless the directory gives its own. */
function setGroup(dirfd: number, name: ByteString): Result {
  let result = fstatx(dirfd, st)
  if (result < 0 || (st.mode & S_ISGID) !== 0) return result
  result = statxat(dirfd, name, st)
  if (result < 0 || st.gid === gid) return result
  const { mode } = st
  result = fchownat(dirfd, name, -1, gid)
  // chown(2) has dropped them.
  return result >= 0 && (mode & 0o6000) !== 0 ? fchmodat(dirfd, name, mode & 0o7777) : result
}
