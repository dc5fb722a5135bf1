/** Forked copies of this process, which can be killed. */

import * as fs from 'node:fs'
// oxlint-disable-next-line no-restricted-imports -- as in helpers/syscalls.ts: apart from what is tested
import koffi from 'koffi'

const libc = koffi.load('libc.so.6')
const bind = (declaration: string): ((...args: unknown[]) => number) =>
  libc.func(declaration) as (...args: unknown[]) => number

const c = {
  fork: bind('int fork()'),
  waitpid: bind('int waitpid(int pid, uint8_t *status, int options)'),
  kill: bind('int kill(int pid, int signal)'),
  getpid: bind('int getpid()'),
  exit: bind('int _exit(int status)'),
  alarm: bind('uint32_t alarm(uint32_t seconds)'),
  madvise: bind('int madvise(int64_t address, int64_t length, int advice)'),
}

export const SIGKILL = 9
const SIGALRM = 14
const MADV_DOFORK = 11
/** The time limit of a copy. */
const SECONDS = 60

export const killSelf = (): void => void c.kill(c.getpid(), SIGKILL)

/**
 * V8 marks its heap with MADV_DONTFORK. The mappings of the kernel above these addresses must not
 * be changed.
 */
const endOfHeap = ((): bigint => {
  const line = fs
    .readFileSync('/proc/self/maps', 'latin1')
    .split('\n')
    .find(text => text.includes('[vvar'))
  return BigInt(`0x${line?.split('-')[0] ?? '7f0000000000'}`)
})()
const START_OF_HEAP = 0x10000n

/**
 * Runs `use` in a forked copy of this process, so that starting Node and loading the union happens
 * only once. The copy has only this thread, so V8 must not wait for others (`node
 * --single-threaded`), and `use` must not use Node's asynchronous I/O.
 *
 * @returns the signal that killed it, or null if `use` has finished
 */
export const inCopy = async (use: () => Promise<unknown>): Promise<number | null> => {
  if (!process.execArgv.includes('--single-threaded')) throw new Error('node --single-threaded')
  c.madvise(START_OF_HEAP, endOfHeap - START_OF_HEAP, MADV_DOFORK)
  const pid = c.fork()
  if (pid < 0) throw new Error('fork')
  if (pid === 0) {
    c.alarm(SECONDS)
    try {
      await use()
    } finally {
      c.exit(0)
    }
  }
  const status = Buffer.alloc(4)
  if (c.waitpid(pid, status, 0) !== pid) throw new Error('waitpid')
  const signal = status.readUInt32LE(0) & 0x7f
  if (signal === SIGALRM) throw new Error(`no end in ${SECONDS} s`)
  return signal === 0 ? null : signal
}
