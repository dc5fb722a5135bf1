/**
 * Translates the ids in the values of extended attributes: the users and groups of POSIX ACLs, and
 * the root user of a file capability. The kernel interprets them like owners, so the union's idmap
 * applies to them.
 */

import { E } from '../../sys/errno.js'
import { ACL_ACCESS, ACL_DEFAULT, forEachNamed } from './acl.js'
import type { ByteString, Result } from '../ops.js'
import { UNMAPPED, type Idmap } from './idmap.js'

export const CAPABILITY: ByteString = 'security.capability'

/** Whether the value of this xattr contains ids. */
export function holdsIds(name: ByteString): boolean {
  return name === ACL_ACCESS || name === ACL_DEFAULT || name === CAPABILITY
}

/** Converts a value on disk to the shown value. Returns -errno after an error. */
export function shownValue(idmap: Idmap, name: ByteString, value: Buffer): Buffer | Result {
  if (name === CAPABILITY) return shownCapability(idmap, value)
  const shown = Buffer.from(value)
  forEachNamed(shown, (at, isGroup) => {
    const ids = isGroup ? idmap.gids : idmap.uids
    shown.writeUInt32LE(ids.map(shown.readUInt32LE(at)), at)
  })
  return shown
}

/** Converts a caller's value to the value on disk. Returns -errno after an error. */
export function diskValue(idmap: Idmap, name: ByteString, value: Uint8Array): Uint8Array | Result {
  const disk = Buffer.from(value)
  if (name === CAPABILITY) return diskCapability(idmap, disk)
  let known = true
  forEachNamed(disk, (at, isGroup) => {
    const ids = isGroup ? idmap.gids : idmap.uids
    const id = ids.toDisk(disk.readUInt32LE(at))
    if (id === UNMAPPED) known = false
    else disk.writeUInt32LE(id, at)
  })
  // Kernel: vfs_set_acl() with an id that the mount does not map.
  return known ? disk : -E.EINVAL
}

// struct vfs_ns_cap_data (linux/capability.h): u32 revision and flags, two pairs of u32, u32
// rootid.
const REVISION_MASK = 0xff00_0000
const REVISION_2 = 0x0200_0000
const REVISION_3 = 0x0300_0000
const SIZE_2 = 20
const SIZE_3 = 24

/**
 * The root user of the user namespace in which the capability is effective. Undefined for an
 * unknown format.
 */
function rootOf(value: Buffer): number | undefined {
  if (value.length < SIZE_2) return undefined
  const revision = (value.readUInt32LE(0) & REVISION_MASK) >>> 0
  if (revision === REVISION_2 && value.length === SIZE_2) return 0
  return revision === REVISION_3 && value.length === SIZE_3 ? value.readUInt32LE(SIZE_2) : undefined
}

/**
 * The value with another root user. Root user 0 uses revision 2, which has no root id and which
 * every kernel reads.
 */
function withRoot(value: Buffer, root: number): Buffer {
  const out = Buffer.alloc(root === 0 ? SIZE_2 : SIZE_3)
  value.copy(out, 0, 0, SIZE_2)
  const flags = (value.readUInt32LE(0) & ~REVISION_MASK) >>> 0
  out.writeUInt32LE(((root === 0 ? REVISION_2 : REVISION_3) | flags) >>> 0, 0)
  if (root !== 0) out.writeUInt32LE(root, SIZE_2)
  return out
}

/**
 * Kernel: cap_inode_getsecurity() on an idmapped mount. A capability of an unmapped root has no
 * effect there either. The server can't know whether the reader is execve(2), so it hides the
 * xattr: otherwise such a file could not be executed.
 */
function shownCapability(idmap: Idmap, value: Buffer): Buffer | Result {
  const root = rootOf(value)
  if (root === undefined) return value
  const shown = idmap.uids.mapOr(root, UNMAPPED)
  return shown === UNMAPPED ? -E.ENODATA : shown === root ? value : withRoot(value, shown)
}

/** Kernel: cap_convert_nscap() on an idmapped mount. */
function diskCapability(idmap: Idmap, value: Buffer): Buffer | Result {
  const root = rootOf(value)
  if (root === undefined) return value
  const disk = idmap.uids.toDisk(root)
  return disk === UNMAPPED ? -E.EINVAL : disk === root ? value : withRoot(value, disk)
}
