/** Copying a regular file's bytes: shared extents, else in-kernel copies of what is not a hole. */

import { SEEK_DATA, SEEK_HOLE } from '../../sys/constants.js'
import { E } from '../../sys/errno.js'
import { copyFileRange, fsync, ftruncate, lseek, pread, pwrite } from '../../sys/io.js'
import { offDistance, offPlus, type Off } from '../../sys/types.js'
import type { Result } from '../ops.js'

const CHUNK = 8 << 20
const BUFFER = 1 << 20

/**
 * Copies a source that is not worth looking for holes in, as `copyData`.
 *
 * @returns 0 or -errno
 */
export function copyDense(src: number, dst: number, size: number): Result {
  const end = copyRange(src, dst, 0, size)
  return typeof end === 'number' && end < 0 ? end : end === size ? 0 : ftruncate(dst, size)
}

/**
 * Copies `size` bytes from the start of `src` to `dst`, an empty file, leaving holes as holes. A
 * source that is shorter than `size` gives a file with a hole at its end.
 *
 * @returns 0 or -errno
 */
export function copyData(src: number, dst: number, size: Off, sync: boolean): Result {
  let pos: Off = 0
  while (pos < size) {
    const data = lseek(src, pos, SEEK_DATA)
    if (data === -E.ENXIO) break
    // A file system without SEEK_DATA has no holes to keep, nor has one whose answers lead nowhere.
    const from: Off = data < pos ? pos : data
    const hole: Off = data < 0 ? size : lseek(src, from, SEEK_HOLE)
    const to: Off = hole <= from || hole > size ? size : hole
    if (from >= size) break
    const result = copyRange(src, dst, from, to)
    if (result < 0) return Number(result)
    pos = to
  }
  const sized = ftruncate(dst, size)
  if (sized < 0) return sized
  return sync ? fsync(dst) : 0
}

/**
 * copy_file_range(2) of a whole piece, for all of which one call would hold locks for long.
 *
 * @returns how many bytes were copied, fewer than `length` at the end of the source; or -errno of
 *   the first
 */
export function copyPiece(
  src: number,
  offIn: Off,
  dst: number,
  offOut: Off,
  length: number,
): Result {
  let done = 0
  while (done < length) {
    const asked = Math.min(CHUNK, length - done)
    const n = copyFileRange(src, offPlus(offIn, done), dst, offPlus(offOut, done), asked)
    if (n < 0) return done > 0 ? done : n
    if (n === 0) break
    done += n
  }
  return done
}

/** @returns up to where there was something to copy, or -errno */
function copyRange(src: number, dst: number, from: Off, to: Off): Off {
  let pos = from
  while (pos < to) {
    const n = copyFileRange(src, pos, dst, pos, Math.min(CHUNK, offDistance(pos, to)))
    // The end, or a file that can only be read; two file systems that cannot copy between each
    // other; a kernel that refuses this pair.
    if (n === 0 || n === -E.EXDEV || n === -E.EINVAL || n === -E.ENOSYS || n === -E.EOPNOTSUPP)
      return copyByHand(src, dst, pos, to)
    if (n < 0) return n
    pos = offPlus(pos, n)
  }
  return pos
}

/** As `copyRange`, by reading and writing. */
function copyByHand(src: number, dst: number, from: Off, to: Off): Off {
  const buffer = Buffer.allocUnsafeSlow(BUFFER)
  let pos = from
  while (pos < to) {
    const n = pread(src, buffer, 0, Math.min(BUFFER, offDistance(pos, to)), pos)
    if (n <= 0) return n < 0 ? n : pos
    let done = 0
    while (done < n) {
      const written = pwrite(dst, buffer, done, n - done, offPlus(pos, done))
      if (written < 0) return written
      done += written
    }
    pos = offPlus(pos, n)
  }
  return pos
}
