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

/** The owner and the group of an object, as they are stored in the upper layer. */
export interface DiskIds {
  readonly uid: number
  readonly gid: number
}

/** The owner on disk of an object that this caller creates. */
export function diskIds(idmap: Idmap | null, caller: Caller): DiskIds {
  if (idmap === null) return caller
  return {
    uid: idmap.uids.creatorToDisk(caller.uid, idmap.squashes),
    gid: idmap.gids.creatorToDisk(caller.gid, idmap.squashes),
  }
}

/**
 * Makes these ids the owner of objects that are created until `popFsIds`. `popFsIds` is also
 * required after an error. With squashed owners, a caller without an id on disk creates objects
 * that belong to the mounter.
 *
 * @param ids the result of `diskIds` for the caller
 * @returns 0, or -EPERM if this process may not act for that caller
 */
export function pushCallerIds(idmap: Idmap | null, ids: DiskIds): Result {
  const result = pushFsIds(ids.uid, ids.gid)
  return result < 0 && idmap?.squashes === true ? 0 : result
}

/** An object that can be created on behalf of a caller. */
export interface Creatable {
  readonly caller: Caller
  /**
   * Creates the object at (dirfd, name) with this mode (type and permissions). Returns a descriptor
   * or 0, or -errno.
   */
  createAt(dirfd: number, name: ByteString, mode: number): Result
}

/**
 * Creates the object at (dirfd, name) as its caller: it gets the caller's owner and group. A server
 * without CAP_SETUID can do that for its own user only, with any group that it is in. For another
 * caller the result is -EPERM, as of chown(2), and nothing is created.
 */
export function createAs(
  idmap: Idmap | null,
  object: Creatable,
  dirfd: number,
  name: ByteString,
  mode: number,
): Result {
  const ids = diskIds(idmap, object.caller)
  const acting = pushCallerIds(idmap, ids)
  const own = acting < 0 && ids.uid === geteuid()
  const result = acting >= 0 || own ? object.createAt(dirfd, name, mode) : acting
  popFsIds()
  if (!own || result < 0) return result
  const given = setGroup(dirfd, name, ids.gid)
  if (given >= 0) return result
  // The caller gets the first error.
  if (unlinkat(dirfd, name) < 0) void rmdirat(dirfd, name)
  return given
}

/**
 * Sets the group that the kernel would have set: the caller's, unless the directory has the
 * set-group-id bit.
 *
 * @param gid the caller's group on disk
 */
function setGroup(dirfd: number, name: ByteString, gid: number): Result {
  let result = fstatx(dirfd, st)
  if (result < 0 || (st.mode & S_ISGID) !== 0) return result
  result = statxat(dirfd, name, st)
  if (result < 0 || st.gid === gid) return result
  const { mode } = st
  result = fchownat(dirfd, name, -1, gid)
  // chown(2) has cleared the set-id bits.
  return result >= 0 && (mode & 0o6000) !== 0 ? fchmodat(dirfd, name, mode & 0o7777) : result
}
