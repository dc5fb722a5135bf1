/** Copies the bytes of a regular file, without its holes, in the kernel if it supports that. */

import { SEEK_DATA, SEEK_HOLE } from '../../sys/constants.js'
import { E } from '../../sys/errno.js'
import { copyFileRange, fsync, ftruncate, lseek, pread, pwrite } from '../../sys/io.js'
import { offDistance, offPlus, type Off } from '../../sys/types.js'
import type { Result } from '../ops.js'

const CHUNK = 8 << 20
const BUFFER = 1 << 20

/**
 * As `copyData`, for a source without holes.
 *
 * @returns 0 or -errno
 */
export function copyDense(src: number, dst: number, size: number): Result {
  const end = copyRange(src, dst, 0, size)
  return typeof end === 'number' && end < 0 ? end : end === size ? 0 : ftruncate(dst, size)
}

/**
 * Copies `size` bytes from the start of `src` to `dst`, an empty file, and keeps holes. If the
 * source is shorter than `size`, the copy ends with a hole.
 *
 * @returns 0 or -errno
 */
export function copyData(src: number, dst: number, size: Off, sync: boolean): Result {
  let pos: Off = 0
  while (pos < size) {
    const data = lseek(src, pos, SEEK_DATA)
    if (data === -E.ENXIO) break
    // A file system that does not support SEEK_DATA has no holes to keep. A SEEK_DATA or SEEK_HOLE
    // result that makes no progress is ignored.
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
 * Calls copy_file_range(2) in chunks, because one call for the whole piece would hold inode locks
 * for long.
 *
 * @returns the number of bytes copied, fewer than `length` only at the end of the source or after
 *   an error; -errno if the first chunk failed
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

/** @returns the position up to which the source had data, or -errno */
function copyRange(src: number, dst: number, from: Off, to: Off): Off {
  let pos = from
  while (pos < to) {
    const n = copyFileRange(src, pos, dst, pos, Math.min(CHUNK, offDistance(pos, to)))
    // 0: the end of the file, or a file that supports only read(2). EXDEV: the two file systems
    // cannot copy between each other. The others: the kernel does not support this pair of files.
    if (n === 0 || n === -E.EXDEV || n === -E.EINVAL || n === -E.ENOSYS || n === -E.EOPNOTSUPP)
      return copyByHand(src, dst, pos, to)
    if (n < 0) return n
    pos = offPlus(pos, n)
  }
  return pos
}

/** As `copyRange`, with pread(2) and pwrite(2). */
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
