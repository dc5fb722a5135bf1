/**
 * Runs a system call on a slow descriptor (sys/slow.ts), or a task that uses such a descriptor, on
 * another thread.
 */

import { getdents64, openat, openat2, readlinkat, statxat } from '../../sys/at.js'
import { handleInto, openByHandle } from '../../sys/handle.js'
import { getFlags, lseek, pread } from '../../sys/io.js'
import type { SlowCall } from '../../sys/slow.js'
import { Stat } from '../../sys/stat.js'
import { statfsInto } from '../../sys/statfs.js'
import { getxattrat, listxattrat } from '../../sys/xattr.js'
import { runTask, type IoTask } from './task.js'
import type { Result } from '../ops.js'

export type SlowWork = (SlowCall & { fd: number }) | { op: 'task'; task: IoTask }

let stat: Stat | undefined

/** @param out receives the bytes of the answer */
export function perform(work: SlowWork, out: Buffer): Result {
  switch (work.op) {
    case 'task':
      return runTask(work.task)
    case 'openat':
      return openat(work.fd, work.name, work.flags)
    case 'openat2':
      return openat2(work.fd, work.name, work.flags, 0, work.resolve)
    case 'openhandle':
      return openByHandle(work.fd, work.type, Buffer.from(work.handle, 'latin1'), work.flags)
    case 'statx': {
      stat ??= new Stat()
      const result = statxat(work.fd, work.name, stat)
      stat.buffer.copy(out)
      return result
    }
    case 'readlink':
      return readlinkat(work.fd, work.name, out.subarray(0, work.room))
    case 'getxattr':
      return getxattrat(work.fd, work.name, work.attr, out.subarray(0, work.room))
    case 'listxattr':
      return listxattrat(work.fd, work.name, out.subarray(0, work.room))
    case 'handle':
      return handleInto(work.fd, work.name, out.subarray(0, work.room))
    case 'getdents':
      return getdents64(work.fd, out.subarray(0, work.room))
    case 'pread':
      return pread(work.fd, out, 0, work.room, work.pos)
    case 'lseek':
      return Number(lseek(work.fd, work.pos, work.whence))
    case 'flags':
      return getFlags(work.fd)
    case 'statfs':
      return statfsInto(work.fd, out)
  }
}

/** The number of bytes in an answer. */
export function lengthOf(call: SlowCall, result: Result): number {
  if (result < 0) return 0
  if (!('room' in call)) return 0
  switch (call.op) {
    case 'statx':
    case 'statfs':
      return call.room
    case 'handle':
      return 4 + result
    case 'readlink':
    case 'getxattr':
    case 'listxattr':
    case 'getdents':
    case 'pread':
      return Math.min(result, call.room)
  }
}

/** The longest answer: the data of a READ, or the value of an xattr. */
export const OUT_SIZE = (1 << 20) + 4096
/** The longest path with every character escaped, and the other fields of a call. */
const TEXT_SIZE = 32 << 10
const HEAD_SIZE = 64

/** The shared memory for calls and answers between two threads. */
export class Slot {
  /** `STATE`, `LIFE` and the length of the text. */
  readonly cells: Int32Array
  readonly #result: Float64Array
  readonly #text: Buffer
  readonly out: Buffer

  constructor(memory: SharedArrayBuffer) {
    this.cells = new Int32Array(memory, 0, 8)
    this.#result = new Float64Array(memory, 32, 1)
    this.#text = Buffer.from(memory, HEAD_SIZE, TEXT_SIZE)
    this.out = Buffer.from(memory, HEAD_SIZE + TEXT_SIZE, OUT_SIZE)
  }

  static memory(): SharedArrayBuffer {
    return new SharedArrayBuffer(HEAD_SIZE + TEXT_SIZE + OUT_SIZE)
  }

  get result(): Result {
    return this.#result[0]!
  }
  set result(n) {
    this.#result[0] = n
  }
  get text(): string {
    return this.#text.latin1Slice(0, this.cells[TEXT_LENGTH])
  }
  set text(text) {
    this.cells[TEXT_LENGTH] = text.length
    this.#text.latin1Write(text)
  }
}

// Indices of cells.
export const STATE = 0
export const LIFE = 1
const TEXT_LENGTH = 2

/**
 * Values of STATE: no call; a call was requested; a call was requested, and its caller does not
 * wait; the call is done.
 */
export const IDLE = 0
export const REQUESTED = 1
export const UNATTENDED = 2
export const DONE = 3

/** Values of LIFE. */
export const STARTING = 0
export const ALIVE = 1
export const FAILED = 2
