/** What a thread of the I/O pool does. Done twice, each task leaves what it leaves when done once. */

import { fdatasync, fsync, syncfs, write } from '../sys/io.js'
import { copyData } from './copydata.js'
import type { Result } from './ops.js'

export type IoTask =
  | { kind: 'copy'; src: number; dst: number; size: number; sync: boolean }
  | { kind: 'fsync'; fd: number; datasync: boolean }
  | { kind: 'syncfs'; fd: number }
  | { kind: 'write'; fd: number; bytes: Uint8Array }

/** Runs a task to its end, on the thread of whoever calls. */
export function runTask(task: IoTask): Result {
  switch (task.kind) {
    case 'copy':
      return copyData(task.src, task.dst, task.size, task.sync)
    case 'fsync':
      return task.datasync ? fdatasync(task.fd) : fsync(task.fd)
    case 'syncfs':
      return syncfs(task.fd)
    case 'write':
      return write(task.fd, task.bytes, 0, task.bytes.length)
  }
}
