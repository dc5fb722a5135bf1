/**
 * POSIX ACLs of objects that are created in the workdir, where no parent has a default ACL to
 * inherit. This does what the kernel's posix_acl_create() does, on the value of
 * `system.posix_acl_default`.
 *
 * Layout (linux/posix_acl_xattr.h): u32 version = 2, then {u16 tag, u16 perm, u32 id} per entry.
 */

import { S_IFDIR, S_IFLNK, S_IFMT } from '../../sys/constants.js'
import { setxattrat } from '../../sys/xattr.js'
import type { ByteString, Result } from '../ops.js'

export const ACL_ACCESS: ByteString = 'system.posix_acl_access'
export const ACL_DEFAULT: ByteString = 'system.posix_acl_default'

const HEADER = 4
const ENTRY = 8
const USER_OBJ = 0x01
const USER = 0x02
const GROUP_OBJ = 0x04
const GROUP = 0x08
const MASK = 0x10
const OTHER = 0x20

/**
 * Calls `each` with the byte offset of every id in an ACL. Only named users and groups have an id.
 */
export function forEachNamed(acl: Buffer, each: (at: number, isGroup: boolean) => void): void {
  for (let at = HEADER; at + ENTRY <= acl.length; at += ENTRY) {
    const tag = acl.readUInt16LE(at)
    if (tag === USER || tag === GROUP) each(at + 4, tag === GROUP)
  }
}

/** The mode of an object with this access ACL (kernel: posix_acl_equiv_mode). */
export function modeOfAcl(acl: Uint8Array, mode: number): number {
  const view = Buffer.from(acl)
  let result = mode
  let hasMask = false
  for (let at = HEADER; at + ENTRY <= view.length; at += ENTRY) {
    const tag = view.readUInt16LE(at)
    const perm = view.readUInt16LE(at + 2) & 7
    if (tag === USER_OBJ) result = (result & ~0o700) | (perm << 6)
    else if (tag === OTHER) result = (result & ~0o007) | perm
    else if (tag === MASK || (tag === GROUP_OBJ && !hasMask)) {
      result = (result & ~0o070) | (perm << 3)
      hasMask = tag === MASK
    }
  }
  return result
}

/** Sets the permissions of an access ACL to those of a mode (kernel: __posix_acl_chmod_masq). */
export function setAclMode(acl: Buffer, mode: number): void {
  let group = -1
  let mask = -1
  for (let at = HEADER; at + ENTRY <= acl.length; at += ENTRY) {
    const tag = acl.readUInt16LE(at)
    if (tag === USER_OBJ) acl.writeUInt16LE((mode >> 6) & 7, at + 2)
    else if (tag === OTHER) acl.writeUInt16LE(mode & 7, at + 2)
    else if (tag === GROUP_OBJ) group = at
    else if (tag === MASK) mask = at
  }
  const limiting = mask >= 0 ? mask : group
  if (limiting >= 0) acl.writeUInt16LE((mode >> 3) & 7, limiting + 2)
}

/** The resulting mode and the access ACL to set, or null if the mode expresses the whole ACL. */
export interface Created {
  mode: number
  access: Buffer | null
}

/**
 * Kernel: fs/posix_acl.c:posix_acl_create_masq(). The default ACL, restricted by the requested
 * mode, becomes the access ACL.
 */
export function applyDefaultAcl(defaultAcl: Buffer, mode: number): Created {
  const access = Buffer.from(defaultAcl)
  let result = mode
  let extended = false
  let group = -1
  let mask = -1
  for (let at = HEADER; at + ENTRY <= access.length; at += ENTRY) {
    const tag = access.readUInt16LE(at)
    const perm = access.readUInt16LE(at + 2)
    if (tag === USER_OBJ) {
      const kept = perm & (mode >> 6) & 7
      access.writeUInt16LE(kept, at + 2)
      result = (result & ~0o700) | (kept << 6)
    } else if (tag === OTHER) {
      const kept = perm & mode & 7
      access.writeUInt16LE(kept, at + 2)
      result = (result & ~0o007) | kept
    } else if (tag === GROUP_OBJ) group = at
    else if (tag === MASK) mask = at
    if (tag === USER || tag === GROUP || tag === MASK) extended = true
  }
  const limiting = mask >= 0 ? mask : group
  if (limiting >= 0) {
    const kept = access.readUInt16LE(limiting + 2) & (mode >> 3) & 7
    access.writeUInt16LE(kept, limiting + 2)
    result = (result & ~0o070) | (kept << 3)
  }
  return { mode: result, access: extended ? access : null }
}

/** Sets the inherited ACLs of a staged object. Its mode is already set. */
export function setInheritedAcls(
  fd: number,
  name: ByteString,
  mode: number,
  defaultAcl: Buffer,
  created: Created,
): Result {
  if ((mode & S_IFMT) === S_IFLNK) return 0
  if (created.access !== null) {
    const result = setxattrat(fd, name, ACL_ACCESS, created.access, 0)
    if (result < 0) return result
  }
  return (mode & S_IFMT) === S_IFDIR ? setxattrat(fd, name, ACL_DEFAULT, defaultAcl, 0) : 0
}
