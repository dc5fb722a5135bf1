/**
 * Extended attributes as users see them: the union's own marks are hidden, and a user's attribute of
 * the same prefix is stored under an escaped name. Analogous to fs/overlayfs/xattrs.c.
 */

import { S_ISGID } from '../sys/constants.js'
import { E } from '../sys/errno.js'
import { fchmod, fchmodat } from '../sys/at.js'
import {
  getxattrat,
  getxattrValue,
  listxattrNames,
  removexattrat,
  setxattrat,
} from '../sys/xattr.js'
import { ACL_ACCESS, ACL_DEFAULT, modeOfAcl, putMode } from './acl.js'
import { copyUp } from './copyup.js'
import { settle } from './handles.js'
import { CAPABILITY, diskValue, holdsIds, shownValue } from './id-values.js'
import type { Node } from './node.js'
import type { ByteString, Caller, Result } from './ops.js'
import type { Layer } from './layer.js'
import { storedName, storeMode, visibleName } from './override.js'
import { isMember } from './privileges.js'
import { isReadOnly, layerOf, locate, Place, shownGid, statNode, type Union } from './union.js'

const place = new Place()
/** struct vfs_cap_data */
const CAPABILITY_SIZE = 20

export function getxattr(
  u: Union,
  node: Node,
  name: ByteString,
  buf: Buffer,
  offset: number,
  room: number,
): Result {
  // Nobody was told at open that this file can't be written. Before a write the kernel asks for the length of this one;
  // where there is one it has it removed, and write(2) fails as that does (file_remove_privs).
  if (u.noOpen && node.protect !== 0 && room === 0 && name === CAPABILITY) return CAPABILITY_SIZE
  // The same question, of a file that somebody has open to write to it.
  if (room === 0 && name === CAPABILITY && node.handles?.[0]?.incapable === true) return -E.ENODATA
  const result = locate(u, node, place)
  if (result < 0) return result
  const real = realName(u, layerOf(u, node), name)
  if (real === '') return -E.ENODATA
  if ((u.owners !== null || u.override) && holdsIds(name)) {
    const value = getxattrValue(place.fd, place.name, real)
    const shown = typeof value === 'number' ? value : toShow(u, node, name, value)
    return typeof shown === 'number' ? shown : putValue(shown, buf, offset, room)
  }
  return getxattrat(place.fd, place.name, real, buf.subarray(offset, offset + room))
}

/** What a user's attribute is called in a layer; '' for one that users have no access to. */
function realName(u: Union, layer: Layer | null, name: ByteString): ByteString {
  const stored = u.override ? storedName(layer, name) : name
  return u.marks.escape(stored)
}

/** A value that holds ids, as it is shown; or -errno. */
function toShow(u: Union, node: Node, name: ByteString, value: Buffer): Buffer | Result {
  if (u.override && name === ACL_ACCESS) {
    // The inode's own permissions, which the kernel keeps in the ACL, are others.
    const result = statNode(u, node, u.st)
    if (result < 0) return result
    putMode(value, u.st.mode)
  }
  const asShown = u.owners === null || (u.amends && layerOf(u, node)?.shownBy != null)
  return asShown ? value : shownValue(u.owners, name, value)
}

/** Answers with a value that is at hand. */
function putValue(value: Buffer, buf: Buffer, offset: number, room: number): Result {
  if (room === 0) return value.length
  return value.length > room ? -E.ERANGE : value.copy(buf, offset)
}

/** `trusted`: the caller may see trusted.* names (CAP_SYS_ADMIN, as listxattr of every file system). */
export function listxattr(
  u: Union,
  node: Node,
  buf: Buffer,
  offset: number,
  room: number,
  trusted: boolean,
): Result {
  const result = locate(u, node, place)
  if (result < 0) return result
  const names = listxattrNames(place.fd, place.name)
  if (typeof names === 'number') return names
  const layer = u.override ? layerOf(u, node) : null
  let list = ''
  for (const real of names) {
    if (u.marks.isPrivate(real)) continue
    if (!trusted && real.startsWith('trusted.')) continue
    const visible = u.override ? visibleName(layer, real) : real
    if (visible !== '') list += u.marks.unescape(visible) + '\0'
  }
  // The kernel counts what is hidden, too (ovl_listxattr). Here a copy-up between a program's two calls, for the size and
  // for the list, would happen often enough to matter: cp(1) dies of a list that grows from nothing.
  if (room === 0) return list.length
  return list.length > room ? -E.ERANGE : buf.latin1Write(list, offset)
}

