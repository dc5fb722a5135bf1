/**
 * The tasks of a pool thread. Running a task twice has the same effect as running it once, except
 * for `close`.
 */

import { unlinkat } from '../../sys/at.js'
import { E } from '../../sys/errno.js'
import { close, fallocate, fdatasync, fsync, ftruncate, syncfs, write } from '../../sys/io.js'
import type { Off } from '../../sys/types.js'
import { copyData, copyPiece } from './copy-data.js'
import type { ByteString, Result } from '../ops.js'

export type IoTask =
  | { kind: 'copy'; src: number; dst: number; size: Off; sync: boolean }
  | { kind: 'range'; src: number; offIn: Off; dst: number; offOut: Off; length: number }
  | { kind: 'fallocate'; fd: number; mode: number; offset: Off; length: Off }
  | { kind: 'truncate'; fd: number; size: Off }
  | { kind: 'unlink'; fd: number; names: ByteString[] }
  | { kind: 'close'; fd: number }
  | { kind: 'fsync'; fd: number; datasync: boolean }
  | { kind: 'syncfs'; fd: number }
  | { kind: 'write'; fd: number; bytes: Uint8Array }
  | { kind: 'sleep'; ms: number }

/**
 * Submitted between two pieces of work of the union's own thread, so that other requests can run.
 */
export const YIELD: IoTask = { kind: 'sleep', ms: 0 }

const asleep = new Int32Array(new SharedArrayBuffer(4))

/** Runs a task to its end on the current thread. */
export function runTask(task: IoTask): Result {
  switch (task.kind) {
    case 'copy':
      return copyData(task.src, task.dst, task.size, task.sync)
    case 'range':
      return copyPiece(task.src, task.offIn, task.dst, task.offOut, task.length)
    case 'fallocate':
      return fallocate(task.fd, task.mode, task.offset, task.length)
    case 'truncate':
      return ftruncate(task.fd, task.size)
    case 'unlink':
      return unlinkAll(task.fd, task.names)
    case 'close':
      return close(task.fd)
    case 'fsync':
      return task.datasync ? fdatasync(task.fd) : fsync(task.fd)
    case 'syncfs':
      return syncfs(task.fd)
    case 'write':
      return write(task.fd, task.bytes, 0, task.bytes.length)
    case 'sleep':
      Atomics.wait(asleep, 0, 0, task.ms)
      return 0
  }
}

function unlinkAll(fd: number, names: ByteString[]): Result {
  for (const name of names) {
    const result = unlinkat(fd, name)
    if (result < 0 && result !== -E.ENOENT) return result
  }
  return 0
}
