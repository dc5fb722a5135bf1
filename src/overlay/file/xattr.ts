/**
 * Extended attributes as users see them: the union's own marks are hidden, and a user's attribute
 * of the same prefix is stored under an escaped name. Analogous to fs/overlayfs/xattrs.c.
 */

import { CAP_SYS_ADMIN, S_ISGID } from '../../sys/constants.js'
import { E } from '../../sys/errno.js'
import { fchmod, fchmodat } from '../../sys/at.js'
import {
  getxattrat,
  getxattrValue,
  listxattrNames,
  removexattrat,
  setxattrat,
} from '../../sys/xattr.js'
import { ACL_ACCESS, ACL_DEFAULT, modeOfAcl, setAclMode } from '../owner/acl.js'
import { copyUp } from '../copy-up/copy-up.js'
import { checkCapabilityRemoval } from '../inode/drop-privileges.js'
import { isOpenToWrite } from '../inode/handle-list.js'
import { settle } from './handles.js'
import { CAPABILITY, diskValue, holdsIds, shownValue } from '../owner/xattr-ids.js'
import { throwIfBusy, type Node } from '../inode/node.js'
import { ROOT_ID, type ByteString, type Caller, type Result } from '../ops.js'
import type { Layer } from '../layer/layer.js'
import {
  diskMode,
  hasCredibleOverride,
  isStoredElsewhere,
  storedName,
  writeOverrideMode,
  visibleName,
} from '../layer/stat-override.js'
import { isCapable, isMember } from '../owner/setid.js'
import { pin, pinToRead, unpin } from '../inode/pin.js'
import { Place } from '../inode/place.js'
import { identifyAgain, layerOf, locate, statAt } from '../inode/real-object.js'
import { isReadOnly } from '../inode/context.js'
import { shownGid, shownUid } from '../inode/shown-attr.js'
import type { CopyUpContext } from '../copy-up/context.js'

const place = new Place()
/** struct vfs_cap_data */
const CAPABILITY_SIZE = 20

export function getxattr(
  u: CopyUpContext,
  node: Node,
  name: ByteString,
  buf: Buffer,
  offset: number,
  room: number,
): Result {
  // Nobody was told at open that this file can't be written. Before a write the kernel asks for the
  // length of this one; where there is one it has it removed, and write(2) fails as that does
  // (file_remove_privs).
  if (u.noOpen && node.protect !== 0 && room === 0 && name === CAPABILITY) return CAPABILITY_SIZE
  // The same question, of a file that somebody has open to write to it.
  if (room === 0 && name === CAPABILITY && node.handles?.[0]?.incapable === true) return -E.ENODATA
  const result = pinToRead(u, node, place)
  if (result < 0) return result
  try {
    const layer = layerOf(u, node)
    const real = realName(u, layer, name)
    if (real === '' || isIncredible(layer, place, name)) return -E.ENODATA
    if ((u.idmap !== null || u.override) && holdsIds(name)) {
      const value = getxattrValue(place.fd, place.name, real)
      const shown = typeof value === 'number' ? orNoAcl(name, value) : toShow(u, node, name, value)
      return typeof shown === 'number' ? shown : putValue(shown, buf, offset, room)
    }
    return orNoAcl(
      name,
      getxattrat(place.fd, place.name, real, buf.subarray(offset, offset + room)),
    )
  } finally {
    unpin(place)
  }
}

/**
 * A union has ACLs, and an object of a file system that has none is one without (kernel:
 * do_ovl_get_acl). The kernel asks before it goes by the mode, and any other error is the caller's
 * then.
 */
const orNoAcl = (name: ByteString, found: Result): Result =>
  found === -E.EOPNOTSUPP && (name === ACL_ACCESS || name === ACL_DEFAULT) ? -E.ENODATA : found

/** Whether a layer may have an attribute under this name that is not believed. */
const isIncredible = (layer: Layer | null, { fd, name: at }: Place, name: ByteString): boolean =>
  layer?.checksOverrides === true &&
  isStoredElsewhere(layer, name) &&
  !hasCredibleOverride(layer, fd, at)

/** What a user's attribute is called in a layer; '' for one that users have no access to. */
function realName(u: CopyUpContext, layer: Layer | null, name: ByteString): ByteString {
  const stored = u.override ? storedName(layer, name) : name
  return (layer?.xattrs ?? u.xattrs).escape(stored)
}

