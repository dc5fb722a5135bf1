/** fstatfs(2). */

import { E } from './errno.js'
import { fail, fstatfs } from './libc.js'
import { u32, words } from './scratch.js'
import { slowFile } from './slow.js'
import type { Result } from './types.js'

/** struct statfs. Counts are exact up to 2^53. */
export class StatFs {
  /** The filesystem's magic number, unsigned. */
  type = 0
  /** Optimal transfer size; `frsize` is the unit of the block counts. */
  bsize = 0
  frsize = 0
  blocks = 0
  bfree = 0
  bavail = 0
  files = 0
  ffree = 0
  namelen = 0
  /** ST_* bits. */
  flags = 0
}

const long = (i: number): number => u32[i + 1]! * 0x1_0000_0000 + u32[i]!

/** sizeof(struct statfs) */
const STATFS_SIZE = 120
const wordBytes = new Uint8Array(u32.buffer, u32.byteOffset, STATFS_SIZE)

const ask = (fd: number): Result => {
  let r
  do r = fstatfs(fd, words)
  while (r < 0 && (r = fail()) === -E.EINTR)
  return r
}

/** Writes the kernel's struct to `out`, for another thread. */
export const statfsInto = (fd: number, out: Uint8Array): Result => {
  const r = ask(fd)
  if (r >= 0) out.set(wordBytes)
  return r
}

/** fstatfs(2) of the filesystem of `fd`, possibly O_PATH. */
export const statfs = (fd: number, out: StatFs): Result => {
  const slow = slowFile(fd)
  const r =
    slow === undefined
      ? ask(fd)
      : slow.ask({ op: 'statfs', room: STATFS_SIZE }, wordBytes, () => ask(fd))
  if (r < 0) return r
  out.type = u32[0]!
  out.bsize = long(2)
  out.blocks = long(4)
  out.bfree = long(6)
  out.bavail = long(8)
  out.files = long(10)
  out.ffree = long(12)
  // 14: f_fsid
  out.namelen = long(16)
  out.frsize = long(18)
  out.flags = long(20)
  return r
}
