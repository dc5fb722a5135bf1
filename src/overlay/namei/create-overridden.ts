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
import { createAs } from '../owner/credentials.js'
import type { Layer } from '../layer/layer.js'
import type { ByteString, Caller, Result } from '../ops.js'
import {
  applyOverride,
  chmodOnDisk,
  diskMode,
  isOverridden,
  specialsAreFiles,
  writeOverride,
} from '../layer/stat-override.js'
import type { Union } from './context.js'
import { exchangeWhiteout, isDotWhiteoutName, isWhiteout, setOrdinary } from '../layer/whiteout.js'
import type { Workdir } from '../copy-up/workdir.js'

/**
 * The requested attributes of a new object; `mode` holds type and permissions. The ids are those on
 * disk.
 */
export interface NewObject {
  uid: number
  gid: number
  mode: number
  major: number
  minor: number
  acl: Buffer | null
}

/** Whether the last `createOverridden` replaced a whiteout. */
export let replacedWhiteout = false

const existing = new Stat()
const parentStat = new Stat()

/** The owner on disk of an object that this caller creates. */
export function diskIds(u: Union, caller: Caller): { uid: number; gid: number } {
  const { idmap } = u
  if (idmap === null) return { uid: caller.uid, gid: caller.gid }
  return {
    uid: idmap.uids.creatorToDisk(caller.uid, idmap.squashes),
    gid: idmap.gids.creatorToDisk(caller.gid, idmap.squashes),
  }
}

/**
 * @param fd the upper directory
 * @param run creates the object itself, with the type and mode that it gets
 * @returns the result of `run`, or -errno
 */
export function createOverridden(
  u: Union,
  upper: Layer,
  workdir: Workdir,
  caller: Caller,
  fd: number,
  name: ByteString,
  wanted: NewObject,
  run: (dirfd: number, name: ByteString, mode: number) => Result,
): Result {
  const stated = statxat(fd, name, existing)
  if (stated < 0 && stated !== -E.ENOENT) return stated
  replacedWhiteout = stated >= 0
  const whiteout = replacedWhiteout ? isWhiteout(u.xattrs, fd, name, existing, false) : 1
  if (whiteout <= 0) return whiteout < 0 ? whiteout : -E.EEXIST
  let result = fstatx(fd, parentStat)
  if (result >= 0) result = applyOverride(upper, fd, '', parentStat)
  if (result < 0) return result

  const type = wanted.mode & S_IFMT
  const isDir = type === S_IFDIR
  const acl = type === S_IFLNK ? null : wanted.acl
  const inherited = acl === null ? null : applyDefaultAcl(acl, wanted.mode)
  const full = { ...wanted, mode: inherited === null ? wanted.mode : inherited.mode }
  // The umask does not apply to a symlink.
  if (type === S_IFLNK) full.mode |= 0o777
  if ((parentStat.mode & S_ISGID) !== 0) {
    full.gid = parentStat.gid
    if (isDir) full.mode |= S_ISGID
  }
  const staged = isOverridden(upper, type)
    ? stageWithAttribute(upper, workdir, full, acl, inherited, run)
    : stageWithOwner(u, workdir, caller, full, run)
  if (staged.result < 0) return staged.result
  result = isDir && replacedWhiteout ? u.xattrs.setOpaque(workdir.fd, staged.name) : 0
  if (result >= 0 && isDotWhiteoutName(name)) result = setOrdinary(u, workdir.fd, staged.name)
  if (result >= 0) {
    const flags = replacedWhiteout ? 0 : RENAME_NOREPLACE
    result =
      isDir && replacedWhiteout
        ? exchangeWhiteout(fd, name, workdir.fd, staged.name)
        : renameat2(workdir.fd, staged.name, fd, name, flags)
  }
  if (result < 0 || (isDir && replacedWhiteout)) workdir.discard(staged.name)
  if (result < 0 && staged.result > 0) close(staged.result)
  return result < 0 ? result : staged.result
}

interface Staged {
  name: ByteString
  result: Result
}

function stageWithAttribute(
  upper: Layer,
  workdir: Workdir,
  wanted: NewObject,
  acl: Buffer | null,
  inherited: Created | null,
  run: (dirfd: number, name: ByteString, mode: number) => Result,
): Staged {
  const { uid, gid, mode, major, minor } = wanted
  const type = mode & S_IFMT
  const isPlain = type === S_IFDIR || type === S_IFREG
  const real = !isPlain && specialsAreFiles(upper) ? S_IFREG : type
  const staged = workdir.stage((fd, temp) => run(fd, temp, real | diskMode(mode)))
  if (staged.result < 0) return staged
  let result: Result = 0
  if (acl !== null && inherited !== null) {
    result = setInheritedAcls(workdir.fd, staged.name, mode, acl, inherited)
    if (result >= 0) result = chmodOnDisk(workdir.fd, staged.name, mode)
  }
  if (result >= 0)
    result = writeOverride(upper, workdir.fd, staged.name, {
      uid,
      gid,
      mode,
      rdevMajor: major,
      rdevMinor: minor,
    })
  return result < 0 ? undo(workdir, staged, result) : staged
}

/**
 * Creates a symlink, which takes no `user.` xattr. Its inode has the owner, or the owner is not
 * kept.
 */
function stageWithOwner(
  u: Union,
  workdir: Workdir,
  caller: Caller,
  wanted: NewObject,
  run: (dirfd: number, name: ByteString, mode: number) => Result,
): Staged {
  const staged = workdir.stage((fd, temp) => createAs(u.idmap, caller, fd, temp, wanted.mode, run))
  if (staged.result < 0 || (parentStat.mode & S_ISGID) === 0) return staged
  const owned = fchownat(workdir.fd, staged.name, -1, wanted.gid)
  return owned < 0 && u.idmap?.squashes !== true ? undo(workdir, staged, owned) : staged
}

function undo(workdir: Workdir, staged: Staged, result: Result): Staged {
  workdir.discard(staged.name)
  if (staged.result > 0) close(staged.result)
  return { ...staged, result }
}
