/**
 * Creates objects on behalf of a caller. The new object belongs to the caller, or it is not
 * created.
 */

import { fchmodat, fchownat, fstatx, rmdirat, statxat, unlinkat } from '../../sys/at.js'
import { S_ISGID } from '../../sys/constants.js'
import { geteuid, popFsIds, pushFsIds } from '../../sys/proc.js'
import { Stat } from '../../sys/stat.js'
import type { ByteString, Caller, Result } from '../ops.js'
import type { Idmap } from './idmap.js'

const st = new Stat()

/** The on-disk ids of the caller in the last `pushCallerIds`. */
let uid = 0
let gid = 0

/**
 * Makes the caller the owner of objects that are created until `popFsIds`. `popFsIds` is also
 * required after an error. With squashed owners, a caller without an id on disk creates objects
 * that belong to the mounter.
 *
 * @returns 0, or -EPERM if this process may not act for that caller
 */
export function pushCallerIds(idmap: Idmap | null, caller: Caller): Result {
  uid = idmap === null ? caller.uid : idmap.uids.creatorToDisk(caller.uid, idmap.squashes)
  gid = idmap === null ? caller.gid : idmap.gids.creatorToDisk(caller.gid, idmap.squashes)
  const result = pushFsIds(uid, gid)
  return result < 0 && idmap?.squashes === true ? 0 : result
}

/**
 * Creates the object at (dirfd, name) with this mode (type and permissions). Returns a descriptor
 * or 0, or -errno.
 */
export type CreateObject = (dirfd: number, name: ByteString, mode: number) => Result

/**
 * Runs `make` as the caller: an object that it creates at (dirfd, name) gets the caller's owner and
 * group. A server without CAP_SETUID can do that for its own user only, with any group that it is
 * in. For another caller the result is -EPERM, as of chown(2), and nothing is created.
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
  // The caller gets the first error.
  if (unlinkat(dirfd, name) < 0) void rmdirat(dirfd, name)
  return given
}

/**
 * Sets the group that the kernel would have set: the caller's, unless the directory has the
 * set-group-id bit.
 */
function setGroup(dirfd: number, name: ByteString): Result {
  let result = fstatx(dirfd, st)
  if (result < 0 || (st.mode & S_ISGID) !== 0) return result
  result = statxat(dirfd, name, st)
  if (result < 0 || st.gid === gid) return result
  const { mode } = st
  result = fchownat(dirfd, name, -1, gid)
  // chown(2) has cleared the set-id bits.
  return result >= 0 && (mode & 0o6000) !== 0 ? fchmodat(dirfd, name, mode & 0o7777) : result
}
