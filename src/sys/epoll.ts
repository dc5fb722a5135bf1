/** epoll(7): waits for any of many descriptors. The caller gives each a number. */

import * as c from './libc.js'
import { fail } from './libc.js'
import { addressOf, words, u32 } from './scratch.js'
import { E } from './errno.js'
import { close } from './io.js'
import type { Result } from './types.js'

const EPOLL_CLOEXEC = 0o2000000
const EPOLL_CTL_ADD = 1
const EPOLL_CTL_DEL = 2
const EPOLL_CTL_MOD = 3

export const EPOLLIN = 0x1

// struct epoll_event {u32 events; u64 data}. It is packed only on x64.
const WORDS = process.arch === 'x64' ? 3 : 4
const DATA = process.arch === 'x64' ? 1 : 2
/** Maximum number of events that a call returns. */
const MAX_EVENTS = 64

export class Epoll {
  readonly fd: number
  readonly #out = Buffer.allocUnsafeSlow(MAX_EVENTS * WORDS * 4)
  readonly #u32 = new Uint32Array(this.#out.buffer)

  /** Does not throw. If no descriptor is left, `fd` is -errno. */
  constructor() {
    const fd = c.epollCreate1(EPOLL_CLOEXEC)
    this.fd = fd < 0 ? fail() : fd
  }

  /**
   * @param number a safe integer below 2^32, which `number()` returns
   * @param events EPOLLIN, or 0 for errors only
   */
  add(fd: number, number: number, events = EPOLLIN): Result {
    return this.#control(EPOLL_CTL_ADD, fd, number, events)
  }

  change(fd: number, number: number, events: number): Result {
    return this.#control(EPOLL_CTL_MOD, fd, number, events)
  }

  remove(fd: number): Result {
    return this.#control(EPOLL_CTL_DEL, fd, 0, 0)
  }

  #control(operation: number, fd: number, number: number, events: number): Result {
    u32[0] = events
    u32[DATA] = number
    u32[DATA + 1] = 0
    return c.epollCtl(this.fd, operation, fd, words) < 0 ? fail() : 0
  }

  /**
   * epoll_wait(2). A signal restarts the wait.
   * @param timeoutMs milliseconds, rounded up; -1: no limit
   * @returns how many descriptors are ready, at most 64, or -errno. Their numbers are `number(0)`,
   *   `number(1)`, …
   */
  wait(timeoutMs: number): Result {
    let r
    do r = c.epollWait(this.fd, addressOf(this.#out), MAX_EVENTS, Math.ceil(timeoutMs))
    while (r < 0 && (r = fail()) === -E.EINTR)
    return r
  }

  /** The number of the i-th ready descriptor. */
  number(i: number): number {
    return this.#u32[i * WORDS + DATA]!
  }

  close(): void {
    close(this.fd)
  }
}
