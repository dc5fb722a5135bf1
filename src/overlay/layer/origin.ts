/**
 * `overlay.origin` and the names in `workdir/index`: a file handle of the lower object, wrapped as
 * the kernel's struct ovl_fb:
 *
 *     u8 version = 0, u8 magic = 0xfb, u8 len, u8 flags, u8 fid_type, u8 uuid[16], u8 fid[]
 */

import { fstatx, lastHandleType, nameToHandle, openByHandle, statxat } from '../../sys/at.js'
import { O_PATH } from '../../sys/constants.js'
import { E } from '../../sys/errno.js'
import { close } from '../../sys/io.js'
import { Stat, type Ino } from '../../sys/stat.js'
import { birthHash, lowerKey, type InodeKey } from './real-identity.js'
import type { Layer } from './layer.js'
import type { ByteString, Result } from '../ops.js'

const VERSION = 0
const MAGIC = 0xfb
const HEADER = 21
/** The kernel's OVL_FH_FLAG_BIG_ENDIAN and OVL_FH_FLAG_ANY_ENDIAN. */
const FLAG_BIG_ENDIAN = 1
const FLAG_ANY_ENDIAN = 2
const FLAG_PATH_UPPER = 4

const handleBuffer = Buffer.allocUnsafeSlow(128)
const decoded = new Stat()

/**
 * The origin structure of the real object (fd, name) in `layer`. `upper` sets the flag that says
 * "of the upper layer" (kernel: ovl_encode_real_fh, is_upper).
 *
 * @returns null where its file system has no handles, or it is not on the layer's; or -errno
 */
export function encodeOrigin(
  layer: Layer,
  fd: number,
  name: ByteString,
  upper = false,
): Buffer | Result | null {
  if (!layer.handles || (!layer.isPrivate && isOnOtherMount(layer, fd, name))) return null
  const length = nameToHandle(fd, name, handleBuffer)
  if (length === -E.EOPNOTSUPP || length === -E.EOVERFLOW || HEADER + length > 255) return null
  if (length < 0) return length
  const out = Buffer.allocUnsafe(HEADER + length)
  out[0] = VERSION
  out[1] = MAGIC
  out[2] = out.length
  out[3] = upper ? FLAG_PATH_UPPER : 0
  out[4] = lastHandleType
  layer.uuid.copy(out, 5)
  handleBuffer.copy(out, HEADER, 0, length)
  return out
}

/**
 * Whether an object is on a mount below the layer's root, where those can't be left out: its handle
 * means another one here.
 */
function isOnOtherMount(layer: Layer, fd: number, name: ByteString): boolean {
  const result = name === '' ? fstatx(fd, identified) : statxat(fd, name, identified)
  return result >= 0 && fstatx(layer.fd, decoded) >= 0 && identified.mntId !== decoded.mntId
}

/**
 * Where the kernel has a file system's number, so that no file system takes what follows for a
 * handle of its own.
 */
const INO_UUID = Buffer.from('tsoverlay inode ', 'latin1')
const INO_TYPE = 0xfe
const INO_LENGTH = 40
const identified = new Stat()

/**
 * What the index knows a lower file with several links by: its origin, or, in a layer that lies in
 * another union, where no handle outlasts a mount, its inode number and what tells that it still is
 * the same file. Null, too, for a file of another device than the layer's: numbers of devices
 * change from mount to mount.
 */
export function encodeForIndex(layer: Layer, fd: number, name: ByteString): Buffer | Result | null {
  if (!layer.keepsInos) return encodeOrigin(layer, fd, name)
  const st = identified
  const result = name === '' ? fstatx(fd, st) : statxat(fd, name, st)
  if (result < 0) return result
  if (st.dev !== layer.dev) return null
  const out = Buffer.alloc(HEADER + INO_LENGTH)
  out.set([VERSION, MAGIC, out.length, 0, INO_TYPE])
  INO_UUID.copy(out, 5)
  let at = out.writeBigUInt64LE(BigInt.asUintN(64, BigInt(st.ino)), HEADER)
  at = out.writeBigUInt64LE(BigInt(st.size64), at)
  at = out.writeBigInt64LE(BigInt(st.mtimeSec), at)
  at = out.writeBigInt64LE(BigInt(st.ctimeSec), at)
  at = out.writeUInt32LE(st.mtimeNsec, at)
  out.writeUInt32LE(st.ctimeNsec, at)
  return out
}

/**
 * Whether an object of each layer can be found by its origin: that takes handles, and
 * CAP_DAC_READ_SEARCH in the initial user namespace.
 */
export function canFindOrigins(lowers: Layer[]): boolean {
  return lowers.every(layer => {
    const origin = encodeOrigin(layer, layer.fd, '')
    const found = Buffer.isBuffer(origin) ? originIno(origin, lowers) : null
    return found !== null && typeof found !== 'number'
  })
}

/** The name of an index entry: the structure in lower-case hex (kernel: ovl_get_index_name). */
export function indexName(origin: Buffer): ByteString {
  return origin.toString('hex')
}

/** What an origin stands for. */
interface Origin {
  ino: Ino
  nlink: number
  layer: Layer
  /** As identity.ts has them. */
  key: InodeKey
  birth: number
}

/**
 * Finds the inode number and link count of what an origin stands for, and the layer it is on.
 *
 * @returns null where the structure is not understood, no layer is on that file system, the object
 *   is gone, or this process may not find it (the upper inode's own number is shown then); or
 *   -errno
 */
export function originIno(value: Buffer, lowers: Layer[]): Origin | Result | null {
  if (value.length < HEADER + 1 || value[0] !== VERSION || value[1] !== MAGIC) return null
  if (value[2] !== value.length) return null
  const flags = value[3] as number
  if ((flags & FLAG_PATH_UPPER) !== 0) return null
  if ((flags & FLAG_BIG_ENDIAN) !== 0 && (flags & FLAG_ANY_ENDIAN) === 0) return null
  const uuid = value.subarray(5, HEADER)
  const layer = lowers.find(l => l.handles && l.uuid.equals(uuid))
  if (layer === undefined) return null
  const fd = openByHandle(layer.fd, value[4] as number, value.subarray(HEADER), O_PATH)
  if (fd === -E.ENOMEM || fd === -E.EMFILE || fd === -E.ENFILE || fd === -E.EIO) return fd
  if (fd < 0) return null
  const stated = fstatx(fd, decoded)
  close(fd)
  if (stated < 0) return stated
  const { ino, nlink } = decoded
  return { ino, nlink, layer, key: lowerKey(decoded, layer), birth: birthHash(decoded, layer) }
}
