/** Copying a regular file's bytes: shared extents, else in-kernel copies of what is not a hole. */

import { SEEK_DATA, SEEK_HOLE } from '../sys/constants.js'
import { E } from '../sys/errno.js'
import { copyFileRange, fsync, ftruncate, lseek, pread, pwrite } from '../sys/io.js'
import type { Result } from './ops.js'

const CHUNK = 8 << 20
const BUFFER = 1 << 20

/**
 * Copies a source that is not worth looking for holes in, as `copyData`.
 *
 * @returns 0 or -errno
 */
export function copyDense(src: number, dst: number, size: number): Result {
  const end = copyRange(src, dst, 0, size)
  return end < 0 || end === size ? Math.min(end, 0) : ftruncate(dst, size)
}

/**
 * Copies `size` bytes from the start of `src` to `dst`, an empty file, leaving holes as holes.
 * A source that is shorter than `size` gives a file with a hole at its end.
 *
 * @returns 0 or -errno
 */
export function copyData(src: number, dst: number, size: number, sync: boolean): Result {
  let pos = 0
  while (pos < size) {
    const data = lseek(src, pos, SEEK_DATA)
    if (data === -E.ENXIO) break
    // A file system without SEEK_DATA has no holes to keep.
    const from = data < 0 ? pos : data
    const hole = data < 0 ? size : lseek(src, from, SEEK_HOLE)
    const to = hole < 0 ? size : Math.min(hole, size)
    if (from >= size) break
    const result = copyRange(src, dst, from, to)
    if (result < 0) return result
    pos = to
  }
  const sized = ftruncate(dst, size)
  if (sized < 0) return sized
  return sync ? fsync(dst) : 0
}

/** @returns up to where there was something to copy, or -errno */
function copyRange(src: number, dst: number, from: number, to: number): Result {
  let pos = from
  while (pos < to) {
    const n = copyFileRange(src, pos, dst, pos, Math.min(CHUNK, to - pos))
    // The end, or a file that can only be read; two file systems that cannot copy between each other; a
    // kernel that refuses this pair.
    if (n === 0 || n === -E.EXDEV || n === -E.EINVAL || n === -E.ENOSYS || n === -E.EOPNOTSUPP)
      return copyByHand(src, dst, pos, to)
    if (n < 0) return n
    pos += n
  }
  return pos
}

/** As `copyRange`, by reading and writing. */
function copyByHand(src: number, dst: number, from: number, to: number): Result {
  const buffer = Buffer.allocUnsafeSlow(BUFFER)
  let pos = from
  while (pos < to) {
    const n = pread(src, buffer, 0, Math.min(BUFFER, to - pos), pos)
    if (n <= 0) return n < 0 ? n : pos
    let done = 0
    while (done < n) {
      const written = pwrite(dst, buffer, done, n - done, pos + done)
      if (written < 0) return written
      done += written
    }
    pos += n
  }
  return pos
}