/** A value that holds ids, of what is at `place`, as it is shown; or -errno. */
function toShow(u: CopyUpContext, node: Node, name: ByteString, value: Buffer): Buffer | Result {
  if (u.override && name === ACL_ACCESS) {
    // The inode's own permissions, which the kernel keeps in the ACL, are others.
    const result = statAt(u, node, place, u.st)
    if (result < 0) return result
    setAclMode(value, u.st.mode)
  }
  const asShown = u.idmap === null || (u.appliesOverrides && layerOf(u, node)?.mountIdmap != null)
  return asShown ? value : shownValue(u.idmap, name, value)
}

/** Answers with a value that is at hand. */
function putValue(value: Buffer, buf: Buffer, offset: number, room: number): Result {
  if (room === 0) return value.length
  return value.length > room ? -E.ERANGE : value.copy(buf, offset)
}

/**
 * `trusted`: who asks, or whether they may see trusted.* names, which takes CAP_SYS_ADMIN in the
 * initial user namespace (kernel: ovl_can_list). Where there are none nobody has to find that out.
 */
export function listxattr(
  u: CopyUpContext,
  node: Node,
  buf: Buffer,
  offset: number,
  room: number,
  trusted: boolean | Caller,
): Result {
  const result = pinToRead(u, node, place)
  if (result < 0) return result
  const layer = layerOf(u, node)
  const xattrs = layer?.xattrs ?? u.xattrs
  let names: ByteString[] | number
  let credible: boolean
  try {
    names = listxattrNames(place.fd, place.name)
    credible = layer === null || !u.override || hasCredibleOverride(layer, place.fd, place.name)
  } finally {
    unpin(place)
  }
  if (typeof names === 'number') return names
  let list = ''
  let shows: boolean | undefined
  for (const real of names) {
    if (xattrs.isPrivate(real)) continue
    if (real.startsWith('trusted.')) {
      shows ??= typeof trusted === 'boolean' ? trusted : isCapable(trusted, CAP_SYS_ADMIN)
      if (!shows) continue
    }
    const visible = u.override ? visibleName(layer, real) : real
    if (visible !== real && !credible) continue
    if (visible !== '') list += xattrs.unescape(visible) + '\0'
  }
  // The kernel counts what is hidden, too (ovl_listxattr). Here a copy-up between a program's two
  // calls, for the size and for the list, would happen often enough to matter: cp(1) dies of a list
  // that grows from nothing.
  if (room === 0) return list.length
  return list.length > room ? -E.ERANGE : buf.latin1Write(list, offset)
}

/** After a change of what is at `place`. */
function stillIs(u: CopyUpContext, node: Node): void {
  if (u.upper?.keepsBirthTimes === false && statAt(u, node, place, u.st) >= 0)
    identifyAgain(u, node, u.st)
}

/** @throws Pending where a large file must be copied up first */
export function setxattr(
  u: CopyUpContext,
  node: Node,
  name: ByteString,
  value: Uint8Array,
  flags: number,
  killSgid: boolean,
): Result {
  if (isReadOnly(u)) return -E.EROFS
  if (node.protect !== 0) return -E.EPERM
  const real = realName(u, u.upper, name)
  if (real === '' || (node.id === ROOT_ID && u.xattrs.changesInfix(name))) return -E.EPERM
  const stored = u.idmap !== null && holdsIds(name) ? diskValue(u.idmap, name, value) : value
  if (typeof stored === 'number') return stored
  throwIfBusy(node)
  const copied = copyUp(u, node)
  if (copied < 0) return copied
  // A late write to the real file would drop the capability again.
  if (name === CAPABILITY) settle(u, node)
  let result = pin(u, node, place)
  if (result < 0) return result
  try {
    if (name === ACL_ACCESS && (u.override || killSgid)) {
      result = setAcl(u, node, value, stored, flags, killSgid)
      stillIs(u, node)
      return result
    }
    result = setxattrat(place.fd, place.name, real, stored, flags)
    stillIs(u, node)
  } finally {
    unpin(place)
  }
  if (result < 0) return result
  if (name === ACL_DEFAULT) node.defaultAcl = undefined
  if (name === CAPABILITY) {
    node.capable = true
    for (const handle of node.handles ?? []) handle.incapable = false
  }
  return 0
}

/**
 * Sets an access ACL whose permissions the upper file system does not all give to the mode: the one
 * that is shown is kept in an attribute, or set-group-id goes (the kernel says so for either ACL; a
 * default one says nothing of the mode; kernel: posix_acl_update_mode). The object is at `place`.
 *
 * @param value as it is shown; `stored`: with the ids on disk
 */
