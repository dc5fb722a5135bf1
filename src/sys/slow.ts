/**
 * Descriptors whose file system may keep a call waiting for as long as it likes: one in userspace,
 * or on the network. Whoever serves others in the meantime registers them here, and is asked before
 * a call is made on one. What is opened below such a descriptor, or is a copy of it, is registered
 * as well. Where there are none, that costs a look at the size of a map.
 *
 * Calls that change something are made as they are: layers of such file systems are only read.
 */

import type { ByteString, Result } from './types.js'

/** A call on a descriptor. `room`: how many bytes of an answer are wanted. */
export type SlowCall =
  | { op: 'openat'; name: ByteString; flags: number }
  | { op: 'openat2'; name: ByteString; flags: number; resolve: number }
  | { op: 'openhandle'; type: number; handle: ByteString; flags: number }
  | { op: 'statx'; name: ByteString; room: number }
  | { op: 'readlink'; name: ByteString; room: number }
  | { op: 'getxattr'; name: ByteString; attr: ByteString; room: number }
  | { op: 'listxattr'; name: ByteString; room: number }
  | { op: 'handle'; name: ByteString; room: number }
  | { op: 'getdents'; room: number }
  | { op: 'pread'; room: number; pos: number }
  | { op: 'lseek'; pos: number; whence: number }
  | { op: 'flags' }
  | { op: 'statfs'; room: number }

/**
 * What stands for a registered descriptor. Each function may throw instead of waiting; `direct`
 * makes the call itself.
 */
export interface SlowFile {
  /** A call with a number as its result, and maybe bytes in `out`. */
  ask(call: SlowCall, out: Uint8Array | null, direct: () => Result): Result
  /** A call that opens a descriptor. */
  open(call: SlowCall, direct: () => Result): Result
  /** `fd` is a copy of it. */
  copied(fd: number): void
  /** The descriptor is not used any more. */
  close(): void
  /** Whoever has opened it keeps it beyond this request. */
  claim(): void
}

/** By number. */
export const slowFiles = new Map<number, SlowFile>()

export const slowFile = (fd: number): SlowFile | undefined =>
  slowFiles.size === 0 ? undefined : slowFiles.get(fd)

/** Whether calls on a descriptor may wait for somebody else. */
export const isSlow = (fd: number): boolean => slowFiles.size > 0 && slowFiles.has(fd)

/** Whoever has opened `fd` keeps it: it does not belong to one request alone. */
export const claim = (fd: number): void => {
  if (slowFiles.size > 0) slowFiles.get(fd)?.claim()
}

/** How often something was made, removed or moved by this thread. */
export const changes = { count: 0 }

/** Counts a change that has worked. */
export const changed = (result: Result): Result => {
  if (result >= 0) changes.count++
  return result
}
