/**
 * The stat override: owner, mode and type in an extended attribute instead of the inode. It serves
 * mounters that may not change owners or create devices. It is fuse-overlayfs' option
 * `xattr_permissions`, in the format of containers/storage,
 *
 *     UID:GID:MODE[:TYPE]    0:5:4755:file    0:6:0660:block-8-0
 *
 * with the mode in octal, and a TYPE of file, dir, symlink, pipe, socket, block-MAJOR-MINOR,
 * char-MAJOR-MINOR.
 *
 * A lower layer has stat overrides if its root has one. The upper layer always has them if the
 * option is set. The ids are ids on disk: the union's idmap applies to them. The inode has the
 * permissions without set-id bits, and additionally the bits that its owner needs to read and write
 * it.
 */

import { fchmodat, openat, statxat } from '../../sys/at.js'
import {
  O_PATH,
  S_IFBLK,
  S_IFCHR,
  S_IFDIR,
  S_IFIFO,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
  S_IFSOCK,
  S_ISGID,
} from '../../sys/constants.js'
import { E } from '../../sys/errno.js'
import { close } from '../../sys/io.js'
import { geteuid } from '../../sys/proc.js'
import { Stat } from '../../sys/stat.js'
import { getxattrat, removexattrat, setxattrat } from '../../sys/xattr.js'
import { identify, refersTo, type Identity } from './real-identity.js'
import type { Layer } from './layer.js'
import type { ByteString, Result } from '../ops.js'
import { othersWrite } from './trust.js'

/**
 * The prefix of containers/storage. It also precedes the names of xattrs that an unprivileged user
 * may not set.
 */
const PREFIX: ByteString = 'user.containers.override_'
/** `xattr_permissions=2` */
export const CONTAINERS_STAT: ByteString = `${PREFIX}stat`
/** The earlier name of the same xattr. */
export const LEGACY_STAT: ByteString = 'user.fuseoverlayfs.override_stat'
/** `xattr_permissions=1` */
export const PRIVILEGED_STAT: ByteString = 'security.fuseoverlayfs.override_stat'
/** In the order in which fuse-overlayfs looks for them on a layer's root. */
export const STAT_NAMES = [PRIVILEGED_STAT, CONTAINERS_STAT, LEGACY_STAT] as const

const SECURITY = 'security.'
const NAME_MAX = 255
/**
 * A user with write access to an object can set its stat override, so only the mounter gets write
 * access on disk.
 */
const PERMISSIONS = 0o755
const MODE_BITS = 0o7777

/** The parsed value. `type` is S_IFMT bits, or 0 if the value has no type. */
export interface Override {
  uid: number
  gid: number
  mode: number
  type: number
  major: number
  minor: number
}

const PLAIN_TYPES: readonly (readonly [string, number])[] = [
  ['file', S_IFREG],
  ['dir', S_IFDIR],
  ['symlink', S_IFLNK],
  ['pipe', S_IFIFO],
  ['socket', S_IFSOCK],
]

/** Returns null for an invalid value. */
export function parseOverride(value: string): Override | null {
  const match = /^(\d{1,10}):(\d{1,10}):([0-7]{1,12})(?::(.*))?$/s.exec(value)
  if (match === null) return null
  const [, uid = '', gid = '', mode = '', type] = match
  const out = {
    uid: Number(uid),
    gid: Number(gid),
    mode: Number.parseInt(mode, 8) & MODE_BITS,
    type: 0,
    major: 0,
    minor: 0,
  }
  if (out.uid > 0xffff_fffe || out.gid > 0xffff_fffe) return null
  if (type === undefined) return out
  const plain = PLAIN_TYPES.find(([word]) => type.startsWith(word))
  if (plain !== undefined) return { ...out, type: plain[1] }
  const device = /^(block|char)-+(\d{1,4})-(\d{1,7})$/.exec(type)
  if (device === null) return null
  const [, kind, major, minor] = device
  const format = kind === 'block' ? S_IFBLK : S_IFCHR
  return { ...out, type: format, major: Number(major), minor: Number(minor) }
}

/** The attributes in a stat override that the union writes. `mode` includes the type. */
export type OverriddenAttrs = Pick<Stat, 'uid' | 'gid' | 'mode' | 'rdevMajor' | 'rdevMinor'>

