/**
 * Ids inside the values of extended attributes: the users and groups of POSIX ACLs, and the root
 * user of a file capability. The kernel reads them as it reads owners, so they are translated as
 * owners are.
 */

import { E } from '../../sys/errno.js'
import { ACL_ACCESS, ACL_DEFAULT, forEachNamed } from './acl.js'
import type { ByteString, Result } from '../ops.js'
import { UNMAPPED, type Idmap } from './idmap.js'

export const CAPABILITY: ByteString = 'security.capability'

/** Whether values of this attribute hold ids. */
export function holdsIds(name: ByteString): boolean {
  return name === ACL_ACCESS || name === ACL_DEFAULT || name === CAPABILITY
}

/** A value from the disk as it is shown, or -errno. */
export function shownValue(idmap: Idmap, name: ByteString, value: Buffer): Buffer | Result {
  if (name === CAPABILITY) return shownCapability(idmap, value)
  const shown = Buffer.from(value)
  forEachNamed(shown, (at, isGroup) => {
    const ids = isGroup ? idmap.gids : idmap.uids
    shown.writeUInt32LE(ids.map(shown.readUInt32LE(at)), at)
  })
  return shown
}

/** A value that was given as it goes to disk, or -errno. */
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
  // Kernel: vfs_set_acl() of an id that the mount does not have.
  return known ? disk : -E.EINVAL
}

// struct vfs_ns_cap_data (linux/capability.h): u32 revision and flags, two pairs of u32, u32
// rootid.
const REVISION_MASK = 0xff00_0000
const REVISION_2 = 0x0200_0000
const REVISION_3 = 0x0300_0000
const SIZE_2 = 20
const SIZE_3 = 24

/** The user whose namespace a capability is good for; undefined where the value is none of ours. */
function rootOf(value: Buffer): number | undefined {
  if (value.length < SIZE_2) return undefined
  const revision = (value.readUInt32LE(0) & REVISION_MASK) >>> 0
  if (revision === REVISION_2 && value.length === SIZE_2) return 0
  return revision === REVISION_3 && value.length === SIZE_3 ? value.readUInt32LE(SIZE_2) : undefined
}

/** The value for another root; for 0 the form without one, which every kernel reads. */
function withRoot(value: Buffer, root: number): Buffer {
  const out = Buffer.alloc(root === 0 ? SIZE_2 : SIZE_3)
  value.copy(out, 0, 0, SIZE_2)
  const flags = (value.readUInt32LE(0) & ~REVISION_MASK) >>> 0
  out.writeUInt32LE(((root === 0 ? REVISION_2 : REVISION_3) | flags) >>> 0, 0)
  if (root !== 0) out.writeUInt32LE(root, SIZE_2)
  return out
}

/**
 * Kernel: cap_inode_getsecurity() on an idmapped mount. One for a root that is not shown has no
 * effect there either; as the server can't tell who asks, it is not there, or no such file could be
 * executed.
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
