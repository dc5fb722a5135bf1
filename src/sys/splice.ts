/**
 * Pipes and splice(2): data moves between a file and a pipe as references to pages, without a copy
 * through this process. Calls never wait for room or data in a pipe; they return -EAGAIN.
 */

import { O_CLOEXEC, O_NONBLOCK } from './constants.js'
import { E } from './errno.js'
import * as c from './libc.js'
import { fail } from './libc.js'
import { addressOf, i32, inBounds, put64, putOff, words } from './scratch.js'
import type { Off, Result } from './types.js'

const SPLICE_F_NONBLOCK = 2
const F_SETPIPE_SZ = 1031

/** pipe2(2), non-blocking, O_CLOEXEC: the read end and the write end, or -errno. */
export const pipe = (): [from: number, into: number] | Result =>
  c.pipe2(words, O_CLOEXEC | O_NONBLOCK) < 0 ? fail() : [i32[0]!, i32[1]!]

/** F_SETPIPE_SZ: requests a size in bytes. Returns the actual size, or -errno. */
export const setPipeSize = (fd: number, size: number): Result => {
  const r = c.fcntl(fd, F_SETPIPE_SZ, size)
  return r < 0 ? fail() : r
}

const call = (from: number, offIn: number, to: number, offOut: number, length: number): Result => {
  let r
  do r = c.splice(from, offIn, to, offOut, length, SPLICE_F_NONBLOCK)
  while (r < 0 && (r = fail()) === -E.EINTR)
  return r
}

/** splice(2) without offsets; one of the two is a pipe. Returns the bytes moved, 0 at the end. */
export const splice = (from: number, to: number, length: number): Result =>
  call(from, 0, to, 0, length)

/**
 * splice(2) of a file's bytes at `pos` into a pipe. Returns the bytes moved, possibly fewer than
 * `length`; 0 at or beyond the end.
 */
export const spliceFrom = (file: number, pos: Off, pipeIn: number, length: number): Result => {
  putOff(0, pos)
  return call(file, words, pipeIn, 0, length)
}

/**
 * vmsplice(2): puts memory into a pipe by reference. The reader sees its contents at the time of
 * the read, so it may still be changed.
 */
export const vmsplice = (
  pipeIn: number,
  buf: Uint8Array,
  offset: number,
  length: number,
): Result => {
  if (!inBounds(buf, offset, length)) return -E.EFAULT
  // struct iovec {base, length}
  put64(0, addressOf(buf) + offset)
  put64(2, length)
  let r
  do r = c.vmsplice(pipeIn, words, 1, SPLICE_F_NONBLOCK)
  while (r < 0 && (r = fail()) === -E.EINTR)
  return r
}