/** As FormatContainersOverrideXattrDevice() of containers/storage. `mode` includes the type. */
export function formatOverride(
  uid: number,
  gid: number,
  mode: number,
  major: number,
  minor: number,
): string {
  const octal = (mode & MODE_BITS).toString(8).padStart(4, '0')
  return `${uid}:${gid}:${octal}:${typeWord(mode & S_IFMT, major, minor)}`
}

function typeWord(type: number, major: number, minor: number): string {
  if (type === S_IFBLK) return `block-${major}-${minor}`
  if (type === S_IFCHR) return `char-${major}-${minor}`
  return PLAIN_TYPES.find(([, format]) => format === type)?.[0] ?? 'file'
}

/** The mode of the inode on disk. Users other than the owner get no more than `mode` allows. */
export function diskMode(mode: number): number {
  return (mode & PERMISSIONS) | ((mode & S_IFMT) === S_IFDIR ? 0o700 : 0o600)
}

/**
 * Whether objects of this type have a stat override in the layer. The inode's attributes apply
 * otherwise.
 */
export function isOverridden(layer: Layer, type: number): boolean {
  // `user.` xattrs can't be set on symlinks.
  return layer.override !== '' && (type !== S_IFLNK || layer.override === PRIVILEGED_STAT)
}

/**
 * Whether pipes, sockets and devices are stored as regular files, because only those accept `user.`
 * xattrs.
 */
export function specialsAreFiles(layer: Layer): boolean {
  return layer.override !== '' && layer.override !== PRIVILEGED_STAT
}

const buffer = Buffer.allocUnsafeSlow(256)
const inode = new Stat()

/**
 * Whether only the mounter could have written the stat override and the capability xattr of an
 * object. It matters if root of the whole system mounts the union. Another user could otherwise
 * turn their own file into a set-user-id program, a device or a program with capabilities.
 *
 * @param st the attributes of the inode
 */
const isCredible = (layer: Layer, st: Stat): boolean =>
  !layer.checksOverrides || (st.uid === geteuid() && !othersWrite(st))

/** As `isCredible`, for the object (fd, name). */
export function hasCredibleOverride(layer: Layer, fd: number, name: ByteString): boolean {
  if (!layer.checksOverrides) return true
  return statxat(fd, name, inode) >= 0 && isCredible(layer, inode)
}

/**
 * Limits an override that the owner of the inode could have written to what the owner can do by
 * chmod(2). Returns null if nothing remains.
 */
function limitToOwner(override: Override | null, st: Stat): Override | null {
  if (override === null || othersWrite(st) || override.uid !== st.uid || override.gid !== st.gid)
    return null
  // chmod(2) keeps set-group-id only for a member of the group.
  return { ...override, mode: override.mode & ~(S_ISGID & ~st.mode), type: 0 }
}

const stated: Identity = { real: 0, birth: 0 }

/**
 * Reads the stat override of the object with the attributes `st` into `out`. A user with write
 * access to the directory may have given the name to another object since. The override of that
 * object must not be used, so the result is -ESTALE.
 */
function readOverride(layer: Layer, fd: number, name: ByteString, st: Stat, out: Buffer): Result {
  if (name === '') return getxattrat(fd, '', layer.override, out)
  const own = openat(fd, name, O_PATH)
  if (own < 0) return own
  identify(stated, st, layer)
  const length = refersTo(own, stated) ? getxattrat(own, '', layer.override, out) : -E.ESTALE
  close(own)
  return length
}

/**
 * Replaces the attributes of the inode by those of the stat override. The ids are then ids on disk,
 * also if an idmapped mount shows others.
 *
 * @param st the inode's attributes
 * @returns 0, or -errno: -EINVAL for an invalid override, -ESTALE if another object has the name
 */
