/**
 * Owners, modes and types that are kept in an extended attribute instead of the inode, for whoever
 * may not give files away or make devices: fuse-overlayfs' `xattr_permissions`, in the format of
 * containers/storage,
 *
 *     UID:GID:MODE[:TYPE]    0:5:4755:file    0:6:0660:block-8-0
 *
 * with the mode in octal, and a TYPE of file, dir, symlink, pipe, socket, block-MAJOR-MINOR,
 * char-MAJOR-MINOR.
 *
 * A layer takes part whose root bears such an attribute, and the upper one always. Ids in it are
 * those of the disk: mappings come on top. On disk an object has its permissions without set-id
 * bits, and what its owner needs to read and write it.
 */

import { fchmod, fchmodat, fstatx, openat, statxat } from '../../sys/at.js'
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

/** containers/storage's prefix; what an ordinary user may not set goes under it, too. */
const PREFIX: ByteString = 'user.containers.override_'
/** `xattr_permissions=2` */
export const CONTAINERS_STAT: ByteString = `${PREFIX}stat`
/** What that was called once. */
export const LEGACY_STAT: ByteString = 'user.fuseoverlayfs.override_stat'
/** `xattr_permissions=1` */
export const PRIVILEGED_STAT: ByteString = 'security.fuseoverlayfs.override_stat'
/** As fuse-overlayfs looks for them on the root of a layer. */
export const STAT_NAMES = [PRIVILEGED_STAT, CONTAINERS_STAT, LEGACY_STAT] as const

const SECURITY = 'security.'
const NAME_MAX = 255
/** Who may write to an object could set its attribute: on disk that is the mounter alone. */
const PERMISSIONS = 0o755
const MODE_BITS = 0o7777

/** What an attribute says. `type` is S_IFMT bits, or 0 where it says nothing of it. */
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

/** Null for what is no such value. */
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

/** As containers/storage's FormatContainersOverrideXattrDevice(). `mode` has the type, too. */
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

/** What the inode itself gets of a mode. Nobody else is given more than the mode says. */
export function diskMode(mode: number): number {
  return (mode & PERMISSIONS) | ((mode & S_IFMT) === S_IFDIR ? 0o700 : 0o600)
}

/** Whether objects of this type have their attribute in the layer; else the inode tells. */
export function isOverridden(layer: Layer, type: number): boolean {
  // Ordinary users' attributes can't be set on symlinks.
  return layer.override !== '' && (type !== S_IFLNK || layer.override === PRIVILEGED_STAT)
}

/**
 * Whether pipes, sockets and devices are regular files in the layer: only those take users'
 * attributes.
 */
export function specialsAreFiles(layer: Layer): boolean {
  return layer.override !== '' && layer.override !== PRIVILEGED_STAT
}

const buffer = Buffer.allocUnsafeSlow(256)
const inode = new Stat()

/**
 * Whether nobody but the mounter could have written the attributes of an object in which a layer
 * keeps owners, types and capabilities. Where root of the whole system mounts, they would else make
 * a set-user-id program, a device or a capability out of any user's file.
 *
 * @param st what the inode says
 */
const isCredible = (layer: Layer, st: Stat): boolean =>
  !layer.checksOverrides || (st.uid === geteuid() && !othersWrite(st))

/** The same for the object (fd, name). */
export function hasCredibleOverride(layer: Layer, fd: number, name: ByteString): boolean {
  if (!layer.checksOverrides) return true
  return (
    (name === '' ? fstatx(fd, inode) : statxat(fd, name, inode)) >= 0 && isCredible(layer, inode)
  )
}

/**
 * What is left of an attribute that the owner of the inode could have written: what he can do by
 * chmod(2), too. Null: nothing.
 */
function limitToOwner(said: Override | null, st: Stat): Override | null {
  if (said === null || othersWrite(st) || said.uid !== st.uid || said.gid !== st.gid) return null
  // Set-group-id takes a member of the group.
  return { ...said, mode: said.mode & ~(S_ISGID & ~st.mode), type: 0 }
}

const stated: Identity = { real: 0, birth: 0 }

/**
 * Reads the attribute of the object with these attributes into `buffer`. Whoever may write to the
 * directory may have given the name to another object since, and what is said of that one counts
 * for nobody else.
 */
function readOverride(layer: Layer, fd: number, name: ByteString, st: Stat): Result {
  if (name === '') return getxattrat(fd, '', layer.override, buffer)
  const own = openat(fd, name, O_PATH)
  if (own < 0) return own
  identify(stated, st, layer)
  const length = refersTo(own, stated) ? getxattrat(own, '', layer.override, buffer) : -E.ESTALE
  close(own)
  return length
}

/**
 * Puts what the attribute says in the place of what the inode said. Ids are those of the upper
 * layer then, also where an idmapped mount shows others.
 *
 * @param st the inode's attributes
 * @returns 0, or -errno: -EINVAL for an attribute that says nothing that could be shown, -ESTALE
 *   where another object has the name
 */
