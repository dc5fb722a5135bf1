/**
 * The origin xattr and the names in `workdir/index`. Both hold a file handle of the lower object in
 * the kernel's struct ovl_fb:
 *
 *     u8 version = 0, u8 magic = 0xfb, u8 len, u8 flags, u8 fid_type, u8 uuid[16], u8 fid[]
 */

import {
  fstatx,
  HANDLE_ROOM,
  HANDLE_TYPE_SIZE,
  nameToHandle,
  openByHandle,
  statxat,
} from '../../sys/at.js'
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
/** OVL_FH_FLAG_BIG_ENDIAN, OVL_FH_FLAG_ANY_ENDIAN and OVL_FH_FLAG_PATH_UPPER of the kernel. */
const FLAG_BIG_ENDIAN = 1
const FLAG_ANY_ENDIAN = 2
const FLAG_PATH_UPPER = 4

const handleBuffer = Buffer.allocUnsafeSlow(HANDLE_ROOM)
const decoded = new Stat()

/**
 * Encodes the struct ovl_fb of the real object (fd, name) in `layer`. `upper` sets the flag of an
 * upper object (kernel: ovl_encode_real_fh, is_upper).
 *
 * @returns null if the file system has no handles or the object is on another mount; or -errno
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
  out[4] = handleBuffer.readInt32LE(0)
  layer.uuid.copy(out, 5)
  handleBuffer.copy(out, HEADER, HANDLE_TYPE_SIZE, HANDLE_TYPE_SIZE + length)
  return out
}

/**
 * Whether the object is on a mount below the layer's root. Only a private mount excludes those
 * mounts. A handle of such an object would name another object of the layer's file system.
 */
function isOnOtherMount(layer: Layer, fd: number, name: ByteString): boolean {
  const result = statxat(fd, name, identified)
  return result >= 0 && fstatx(layer.fd, decoded) >= 0 && identified.mntId !== decoded.mntId
}

/**
 * Stands in the field of the file system's UUID, so that no file system interprets the following
 * bytes as a handle.
 */
const INO_UUID = Buffer.from('tsoverlay inode ', 'latin1')
const INO_TYPE = 0xfe
const INO_LENGTH = 40
const identified = new Stat()

/**
 * The index key of a lower file with several links. It is the file's origin. A layer in another
 * union has no handle that survives a remount: the key is then the inode number, together with the
 * size and the times that identify the version of the file. Returns null also for a file on another
 * device than the layer's root, because device numbers change between mounts.
 */
export function encodeForIndex(layer: Layer, fd: number, name: ByteString): Buffer | Result | null {
  if (!layer.keepsInos) return encodeOrigin(layer, fd, name)
  const st = identified
  const result = statxat(fd, name, st)
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
 * Whether the root of each layer can be opened by its origin. This requires handles, and
 * CAP_DAC_READ_SEARCH in the initial user namespace.
 */
export function canFindOrigins(lowers: Layer[]): boolean {
  return lowers.every(layer => {
    const origin = encodeOrigin(layer, layer.fd, '')
    const found = Buffer.isBuffer(origin) ? originIno(origin, lowers) : null
    return found !== null && typeof found !== 'number'
  })
}

/** The name of an index entry: the struct in lower-case hex (kernel: ovl_get_index_name). */
export function indexName(origin: Buffer): ByteString {
  return origin.toString('hex')
}

/** The lower object that an origin refers to. */
interface Origin {
  ino: Ino
  nlink: number
  layer: Layer
  /** As in real-identity.ts. */
  key: InodeKey
  birth: number
}

/**
 * Finds the inode number, the link count and the layer of the object that an origin refers to.
 *
 * @returns null if the struct is unknown, no layer is on that file system, the object is gone, or
 *   this process may not open it; the upper inode's own number is shown then. Or -errno
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
