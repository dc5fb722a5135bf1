/** Waits for events: eventfd(2) and poll(2) on two descriptors. Re-exported by io.ts. */

import { POLLERR, POLLHUP, POLLIN, POLLNVAL } from './constants.js'
import { E } from './errno.js'
import * as c from './libc.js'
import { fail, rawAddress } from './libc.js'
import { i32, put64, u32, words } from './scratch.js'
import type { Result } from './types.js'

const EFD_CLOEXEC = 0o2000000
const EFD_NONBLOCK = 0o4000

/**
 * eventfd(2): a new counter with value 0, non-blocking, O_CLOEXEC. It is readable while the value
 * is not 0.
 */
export const eventfd = (): Result => {
  const r = c.eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
  return r < 0 ? fail() : r
}

/**
 * Adds 1, which wakes a thread that polls the descriptor. Can be called from any thread. Returns 0
 * or -errno.
 */
export const eventfdSignal = (fd: number): Result => {
  put64(0, 1)
  let r
  do r = c.write(fd, words, 8)
  while (r < 0 && (r = fail()) === -E.EINTR)
  // EAGAIN: the counter is full, so it is readable already.
  return r === -E.EAGAIN || r >= 0 ? 0 : r
}

/** Sets the counter to 0. Returns its previous value (0 if it was not signalled), or -errno. */
export const eventfdDrain = (fd: number): Result => {
  let r
  do r = c.read(fd, words, 8)
  while (r < 0 && (r = fail()) === -E.EINTR)
  if (r === -E.EAGAIN) return 0
  return r < 0 ? r : u32[1]! * 0x1_0000_0000 + u32[0]!
}

const READY = POLLIN | POLLERR | POLLHUP | POLLNVAL

/**
 * poll(2): waits until one of two descriptors is readable or broken (error, hang-up, not open). The
 * result has bit 1 for `fdA` and bit 2 for `fdB`; 0 after `timeoutMs` milliseconds (-1: no limit).
 * A negative descriptor is ignored. A signal restarts the wait.
 */
export const poll2 = (fdA: number, fdB: number, timeoutMs: number): Result => {
  let r
  do {
    // struct pollfd {int fd; short events, revents}, little endian
    i32[0] = fdA
    i32[1] = POLLIN
    i32[2] = fdB
    i32[3] = POLLIN
    r = c.poll(words, 2, timeoutMs)
  } while (r < 0 && (r = fail()) === -E.EINTR)
  if (r <= 0) return r
  return ((u32[1]! >>> 16) & READY ? 1 : 0) | ((u32[3]! >>> 16) & READY ? 2 : 0)
}

/** poll(2): whether a descriptor is broken (error, hang-up, not open). It ignores data. */
export const isBroken = (fd: number): boolean => {
  i32[0] = fd
  i32[1] = 0
  return c.poll(words, 1, 0) > 0
}

/**
 * poll(2) on a thread of koffi's, for a program with an event loop. Waits until `brokenFd` is
 * broken (error, hang-up), bit 1 of the result, or `readableFd` is readable, bit 2. Data on
 * `brokenFd` does not end the wait.
 */
export const watch2 = (brokenFd: number, readableFd: number): Promise<Result> =>
  new Promise((resolve, reject) => {
    // In a buffer of its own: the engine keeps a small array on its heap and moves it.
    const fds = new Int32Array(new ArrayBuffer(16))
    fds.set([brokenFd, 0, readableFd, POLLIN])
    const wait = (): void => {
      c.pollAsync.async(rawAddress(fds.buffer), 2, -1, (err, r) => {
        if (err) return reject(err)
        // koffi passes the other thread's errno on during this callback.
        const result = r < 0 ? fail() : 0
        if (result === -E.EINTR) return wait()
        if (result < 0) return resolve(result)
        return resolve(((fds[1]! >>> 16) & READY ? 1 : 0) | ((fds[3]! >>> 16) & READY ? 2 : 0))
      })
    }
    wait()
  })