export function applyOverride(layer: Layer | null, fd: number, name: ByteString, st: Stat): Result {
  if (layer === null) return 0
  if (layer.mountIdmap !== null) st.amend(...layer.mountIdmap.ownerOnDisk(st.uid, st.gid), st.mode)
  if (layer.override === '') return 0
  const real = st.mode & S_IFMT
  const isFile = real === S_IFREG
  if (!isFile && real !== S_IFDIR && specialsAreFiles(layer)) return 0
  const length = readOverride(layer, fd, name, st)
  if (length < 0) {
    if (length === -E.ENODATA || length === -E.EOPNOTSUPP) return 0
    if (length === -E.ERANGE) return isCredible(layer, st) ? -E.EINVAL : 0
    return length
  }
  let said = parseOverride(buffer.latin1Slice(0, length))
  if (!isCredible(layer, st)) {
    said = limitToOwner(said, st)
    if (said === null) return 0
  }
  if (said === null) return -E.EINVAL
  // A directory stays one, and nothing else becomes one, or a symlink, which has a target.
  const becomes = isFile && said.type !== 0 && said.type !== S_IFDIR && said.type !== S_IFLNK
  st.amend(said.uid, said.gid, (becomes ? said.type : real) | said.mode)
  if (becomes) st.amendDevice(said.major, said.minor)
  return 0
}

/** Writes the attribute of an object of the upper layer. `mode` has the type, too. */
export function writeOverride(
  layer: Layer,
  fd: number,
  name: ByteString,
  uid: number,
  gid: number,
  mode: number,
  major = 0,
  minor = 0,
): Result {
  const value = Buffer.from(formatOverride(uid, gid, mode, major, minor), 'latin1')
  return setxattrat(fd, name, layer.override, value, 0)
}

/** Gives an object of the upper layer another mode. @param st its attributes, amended */
export const writeOverrideMode = (
  layer: Layer,
  fd: number,
  name: ByteString,
  st: Stat,
  mode: number,
): Result => writeOverrideOwner(layer, fd, name, st, st.uid, st.gid, mode)

/** The same, with an owner. */
export function writeOverrideOwner(
  layer: Layer,
  fd: number,
  name: ByteString,
  st: Stat,
  uid: number,
  gid: number,
  mode: number,
): Result {
  const full = (st.mode & S_IFMT) | (mode & MODE_BITS)
  const { rdevMajor, rdevMinor } = st
  // First, since it counts: where there is none yet, the inode tells.
  const stored = writeOverride(layer, fd, name, uid, gid, full, rdevMajor, rdevMinor)
  if (stored < 0 || (full & S_IFMT) === S_IFLNK) return stored
  // It keeps others out who reach the layer by another way, and an ACL on disk in step.
  const result = chmodOnDisk(fd, name, full)
  if (result < 0) void writeOverride(layer, fd, name, st.uid, st.gid, st.mode, rdevMajor, rdevMinor)
  return result
}

export function chmodOnDisk(fd: number, name: ByteString, mode: number): Result {
  return name === '' ? fchmod(fd, diskMode(mode)) : fchmodat(fd, name, diskMode(mode))
}

/** Whether a name is kept from users: whoever set such an attribute would own the file. */
export function isOverrideName(name: ByteString): boolean {
  return name.startsWith(PREFIX) || name === LEGACY_STAT || name === PRIVILEGED_STAT
}

/** What a user's attribute is called in a layer; '' for one that can't be there. */
export function storedName(layer: Layer | null, name: ByteString): ByteString {
  if (isOverrideName(name)) return ''
  if (layer?.override !== CONTAINERS_STAT || !name.startsWith(SECURITY)) return name
  return PREFIX.length + name.length > NAME_MAX ? '' : PREFIX + name
}

/** Whether a user's attribute has another name in the layer, where it can be there at all. */
export const isStoredElsewhere = (layer: Layer, name: ByteString): boolean =>
  storedName(layer, name) !== name

/** What a layer's attribute is called by users; '' for one that is not shown. */
export function visibleName(layer: Layer | null, stored: ByteString): ByteString {
  if (layer?.override === CONTAINERS_STAT) {
    if (stored.startsWith(SECURITY)) return ''
    if (stored.startsWith(PREFIX + SECURITY)) return stored.slice(PREFIX.length)
  }
  return isOverrideName(stored) ? '' : stored
}

/**
 * Takes away a file capability that the kernel does not know as one: data, or the owner, changes.
 */
export function dropCapability(layer: Layer | null, fd: number, name: ByteString): Result {
  if (layer?.override !== CONTAINERS_STAT) return 0
  const result = removexattrat(fd, name, `${PREFIX}security.capability`)
  return result === -E.ENODATA ? 0 : result
}
