/**
 * Creates objects in an upper layer that keeps owners and modes in xattrs. An object and its xattr
 * take two steps, so both are created in the workdir and published in one step.
 */

import { fchownat, fstatx, renameat2, statxat } from '../../sys/at.js'
import {
  RENAME_NOREPLACE,
  S_IFDIR,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
  S_ISGID,
} from '../../sys/constants.js'
import { E } from '../../sys/errno.js'
import { close } from '../../sys/io.js'
import { Stat } from '../../sys/stat.js'
import { applyDefaultAcl, setInheritedAcls, type Created } from '../owner/acl.js'
import { createAs, diskIds } from '../owner/credentials.js'
import type { Layer } from '../layer/layer.js'
import type { ByteString, Result } from '../ops.js'
import {
  applyOverride,
  chmodOnDisk,
  diskMode,
  isOverridden,
  specialsAreFiles,
  writeOverride,
  type OverriddenAttrs,
} from '../layer/stat-override.js'
import type { Union } from './context.js'
import type { NewObject } from './new-object.js'
import { exchangeWhiteout, isDotWhiteoutName, isWhiteout, setOrdinary } from '../layer/whiteout.js'
import type { Workdir } from '../copy-up/workdir.js'

const existing = new Stat()
const parentStat = new Stat()

/**
 * Creates the object, and notes in it whether it replaces a whiteout.
 *
 * @returns the result of `createAt`, or -errno
 */
export function createOverridden(
  u: Union,
  upper: Layer,
  workdir: Workdir,
  object: NewObject,
): Result {
  const { dirfd, name } = object
  const stated = statxat(dirfd, name, existing)
  if (stated < 0 && stated !== -E.ENOENT) return stated
  const replacesWhiteout = stated >= 0
  const whiteout = replacesWhiteout ? isWhiteout(u.xattrs, dirfd, name, existing, false) : 1
  if (whiteout <= 0) return whiteout < 0 ? whiteout : -E.EEXIST
  object.replacesWhiteout = replacesWhiteout
  let result = fstatx(dirfd, parentStat)
  if (result >= 0) result = applyOverride(upper, dirfd, '', parentStat)
  if (result < 0) return result

  const type = object.mode & S_IFMT
  const isDir = type === S_IFDIR
  const acl = type === S_IFLNK ? null : object.acl
  const inherited = acl === null ? null : applyDefaultAcl(acl, object.mode)
  const { uid, gid } = diskIds(u.idmap, object.caller)
  const { rdevMajor, rdevMinor } = object
  const attrs = { uid, gid, mode: inherited?.mode ?? object.mode, rdevMajor, rdevMinor }
  // The umask does not apply to a symlink.
  if (type === S_IFLNK) attrs.mode |= 0o777
  const inheritsGroup = (parentStat.mode & S_ISGID) !== 0
  if (inheritsGroup) {
    attrs.gid = parentStat.gid
    if (isDir) attrs.mode |= S_ISGID
  }
  const staged = isOverridden(upper, type)
    ? stageWithAttribute(upper, workdir, object, attrs, inherited)
    : stageWithOwner(u, workdir, object, attrs, inheritsGroup)
  if (staged.result < 0) return staged.result
  result = isDir && replacesWhiteout ? u.xattrs.setOpaque(workdir.fd, staged.name) : 0
  if (result >= 0 && isDotWhiteoutName(name)) result = setOrdinary(u, workdir.fd, staged.name)
  if (result >= 0) {
    const flags = replacesWhiteout ? 0 : RENAME_NOREPLACE
    result =
      isDir && replacesWhiteout
        ? exchangeWhiteout(dirfd, name, workdir.fd, staged.name)
        : renameat2(workdir.fd, staged.name, dirfd, name, flags)
  }
  if (result < 0 || (isDir && replacesWhiteout)) workdir.discard(staged.name)
  if (result < 0 && staged.result > 0) close(staged.result)
  return result < 0 ? result : staged.result
}

interface Staged {
  name: ByteString
  result: Result
}

/**
 * @param attrs the attributes that the union shows, with the ids on disk
 * @param inherited the result of the parent's default ACL, if that applies
 */
function stageWithAttribute(
  upper: Layer,
  workdir: Workdir,
  object: NewObject,
  attrs: OverriddenAttrs,
  inherited: Created | null,
): Staged {
  const { mode } = attrs
  const { acl } = object
  const type = mode & S_IFMT
  const isPlain = type === S_IFDIR || type === S_IFREG
  const real = !isPlain && specialsAreFiles(upper) ? S_IFREG : type
  const staged = workdir.stage((fd, temp) => object.createAt(fd, temp, real | diskMode(mode)))
  if (staged.result < 0) return staged
  let result: Result = 0
  if (acl !== null && inherited !== null) {
    result = setInheritedAcls(workdir.fd, staged.name, mode, acl, inherited)
    if (result >= 0) result = chmodOnDisk(workdir.fd, staged.name, mode)
  }
  if (result >= 0) result = writeOverride(upper, workdir.fd, staged.name, attrs)
  return result < 0 ? undo(workdir, staged, result) : staged
}

/**
 * Creates a symlink, which takes no `user.` xattr. Its inode has the owner, or the owner is not
 * kept.
 *
 * @param inheritsGroup the symlink gets `attrs.gid` instead of the caller's group
 */
function stageWithOwner(
  u: Union,
  workdir: Workdir,
  object: NewObject,
  attrs: OverriddenAttrs,
  inheritsGroup: boolean,
): Staged {
  const staged = workdir.stage((fd, temp) => createAs(u.idmap, object, fd, temp, attrs.mode))
  if (staged.result < 0 || !inheritsGroup) return staged
  const owned = fchownat(workdir.fd, staged.name, -1, attrs.gid)
  return owned < 0 && u.idmap?.squashes !== true ? undo(workdir, staged, owned) : staged
}

function undo(workdir: Workdir, staged: Staged, result: Result): Staged {
  workdir.discard(staged.name)
  if (staged.result > 0) close(staged.result)
  return { ...staged, result }
}
