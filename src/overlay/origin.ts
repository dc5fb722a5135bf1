/**
 * `overlay.origin` and the names in `workdir/index`: a file handle of the lower object, wrapped as
 * the kernel's struct ovl_fb:
 *
 *     u8 version = 0, u8 magic = 0xfb, u8 len, u8 flags, u8 fid_type, u8 uuid[16], u8 fid[]
 */

import { fstatx, lastHandleType, nameToHandle, openByHandle } from '../sys/at.js'
import { O_PATH } from '../sys/constants.js'
import { close } from '../sys/io.js'
import { Stat, type Ino } from '../sys/stat.js'
import type { Layer } from './layer.js'
import type { ByteString } from './ops.js'

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
 * The origin structure of the real object (fd, name) in `layer`, or null where its file system has no
 * handles. `upper` sets the flag that says "of the upper layer" (kernel: ovl_get_fh, is_upper).
 */
export function encodeOrigin(
  layer: Layer,
  fd: number,
  name: ByteString,
  upper = false,
): Buffer | null {
  if (!layer.handles) return null
  const length = nameToHandle(fd, name, handleBuffer)
  if (length < 0 || HEADER + length > 255) return null
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
 * Whether an object of each layer can be found by its origin: that takes handles, and CAP_DAC_READ_SEARCH in the
 * initial user namespace.
 */
export function canFindOrigins(lowers: Layer[]): boolean {
  return lowers.every(layer => {
    const origin = encodeOrigin(layer, layer.fd, '')
    return origin !== null && originIno(origin, lowers) !== null
  })
}

/** The name of an index entry: the structure in lower-case hex (kernel: ovl_get_index_name). */
export function indexName(origin: Buffer): ByteString {
  return origin.toString('hex')
}

/**
 * Finds the inode number that an origin stands for, and the layer it is on.
 *
 * @returns null where the structure is not understood, no layer is on that file system, or the object
 * is gone (the kernel then shows the upper inode's own number)
 */
export function originIno(value: Buffer, lowers: Layer[]): { ino: Ino; layer: Layer } | null {
  if (value.length < HEADER + 1 || value[0] !== VERSION || value[1] !== MAGIC) return null
  if (value[2] !== value.length) return null
  const flags = value[3] as number
  if ((flags & FLAG_PATH_UPPER) !== 0) return null
  if ((flags & FLAG_BIG_ENDIAN) !== 0 && (flags & FLAG_ANY_ENDIAN) === 0) return null
  const uuid = value.subarray(5, HEADER)
  const layer = lowers.find(l => l.handles && l.uuid.equals(uuid))
  if (layer === undefined) return null
  const fd = openByHandle(layer.fd, value[4] as number, value.subarray(HEADER), O_PATH)
  if (fd < 0) return null
  const failed = fstatx(fd, decoded) < 0
  close(fd)
  return failed ? null : { ino: decoded.ino, layer }
}