export function applyOverride(layer: Layer | null, fd: number, name: ByteString, st: Stat): Result {
  if (layer === null) return 0
  if (layer.mountIdmap !== null) st.amend(...layer.mountIdmap.ownerOnDisk(st.uid, st.gid), st.mode)
  if (layer.override === '') return 0
  const real = st.mode & S_IFMT
  const isFile = real === S_IFREG
  if (!isFile && real !== S_IFDIR && specialsAreFiles(layer)) return 0
  const length = readOverride(layer, fd, name, st, buffer)
  if (length < 0) {
    if (length === -E.ENODATA || length === -E.EOPNOTSUPP) return 0
    if (length === -E.ERANGE) return isCredible(layer, st) ? -E.EINVAL : 0
    return length
  }
  let override = parseOverride(buffer.latin1Slice(0, length))
  if (!isCredible(layer, st)) {
    override = limitToOwner(override, st)
    if (override === null) return 0
  }
  if (override === null) return -E.EINVAL
  // A directory stays a directory. No other object becomes a directory, or a symlink, which would
  // need a target.
  const becomes =
    isFile && override.type !== 0 && override.type !== S_IFDIR && override.type !== S_IFLNK
  st.amend(override.uid, override.gid, (becomes ? override.type : real) | override.mode)
  if (becomes) st.amendDevice(override.major, override.minor)
  return 0
}

/** Writes the stat override of an object of the upper layer. */
export function writeOverride(
  layer: Layer,
  fd: number,
  name: ByteString,
  { uid, gid, mode, rdevMajor, rdevMinor }: OverriddenAttrs,
): Result {
  const value = Buffer.from(formatOverride(uid, gid, mode, rdevMajor, rdevMinor), 'latin1')
  return setxattrat(fd, name, layer.override, value, 0)
}

/**
 * Changes the mode of an object of the upper layer.
 *
 * @param st its attributes after `applyOverride`
 */
export const writeOverrideMode = (
  layer: Layer,
  fd: number,
  name: ByteString,
  st: Stat,
  mode: number,
): Result => writeOverrideOwner(layer, fd, name, st, { uid: st.uid, gid: st.gid, mode })

/** As `writeOverrideMode`, with an owner. */
export function writeOverrideOwner(
  layer: Layer,
  fd: number,
  name: ByteString,
  st: Stat,
  { uid, gid, mode }: Pick<Stat, 'uid' | 'gid' | 'mode'>,
): Result {
  const full = (st.mode & S_IFMT) | (mode & MODE_BITS)
  const { rdevMajor, rdevMinor } = st
  // The override comes first, because it takes precedence. If the object has none yet, the inode's
  // attributes apply until then.
  const stored = writeOverride(layer, fd, name, { uid, gid, mode: full, rdevMajor, rdevMinor })
  if (stored < 0 || (full & S_IFMT) === S_IFLNK) return stored
  // The mode on disk keeps out users that reach the layer by another way. It also updates an ACL on
  // disk.
  const result = chmodOnDisk(fd, name, full)
  if (result < 0) void writeOverride(layer, fd, name, st)
  return result
}

export function chmodOnDisk(fd: number, name: ByteString, mode: number): Result {
  return fchmodat(fd, name, diskMode(mode))
}

/**
 * Whether callers may not see or set an xattr of this name: it could make them the owner of a file.
 */
export function isOverrideName(name: ByteString): boolean {
  return name.startsWith(PREFIX) || name === LEGACY_STAT || name === PRIVILEGED_STAT
}

/** The name in the layer of a caller's xattr. '' if the layer can't have it. */
export function storedName(layer: Layer | null, name: ByteString): ByteString {
  if (isOverrideName(name)) return ''
  if (layer?.override !== CONTAINERS_STAT || !name.startsWith(SECURITY)) return name
  return PREFIX.length + name.length > NAME_MAX ? '' : PREFIX + name
}

/** Whether a caller's xattr has another name in the layer, or can't be stored there. */
export const isStoredElsewhere = (layer: Layer, name: ByteString): boolean =>
  storedName(layer, name) !== name

/** The name that callers see for an xattr in the layer. '' if the xattr is hidden. */
export function visibleName(layer: Layer | null, stored: ByteString): ByteString {
  if (layer?.override === CONTAINERS_STAT) {
    if (stored.startsWith(SECURITY)) return ''
    if (stored.startsWith(PREFIX + SECURITY)) return stored.slice(PREFIX.length)
  }
  return isOverrideName(stored) ? '' : stored
}

/**
 * Removes a file capability that is stored under the override prefix, after a change of data or
 * owner. The kernel does not know it as a capability, so it does not remove it.
 */
export function dropCapability(layer: Layer | null, fd: number, name: ByteString): Result {
  if (layer?.override !== CONTAINERS_STAT) return 0
  const result = removexattrat(fd, name, `${PREFIX}security.capability`)
  return result === -E.ENODATA ? 0 : result
}
