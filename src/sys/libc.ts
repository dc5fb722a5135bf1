/**
 * The bindings: declares every C function of this project through koffi, and contains nothing else.
 * Only the files of src/sys use it. They add the policy: flags, retries, bounds checks, and results
 * as -errno.
 *
 * The rules for calls through koffi (docs/measurements.md has the costs):
 *
 * - Pointers are declared as `int64` and passed as numbers, which is faster than `void *` with a
 *   Buffer. mmap(2) returns addresses below 2^53 unless asked otherwise, so they are exact. The
 *   address of a buffer is determined once (scratch.ts); the address of a part is address + offset.
 *   The garbage collector does not see such an address: `addressOf` explains why it stays valid.
 * - errno is the thread's own cell, found with __errno_location() and mapped as an Int32Array when
 *   the module is loaded. Modules are instantiated per worker thread, and a koffi call runs on the
 *   calling thread, so it is the right cell. It is only read directly after a result of -1.
 * - 64-bit parameters take JS numbers: koffi converts a double to int64 exactly up to 2^53. Larger
 *   offsets are bigints.
 * - A call goes through syscall(3) by number, at the cost of one more argument, if a C library
 *   (glibc, musl) wraps it in a surprising way or does not have it yet.
 * - Variadic functions (openat, ioctl, fcntl, syscall) are declared with fixed parameters: on x64
 *   and arm64 Linux, integer arguments of a variadic function are passed like any other.
 * - Only the rarely used calls of mount.ts have string parameters.
 */

import { createRequire } from 'node:module'
import { loadKoffi } from './koffi.js'
import type { Off } from './types.js'

// Not loaded with `import`, which a bundle would execute at the start of the bundled file.
const koffi = loadKoffi(createRequire(import.meta.url))

declare global {
  // Node's own methods, undocumented but as old as Buffer; @types/node omits them. They avoid the
  // lookup of the encoding in toString and write.
  interface Buffer<TArrayBuffer extends ArrayBufferLike = ArrayBufferLike> {
    latin1Slice(start?: number, end?: number): string
    latin1Write(text: string, offset?: number, length?: number): number
  }
}

if ((process.arch !== 'x64' && process.arch !== 'arm64') || process.platform !== 'linux') {
  throw new Error(
    `tsoverlay runs on Linux x64 and arm64, not on ${process.platform} ${process.arch}`,
  )
}

const arm64 = process.arch === 'arm64'

/** Numbers of the system calls made through `syscall`. */
export const NR = {
  getdents64: arm64 ? 61 : 217,
  gettid: arm64 ? 178 : 186,
  memfdCreate: arm64 ? 279 : 319,
  mknodat: arm64 ? 33 : 259,
  renameat2: arm64 ? 276 : 316,
  statx: arm64 ? 291 : 332,
  unshare: arm64 ? 97 : 272,
  pidfdSendSignal: 424,
  openTree: 428,
  fsopen: 430,
  fsconfig: 431,
  fsmount: 432,
  pidfdOpen: 434,
  openat2: 437,
  mountSetattr: 442,
  fchmodat2: 452,
  setxattrat: 463,
  getxattrat: 464,
  listxattrat: 465,
  removexattrat: 466,
} as const

/**
 * The process has loaded the C library already: its symbols are found there, with glibc and with
 * musl.
 */
const lib = koffi.load(null)

type Num = number
type Fn1 = (a: Num) => number
type Fn2 = (a: Num, b: Num) => number
type Fn3 = (a: Num, b: Num, c: Num) => number
type Fn4 = (a: Num, b: Num, c: Num, d: Num) => number
type Fn5 = (a: Num, b: Num, c: Num, d: Num, e: Num) => number
type Fn6 = (a: Num, b: Num, c: Num, d: Num, e: Num, f: Num) => number

/** Parameter types by letter: i int, u unsigned int, l any 64-bit integer or pointer. */
const TYPES: Record<string, string> = { i: 'int', u: 'uint32', l: 'int64' }

type Declared = ReturnType<typeof lib.func>