/** @throws Pending where a large file must be copied up first */
export function setxattr(
  u: Union,
  node: Node,
  name: ByteString,
  value: Uint8Array,
  flags: number,
  killSgid: boolean,
): Result {
  if (isReadOnly(u)) return -E.EROFS
  if (node.protect !== 0) return -E.EPERM
  const real = realName(u, u.upper, name)
  if (real === '') return -E.EPERM
  const stored = u.owners !== null && holdsIds(name) ? diskValue(u.owners, name, value) : value
  if (typeof stored === 'number') return stored
  const copied = copyUp(u, node)
  if (copied < 0) return copied
  // A late write to the real file would drop the capability again.
  if (name === CAPABILITY) settle(u, node)
  let result = locate(u, node, place)
  if (result < 0) return result
  const { fd, name: at } = place
  result = setxattrat(fd, at, real, stored, flags)
  if (result < 0) return result
  if (name === ACL_DEFAULT) node.defaultAcl = undefined
  if (name === CAPABILITY) {
    node.capable = true
    for (const handle of node.handles ?? []) handle.incapable = false
  }
  // The kernel says so for either ACL; a default one says nothing of the mode (kernel: posix_acl_update_mode).
  const kills = killSgid && name === ACL_ACCESS
  const shapes = u.override && name === ACL_ACCESS
  if (kills || shapes) {
    result = statNode(u, node, u.st)
    if (result < 0) return result
    const mode = shapes ? modeOfAcl(value, u.st.mode) : u.st.mode
    return setMode(u, { fd, name: at }, mode & (kills ? ~S_ISGID : ~0))
  }
  return 0
}

/** @throws Pending where a large file must be copied up first */
export function removexattr(u: Union, node: Node, name: ByteString, caller: Caller): Result {
  if (isReadOnly(u)) return -E.EROFS
  // The kernel asks for the same before a write, which what was open before may still do, where that is known.
  const byWrite = name === CAPABILITY && !u.noOpen && node.handles?.some(h => h.writable) === true
  if (node.protect !== 0 && !byWrite) return -E.EPERM
  let real = realName(u, layerOf(u, node), name)
  if (real === '') return -E.ENODATA
  let result = locate(u, node, place)
  if (result < 0) return result
  // Nothing is copied up for an attribute that is not there (kernel: ovl_xattr_set).
  if (!node.upper) {
    const there = getxattrValue(place.fd, place.name, real)
    if (typeof there === 'number') return there
  }
  const copied = copyUp(u, node)
  if (copied < 0) return copied
  result = locate(u, node, place)
  if (result < 0) return result
  if (name === ACL_DEFAULT) node.defaultAcl = undefined
  if (u.override) real = realName(u, u.upper, name)
  result = removexattrat(place.fd, place.name, real)
  if (result < 0 || name !== ACL_ACCESS) return result
  // Kernel: ovl_set_acl(). Who takes the ACL away and is not in the group loses set-group-id.
  result = statNode(u, node, u.st)
  if (result < 0 || (u.st.mode & S_ISGID) === 0 || isMember(caller, shownGid(u, u.st))) return 0
  return setMode(u, place, u.st.mode & ~S_ISGID)
}

/** The folder's default ACL, or null for none. */
export function defaultAcl(u: Union, node: Node): Buffer | null {
  if (node.defaultAcl !== undefined) return node.defaultAcl
  if (locate(u, node, place) < 0) return (node.defaultAcl = null)
  const value = getxattrValue(place.fd, place.name, ACL_DEFAULT)
  return (node.defaultAcl = typeof value === 'number' || value.length === 0 ? null : value)
}

/** @param mode of the object that is in `u.st` */
function setMode(u: Union, at: Place, full: number): Result {
  const mode = full & 0o7777
  if (u.override && u.upper !== null) return storeMode(u.upper, at.fd, at.name, u.st, mode)
  return at.name === '' ? fchmod(at.fd, mode) : fchmodat(at.fd, at.name, mode)
}
