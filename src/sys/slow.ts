/**
 * Slow descriptors: their filesystem, in userspace or on the network, may block a call for any
 * time. A thread that must not block registers them here, and the registered object handles calls
 * on them. Descriptors opened below a slow one, and duplicates of it, are registered, too. Without
 * slow descriptors each call only checks the size of a map.
 *
 * Calls that modify something are made directly, because layers on such filesystems are only read.
 */

import type { ByteString, Result } from './types.js'

/** A call on a descriptor. `room` is the size of the answer's buffer in bytes. */
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
 * Handles calls on a registered descriptor. Each function may throw instead of waiting. `direct`
 * makes the call itself.
 */
export interface SlowFile {
  /** A call with a number as its result, and possibly bytes in `out`. */
  ask(call: SlowCall, out: Uint8Array | null, direct: () => Result): Result
  /** A call that opens a descriptor. */
  open(call: SlowCall, direct: () => Result): Result
  /** `fd` is a duplicate of it. */
  copied(fd: number): void
  /** The descriptor is no longer used. */
  close(): void
  /** The descriptor outlives the current request. */
  claim(): void
}

/** Slow descriptors by number. */
export const slowFiles = new Map<number, SlowFile>()

export const slowFile = (fd: number): SlowFile | undefined =>
  slowFiles.size === 0 ? undefined : slowFiles.get(fd)

/** Whether a call on a descriptor may block. */
export const isSlow = (fd: number): boolean => slowFiles.size > 0 && slowFiles.has(fd)

/** Marks `fd` as kept beyond the current request. */
export const claim = (fd: number): void => {
  if (slowFiles.size > 0) slowFiles.get(fd)?.claim()
}

/** How many objects this thread has created, removed or moved. */
export const changes = { count: 0 }

/** Counts a successful change. */
export const changed = (result: Result): Result => {
  if (result >= 0) changes.count++
  return result
}