function setAcl(
  u: CopyUpContext,
  node: Node,
  value: Uint8Array,
  stored: Uint8Array,
  flags: number,
  killSgid: boolean,
): Result {
  let result = statAt(u, node, place, u.st)
  if (result < 0) return result
  const { fd, name } = place
  const mode = modeOfAcl(value, u.st.mode) & (killSgid ? ~S_ISGID : ~0)
  const acl = Buffer.from(stored)
  // At no time more than the inode is to have: what others may write to is not believed.
  if (u.override) setAclMode(acl, diskMode(mode))
  const before = getxattrValue(fd, name, ACL_ACCESS)
  if (typeof before === 'number' && before !== -E.ENODATA && before !== -E.EOPNOTSUPP) return before
  result = setxattrat(fd, name, ACL_ACCESS, acl, flags)
  if (result < 0) return result
  result = setMode(u, place, mode)
  if (result >= 0) return result
  const undone =
    typeof before === 'number'
      ? removexattrat(fd, name, ACL_ACCESS)
      : setxattrat(fd, name, ACL_ACCESS, before, 0)
  const shown = undone < 0 ? undone : setMode(u, place, u.st.mode)
  if (shown < 0) u.log.warn({ errno: -shown }, 'cannot undo an ACL whose mode could not be set')
  return result
}

/** @throws Pending where a large file must be copied up first */
export function removexattr(
  u: CopyUpContext,
  node: Node,
  name: ByteString,
  caller: Caller,
): Result {
  if (isReadOnly(u)) return -E.EROFS
  // The kernel asks for the same before a write, which what was open before may still do, where
  // that is known.
  const byWrite = name === CAPABILITY && !u.noOpen && isOpenToWrite(node)
  if (node.protect !== 0 && !byWrite) return -E.EPERM
  if (realName(u, layerOf(u, node), name) === '') return -E.ENODATA
  throwIfBusy(node)
  let result = pin(u, node, place)
  if (result < 0) return result
  try {
    if (name === CAPABILITY) {
      result = statAt(u, node, place, u.st)
      if (result >= 0) result = checkCapabilityRemoval(u, u.st, caller)
      if (result < 0) return result
    }
    const kills = name === ACL_ACCESS && losesSetGid(u, node, caller)
    // Nothing is copied up for an attribute that is not there (kernel: ovl_xattr_set).
    if (!node.upper && !kills) {
      const there = getxattrValue(place.fd, place.name, realName(u, layerOf(u, node), name))
      if (typeof there === 'number') return there
    }
    if (!node.upper || node.metacopy) {
      unpin(place)
      result = copyUp(u, node)
      if (result >= 0) result = pin(u, node, place)
      if (result < 0) return result
    }
    if (kills) {
      result = statAt(u, node, place, u.st)
      if (result >= 0) result = setMode(u, place, u.st.mode & ~S_ISGID)
      if (result < 0) return result
    }
    if (name === ACL_DEFAULT) node.defaultAcl = undefined
    result = removexattrat(place.fd, place.name, realName(u, u.upper, name))
    stillIs(u, node)
    return result
  } finally {
    unpin(place)
  }
}

/**
 * Kernel: ovl_set_acl(). Who takes the ACL of what is at `place` away and is not in the group loses
 * set-group-id, be there an ACL or not.
 */
function losesSetGid(u: CopyUpContext, node: Node, caller: Caller): boolean {
  if (statAt(u, node, place, u.st) < 0 || (u.st.mode & S_ISGID) === 0) return false
  return !isMember(caller, shownUid(u, u.st), shownGid(u, u.st))
}

/** The directory's default ACL, or null for none; or -errno. */
export function defaultAcl(u: CopyUpContext, node: Node): Buffer | Result | null {
  if (node.defaultAcl !== undefined) return node.defaultAcl
  const located = locate(u, node, place)
  if (located < 0) return located
  const value = getxattrValue(place.fd, place.name, ACL_DEFAULT)
  if (typeof value === 'number' && value !== -E.ENODATA && value !== -E.EOPNOTSUPP) return value
  return (node.defaultAcl = typeof value === 'number' || value.length === 0 ? null : value)
}

/** @param mode of the object that is in `u.st` */
function setMode(u: CopyUpContext, at: Place, full: number): Result {
  const mode = full & 0o7777
  if (u.override && u.upper !== null) return writeOverrideMode(u.upper, at.fd, at.name, u.st, mode)
  return at.name === '' ? fchmod(at.fd, mode) : fchmodat(at.fd, at.name, mode)
}