/**
 * A hook for tests (test/faults). It gets each function of this file once, when the file is loaded,
 * and its return value is called instead. So calls can be traced, delayed, failed or aborted.
 * `failWith` sets errno and returns the -1 of a failed call. Only code of the same thread can set
 * the hook. Without it no call is wrapped.
 */
export type SyscallHook = (
  name: string,
  call: Declared,
  failWith: (errno: number) => -1,
) => Declared

const hook = (globalThis as { [key: symbol]: SyscallHook | undefined })[
  Symbol.for('tsoverlay.syscalls')
]

const failWith = (errno: number): -1 => {
  errnoCell[0] = errno
  return -1
}

const declare = (name: string, result: string, params: string[]): Declared => {
  const call = lib.func(name, result, params)
  return hook === undefined ? call : hook(name, call, failWith)
}

/** Declares a function. `signature` has the letter of the result, then those of the parameters. */
const bind = (name: string, signature: string): Declared => {
  const [result = 'int', ...params] = Array.from(signature, c => TYPES[c] ?? c)
  return declare(name, result, params)
}

// File descriptors and data
export const close: Fn1 = bind('close', 'ii')
export const read: Fn3 = bind('read', 'lill')
export const write: Fn3 = bind('write', 'lill')
/** Offsets that are not safe integers are bigints. */
export const pread: (fd: Num, buf: Num, length: Num, pos: Off) => number = bind('pread', 'lilll')
export const pwrite: (fd: Num, buf: Num, length: Num, pos: Off) => number = bind('pwrite', 'lilll')
export const writev: Fn3 = bind('writev', 'lili')
/**
 * lseek(2). The only call whose result may exceed the safe integers: koffi then returns a bigint.
 */
export const lseek: (fd: Num, pos: Off, whence: Num) => Off = bind('lseek', 'lili')
export const ftruncate: (fd: Num, size: Off) => number = bind('ftruncate', 'iil')
export const truncate: (path: Num, size: Off) => number = bind('truncate', 'ill')
export const fallocate: (fd: Num, mode: Num, off: Off, length: Off) => number = bind(
  'fallocate',
  'iiill',
)
export const fsync: Fn1 = bind('fsync', 'ii')
export const fdatasync: Fn1 = bind('fdatasync', 'ii')
export const syncfs: Fn1 = bind('syncfs', 'ii')
export const copyFileRange: Fn6 = bind('copy_file_range', 'lilillu')
export const ioctl: Fn3 = bind('ioctl', 'iill')
export const dup2: Fn2 = bind('dup2', 'iii')
export const dup3: Fn3 = bind('dup3', 'iiii')
export const fcntl: Async<[fd: Num, command: Num, arg: Num]> = bind('fcntl', 'iiil')
export const flock: Fn2 = bind('flock', 'iii')
export const eventfd: Fn2 = bind('eventfd', 'iui')
export const epollCreate1: Fn1 = bind('epoll_create1', 'ii')
export const epollCtl: Fn4 = bind('epoll_ctl', 'iiiil')
export const epollWait: Fn4 = bind('epoll_wait', 'iilii')
export const poll: Fn3 = bind('poll', 'illi')
/** For calls on another thread. */
export const pollAsync: Async<[fds: Num, count: Num, timeout: Num]> = bind('poll', 'illi')
export const socketpair: Fn4 = bind('socketpair', 'iiiil')
export const socket: Fn3 = bind('socket', 'iiii')
export const connect: Fn3 = bind('connect', 'iilu')
export const recvmsg: Fn3 = bind('recvmsg', 'lili')
export const pipe2: Fn2 = bind('pipe2', 'ili')
export const splice: Fn6 = bind('splice', 'lilillu')
export const vmsplice: Fn4 = bind('vmsplice', 'lillu')

