/**
 * Extended attributes as callers see them: overlay xattrs are hidden, and a caller's xattr with the
 * same prefix is stored under an escaped name. Mirrors fs/overlayfs/xattrs.c.
 */

import { CAP_SYS_ADMIN, S_ISGID } from '../../sys/constants.js'
import { E } from '../../sys/errno.js'
import { fchmodat } from '../../sys/at.js'
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
import { flushKernelPages } from './handles.js'
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
  // With noopen the open of a protected file did not fail. Before a write the kernel asks for the
  // length of the capability. A length other than 0 makes it remove the xattr; that fails, and so
  // does write(2) (file_remove_privs).
  if (u.noOpen && node.protect !== 0 && room === 0 && name === CAPABILITY) return CAPABILITY_SIZE
  // The same question, for a file that a caller has open for writing.
  if (room === 0 && name === CAPABILITY && node.handles?.[0]?.incapable === true) return -E.ENODATA
  const result = pinToRead(u, node, place)
  if (result < 0) return result
  try {
    const layer = layerOf(u, node)
    const real = storedXattrName(u, layer, name)
    if (real === '' || isUntrusted(layer, place, name)) return -E.ENODATA
    if ((u.idmap !== null || u.override) && holdsIds(name)) {
      const value = getxattrValue(place.fd, place.name, real)
      const shown =
        typeof value === 'number'
          ? noAclIfUnsupported(name, value)
          : shownXattr(u, node, place, name, value)
      return typeof shown === 'number' ? shown : copyValue(shown, buf, offset, room)
    }
    return noAclIfUnsupported(
      name,
      getxattrat(place.fd, place.name, real, buf.subarray(offset, offset + room)),
    )
  } finally {
    unpin(place)
  }
}

/**
 * A union supports ACLs, so an object of a file system without ACL support has no ACL (kernel:
 * do_ovl_get_acl). The kernel asks for the ACL before it checks the mode, and would return any
 * other error to the caller.
 */
const noAclIfUnsupported = (name: ByteString, found: Result): Result =>
  found === -E.EOPNOTSUPP && (name === ACL_ACCESS || name === ACL_DEFAULT) ? -E.ENODATA : found

/** Whether the layer may have an untrusted xattr under this name. */
const isUntrusted = (layer: Layer | null, { fd, name: at }: Place, name: ByteString): boolean =>
  layer?.checksOverrides === true &&
  isStoredElsewhere(layer, name) &&
  !hasCredibleOverride(layer, fd, at)

/** The name under which a layer stores a caller's xattr; '' if callers have no access to it. */
function storedXattrName(u: CopyUpContext, layer: Layer | null, name: ByteString): ByteString {
  const stored = u.override ? storedName(layer, name) : name
  return (layer?.xattrs ?? u.xattrs).escape(stored)
}

/** Translates a value that holds ids, of the object at `at`, to the ids of the union; or -errno. */
function shownXattr(
  u: CopyUpContext,
  node: Node,
  at: Place,
  name: ByteString,
  value: Buffer,
): Buffer | Result {
  if (u.override && name === ACL_ACCESS) {
    // The inode's mode, which the kernel merges into the ACL, differs from the mode in the override
    // xattr.
    const result = statAt(u, node, at, u.st)
    if (result < 0) return result
    setAclMode(value, u.st.mode)
  }
  const asShown = u.idmap === null || (u.appliesOverrides && layerOf(u, node)?.mountIdmap != null)
  return asShown ? value : shownValue(u.idmap, name, value)
}

/** Copies a value to the caller's buffer. */
function copyValue(value: Buffer, buf: Buffer, offset: number, room: number): Result {
  if (room === 0) return value.length
  return value.length > room ? -E.ERANGE : value.copy(buf, offset)
}

/**
 * `trusted`: the caller, or whether it may see trusted.* names. That requires CAP_SYS_ADMIN in the
 * initial user namespace (kernel: ovl_can_list), and is checked only if there is such a name.
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
  // The kernel counts hidden names too (ovl_listxattr). Here a copy-up between a program's two
  // calls, for the size and for the list, is likely enough to matter: cp(1) fails if the list grows
  // from nothing.
  if (room === 0) return list.length
  return list.length > room ? -E.ERANGE : buf.latin1Write(list, offset)
}

/** Identifies the object at `at` again after a change. */
function identifyAfterChange(u: CopyUpContext, node: Node, at: Place): void {
  if (u.upper?.keepsBirthTimes === false && statAt(u, node, at, u.st) >= 0)
    identifyAgain(u, node, u.st)
}

