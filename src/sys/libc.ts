/**
 * The bindings: every C function this project calls, declared through koffi, and nothing else. Only
 * the files of src/sys use it; they add the policy (flags, retries, bounds, results as -errno).
 *
 * How to call through koffi, and why it is done so here. Measured with koffi 3.3.4, Node 20.20,
 * x64, ns per call:
 *
 *   a call without arguments 17, each argument about 6, getppid(2) 114 in all
 *   pointer parameter of memchr(3)    declared `void *`, given a Buffer              50
 *                                     declared `void *`, given a BigInt              38
 *                                     declared `int64`, given a number               35
 *                                     `void *`, given buf.subarray(a, b)             95
 *   statx(2) through Buffers 391, through addresses as numbers 353, through syscall(3) 357
 *   errno after a failed call: koffi.errno() 20, reading errno through a typed array 1
 *
 * So:
 * - Pointers are declared as `int64` and passed as numbers (user addresses are below 2^56: exact).
 *   The address of a buffer is asked once (scratch.ts), and a part of it is address + offset. Such
 *   an address says nothing to the garbage collector: see `addressOf` for what keeps it valid.
 * - errno is the thread's own cell, found with __errno_location() and mapped as an Int32Array when
 *   the module is loaded. Modules are instantiated per worker thread, and a koffi call runs on the
 *   thread that makes it, so it is the right cell. It is read only after a result of -1, at once.
 * - 64-bit parameters take JS numbers: koffi converts a double to int64 exactly up to 2^53. Offsets
 *   beyond that are bigints.
 * - Calls that one of the C libraries (glibc, musl) wraps in a surprising way, or that are too new
 *   for them, go through syscall(3) by number; it costs one argument more. Variadic functions
 *   (openat, ioctl, fcntl, syscall) are declared with fixed parameters: on x64 and arm64 Linux
 *   integer arguments of a variadic function are passed like any other.
 * - No parameter is a koffi string except on the cold paths of mount.ts.
 */

import { createRequire } from 'node:module'
import { loadKoffi } from './koffi.js'
import type { Off } from './types.js'

// Not by `import`, which would be done at the start of whatever file this is bundled into.
const koffi = loadKoffi(createRequire(import.meta.url))

declare global {
  // Node's own, undocumented but as old as Buffer; @types/node leaves them out. They spare the
  // look-up of the encoding in toString and write.
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

/** The C library is already in the process: its symbols are found there, be it glibc or musl. */
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
 * A test's hook: it is given each function of this file once, when the file is loaded, and what it
 * returns is called in its place, so that calls can be traced, delayed, failed or ended
 * (test/faults). `failWith` sets errno and gives the -1 of a failed call. Only code of the same
 * thread can set it; without one no call is wrapped.
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

/** Declares one function. `signature` is the letter of the result and those of the parameters. */
const bind = (name: string, signature: string): Declared => {
  const [result = 'int', ...params] = Array.from(signature, c => TYPES[c] ?? c)
  return declare(name, result, params)
}

// File descriptors and data
export const close: Fn1 = bind('close', 'ii')
export const read: Fn3 = bind('read', 'lill')
export const write: Fn3 = bind('write', 'lill')
/** Offsets that are no safe integers are bigints. */
export const pread: (fd: Num, buf: Num, length: Num, pos: Off) => number = bind('pread', 'lilll')
export const pwrite: (fd: Num, buf: Num, length: Num, pos: Off) => number = bind('pwrite', 'lilll')
export const writev: Fn3 = bind('writev', 'lili')
/** lseek(2). The only call whose result may leave the safe integers: koffi then gives a bigint. */
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
/** The same, to be called on another thread. */
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

// Cold, with strings
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

/** The Result of a call that has just returned -1: -errno. Nothing may be called in between. */
export const fail = (): number => -errnoCell[0]!

/**
 * The address of a buffer's memory; 0 for an empty one. About 40 ns: see `addressOf` in scratch.ts.
 */
export const rawAddress = (buffer: ArrayBufferLike | ArrayBufferView): number =>
  Number(koffi.address(buffer))

/** malloc_trim(3): gives unused memory back. The C library of musl has none, and needs none. */
export const mallocTrim: Fn1 | null = (() => {
  try {
    return bind('malloc_trim', 'il')
  } catch {
    return null
  }
})()