// Names
export const openat: Fn4 = bind('openat', 'iiliu')
export const mkdirat: Fn3 = bind('mkdirat', 'iilu')
export const symlinkat: Fn3 = bind('symlinkat', 'ilil')
export const linkat: Fn5 = bind('linkat', 'iilili')
export const unlinkat: Fn3 = bind('unlinkat', 'iili')
export const readlinkat: Fn4 = bind('readlinkat', 'lilll')
export const fchmod: Fn2 = bind('fchmod', 'iiu')
export const chmod: Fn2 = bind('chmod', 'ilu')
export const fchownat: Fn5 = bind('fchownat', 'iiluui')
export const utimensat: Fn4 = bind('utimensat', 'iilli')
export const fstatfs: Fn2 = bind('fstatfs', 'iil')
export const nameToHandleAt: Fn5 = bind('name_to_handle_at', 'iillli')
export const openByHandleAt: Fn3 = bind('open_by_handle_at', 'iili')

// Extended attributes, for kernels before 6.13
export const getxattr: Fn4 = bind('getxattr', 'lllll')
export const lgetxattr: Fn4 = bind('lgetxattr', 'lllll')
export const setxattr: Fn5 = bind('setxattr', 'illlli')
export const fsetxattr: Fn5 = bind('fsetxattr', 'iillli')
export const lsetxattr: Fn5 = bind('lsetxattr', 'illlli')
export const listxattr: Fn3 = bind('listxattr', 'llll')
export const llistxattr: Fn3 = bind('llistxattr', 'llll')
export const removexattr: Fn2 = bind('removexattr', 'ill')
export const lremovexattr: Fn2 = bind('lremovexattr', 'ill')

// The process and the thread
export const setfsuid: Fn1 = bind('setfsuid', 'uu')
export const setfsgid: Fn1 = bind('setfsgid', 'uu')
export const capget: Fn2 = bind('capget', 'ill')
export const capset: Fn2 = bind('capset', 'ill')
export const geteuid: () => number = bind('geteuid', 'u')
export const setsid: () => number = bind('setsid', 'i')
export const umask: Fn1 = bind('umask', 'uu')
export const getrlimit: Fn2 = bind('getrlimit', 'iil')
export const setrlimit: Fn2 = bind('setrlimit', 'iil')
export const schedYield: () => number = bind('sched_yield', 'i')
export const schedSetaffinity: Fn3 = bind('sched_setaffinity', 'iill')

// By number

export const syscall1: Fn2 = bind('syscall', 'lll')
export const syscall3: Fn4 = bind('syscall', 'lllll')
export const syscall4: Fn5 = bind('syscall', 'llllll')
export const syscall5: Fn6 = bind('syscall', 'lllllll')
export const syscall6: (nr: Num, a: Num, b: Num, c: Num, d: Num, e: Num, f: Num) => number = bind(
  'syscall',
  'llllllll',
)

// Rarely used calls with strings
type Async<A extends unknown[]> = ((...args: A) => number) & {
  async: (...args: [...A, (err: Error | null, result: number) => void]) => void
}
export const mount: (
  source: string | null,
  target: string,
  fstype: string | null,
  flags: number,
  data: number,
) => number = declare('mount', 'int', ['str', 'str', 'str', 'int64', 'int64'])
export const umount2: Async<[target: string, flags: number]> = declare('umount2', 'int', [
  'str',
  'int',
])

const errnoLocation: () => bigint = lib.func('__errno_location', 'void *', [])

/** This thread's errno. */
const errnoCell = new Int32Array(koffi.view(errnoLocation(), 4))

/**
 * Returns -errno as the Result of a call that has just returned -1. No other call may be made in
 * between.
 */
export const fail = (): number => -errnoCell[0]!

/**
 * The address of a buffer's memory; 0 for an empty buffer. It is slow; see `addressOf` in
 * scratch.ts.
 */
export const rawAddress = (buffer: ArrayBufferLike | ArrayBufferView): number =>
  Number(koffi.address(buffer))

/**
 * malloc_trim(3): returns unused memory to the system. musl has no such function and does not need
 * it.
 */
export const mallocTrim: Fn1 | null = (() => {
  try {
    return bind('malloc_trim', 'il')
  } catch {
    return null
  }
})()