/** @throws Pending if a large file must be copied up first */
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
  const real = storedXattrName(u, u.upper, name)
  if (real === '' || (node.id === ROOT_ID && u.xattrs.changesInfix(name))) return -E.EPERM
  const stored = u.idmap !== null && holdsIds(name) ? diskValue(u.idmap, name, value) : value
  if (typeof stored === 'number') return stored
  throwIfBusy(node)
  const copied = copyUp(u, node)
  if (copied < 0) return copied
  // A late write to the real file would drop the new capability.
  if (name === CAPABILITY) flushKernelPages(u, node)
  let result = pin(u, node, place)
  if (result < 0) return result
  try {
    if (name === ACL_ACCESS && (u.override || killSgid)) {
      result = setAcl(u, node, place, { value, stored, flags, killSgid })
      identifyAfterChange(u, node, place)
      return result
    }
    result = setxattrat(place.fd, place.name, real, stored, flags)
    identifyAfterChange(u, node, place)
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

/** An access ACL to set. */
interface AclChange {
  /** With the ids in the union. */
  value: Uint8Array
  /** With the ids on disk. */
  stored: Uint8Array
  /** As of setxattr(2). */
  flags: number
  /** Set-group-id is dropped. */
  killSgid: boolean
}

/**
 * Sets an access ACL whose permissions the upper file system does not fully store in the mode: the
 * mode goes into the override xattr, or set-group-id is dropped (kernel: posix_acl_update_mode).
 * The kernel sends `killSgid` for either ACL, but a default ACL does not affect the mode.
 */
function setAcl(
  u: CopyUpContext,
  node: Node,
  at: Place,
  { value, stored, flags, killSgid }: AclChange,
): Result {
  let result = statAt(u, node, at, u.st)
  if (result < 0) return result
  const { fd, name } = at
  const mode = modeOfAcl(value, u.st.mode) & (killSgid ? ~S_ISGID : ~0)
  const acl = Buffer.from(stored)
  // The inode never gets more permissions than it needs: an override xattr that others may write is
  // not trusted.
  if (u.override) setAclMode(acl, diskMode(mode))
  const before = getxattrValue(fd, name, ACL_ACCESS)
  if (typeof before === 'number' && before !== -E.ENODATA && before !== -E.EOPNOTSUPP) return before
  result = setxattrat(fd, name, ACL_ACCESS, acl, flags)
  if (result < 0) return result
  result = setMode(u, at, mode)
  if (result >= 0) return result
  const undone =
    typeof before === 'number'
      ? removexattrat(fd, name, ACL_ACCESS)
      : setxattrat(fd, name, ACL_ACCESS, before, 0)
  const shown = undone < 0 ? undone : setMode(u, at, u.st.mode)
  if (shown < 0) u.log.warn({ errno: -shown }, 'cannot undo an ACL whose mode could not be set')
  return result
}

/** @throws Pending if a large file must be copied up first */
export function removexattr(
  u: CopyUpContext,
  node: Node,
  name: ByteString,
  caller: Caller,
): Result {
  if (isReadOnly(u)) return -E.EROFS
  // The kernel sends the same request before a write through a handle that was opened before the
  // file was protected. The server knows such handles, except with noopen.
  const byWrite = name === CAPABILITY && !u.noOpen && isOpenToWrite(node)
  if (node.protect !== 0 && !byWrite) return -E.EPERM
  if (storedXattrName(u, layerOf(u, node), name) === '') return -E.ENODATA
  throwIfBusy(node)
  let result = pin(u, node, place)
  if (result < 0) return result
  try {
    if (name === CAPABILITY) {
      result = statAt(u, node, place, u.st)
      if (result >= 0) result = checkCapabilityRemoval(u, u.st, caller)
      if (result < 0) return result
    }
    const kills = name === ACL_ACCESS && losesSetGid(u, node, place, caller)
    // A file is not copied up to remove an xattr that it does not have (kernel: ovl_xattr_set).
    if (!node.upper && !kills) {
      const present = getxattrValue(
        place.fd,
        place.name,
        storedXattrName(u, layerOf(u, node), name),
      )
      if (typeof present === 'number') return present
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
    result = removexattrat(place.fd, place.name, storedXattrName(u, u.upper, name))
    identifyAfterChange(u, node, place)
    return result
  } finally {
    unpin(place)
  }
}

/**
 * Kernel: ovl_set_acl(). A caller that removes the ACL of the object at `at` and is not in its
 * group drops set-group-id, even if there is no ACL.
 */
function losesSetGid(u: CopyUpContext, node: Node, at: Place, caller: Caller): boolean {
  if (statAt(u, node, at, u.st) < 0 || (u.st.mode & S_ISGID) === 0) return false
  return !isMember(caller, shownUid(u, u.st), shownGid(u, u.st))
}

/** The directory's default ACL; null if it has none; or -errno. */
export function defaultAcl(u: CopyUpContext, node: Node): Buffer | Result | null {
  if (node.defaultAcl !== undefined) return node.defaultAcl
  const located = locate(u, node, place)
  if (located < 0) return located
  const value = getxattrValue(place.fd, place.name, ACL_DEFAULT)
  if (typeof value === 'number' && value !== -E.ENODATA && value !== -E.EOPNOTSUPP) return value
  return (node.defaultAcl = typeof value === 'number' || value.length === 0 ? null : value)
}

/** @param mode of the object whose attributes are in `u.st` */
function setMode(u: CopyUpContext, at: Place, full: number): Result {
  const mode = full & 0o7777
  if (u.override && u.upper !== null) return writeOverrideMode(u.upper, at.fd, at.name, u.st, mode)
  return fchmodat(at.fd, at.name, mode)
}
