/**
 * The hook in the union's libc binding (src/sys/libc.ts): it traces the calls of an operation,
 * makes one of them fail, delays each, or kills the process after one. It must be loaded before any
 * module of src.
 */

import type { SyscallHook } from '../../src/sys/libc.js'
import * as sys from '../helpers/syscalls.js'
import { killSelf } from './process.js'

/** One call of the union. */
export interface Traced {
  name: string
  /** Whether it may change stored data or metadata. */
  mutates: boolean
  /** The stack trace of the call. */
  stack: string
}

type Plan =
  | { do: 'nothing' }
  | { do: 'trace'; calls: Traced[] }
  | { do: 'fail'; left: number; errno: number; hit: Traced | null; trail: string[] }
  | { do: 'kill'; left: number }
  | { do: 'delay'; ms: number }

const arm = process.arch === 'arm64'
/** Calls that go through syscall(2). */
const BY_NUMBER: Record<number, string> = {
  [arm ? 61 : 217]: 'getdents64',
  [arm ? 33 : 259]: 'mknodat',
  [arm ? 276 : 316]: 'renameat2',
  [arm ? 291 : 332]: 'statx',
  428: 'open_tree',
  437: 'openat2',
  442: 'mount_setattr',
  452: 'fchmodat2',
  463: 'setxattrat',
  464: 'getxattrat',
  465: 'listxattrat',
  466: 'removexattrat',
}

/** The traced calls: those on files. Other calls can't fail, or do not belong to an operation. */
const COUNTED = new Set(
  `close read write pread pwrite writev lseek ftruncate truncate fallocate fsync fdatasync syncfs copy_file_range ioctl dup2
  dup3 fcntl flock splice openat mkdirat symlinkat linkat unlinkat readlinkat fchmod chmod fchownat utimensat fstatfs
  name_to_handle_at open_by_handle_at getxattr lgetxattr setxattr fsetxattr lsetxattr listxattr llistxattr removexattr
  lremovexattr ${Object.values(BY_NUMBER).join(' ')}`.split(/\s+/),
)

const MUTATING = new Set(
  `write pwrite writev ftruncate truncate fallocate copy_file_range splice mkdirat symlinkat linkat unlinkat fchmod chmod fchownat
  utimensat setxattr fsetxattr lsetxattr removexattr lremovexattr mknodat renameat2 fchmodat2 setxattrat removexattrat`.split(
    /\s+/,
  ),
)
const FS_IOC_SETFLAGS = 0x40086602
const FICLONE = 0x40049409
const F_DUPFD = 0
const F_DUPFD_CLOEXEC = 1030

const mutates = (name: string, args: number[]): boolean => {
  if (name === 'openat') return ((args[2] ?? 0) & (sys.O.CREAT | sys.O.TRUNC)) !== 0
  if (name === 'ioctl') return args[1] === FS_IOC_SETFLAGS || args[1] === FICLONE
  return MUTATING.has(name)
}

/** Whether a result is a new descriptor. */
const opens = (name: string, args: number[]): boolean =>
  name === 'openat' ||
  name === 'openat2' ||
  name === 'open_tree' ||
  name === 'eventfd' ||
  name === 'open_by_handle_at' ||
  (name === 'fcntl' && (args[1] === F_DUPFD || args[1] === F_DUPFD_CLOEXEC))

let plan: Plan = { do: 'nothing' }
/**
 * Whether layers get private mounts. Closing one takes the kernel longer than the rest of an
 * operation.
 */
let clonesMounts = true
export const cloneMounts = (on: boolean): void => void (clonesMounts = on)
const ENOSYS = 38
/** Open descriptors of unions. */
const descriptors = new Set<number>()

const nameOf = (name: string, args: number[]): string =>
  name === 'syscall' ? (BY_NUMBER[args[0] ?? -1] ?? name) : name

const stackHere = (): string =>
  (new Error().stack ?? '')
    .split('\n')
    .filter(line => line.includes('/src/'))
    .map(line =>
      line
        .trim()
        .replace(/^at (?:new )?(\S+) \(?file:.*\/src\//, '$1 ')
        .replace(/\)$/, ''),
    )
    .filter(line => !line.includes('sys/'))
    .slice(0, 10)
    .join(' < ')

/** Makes the call and records the descriptors that it opens and closes. */
const callAndTrack = (
  name: string,
  args: number[],
  call: (...args: number[]) => number,
): number => {
  if (name === 'close') descriptors.delete(args[0] ?? -1)
  if (name === 'dup3') descriptors.add(args[1] ?? -1)
  const result = call(...args)
  // No other libc call may follow, because errno has not been read yet.
  if (typeof result === 'number' && result >= 0 && opens(name, args)) descriptors.add(result)
  return result
}

type Call = (...args: number[]) => number

const intercept = (
  name: string,
  args: number[],
  call: Call,
  failWith: (errno: number) => -1,
): number => {
  const at = plan
  if (name === 'open_tree' && !clonesMounts) return failWith(ENOSYS)
  if (!COUNTED.has(name)) return callAndTrack(name, args, call)
  switch (at.do) {
    case 'nothing':
      return callAndTrack(name, args, call)
    case 'trace':
      at.calls.push({ name, mutates: mutates(name, args), stack: stackHere() })
      return callAndTrack(name, args, call)
    case 'delay':
      Atomics.wait(cell, 0, 0, at.ms)
      return callAndTrack(name, args, call)
    case 'fail': {
      if (at.left-- !== 0) {
        const result = callAndTrack(name, args, call)
        if (at.hit !== null) at.trail.push(`${name} ${result}`)
        return result
      }
      at.hit = { name, mutates: mutates(name, args), stack: stackHere() }
      // A failed close releases the descriptor, too.
      if (name === 'close') callAndTrack(name, args, call)
      return failWith(at.errno)
    }
    case 'kill': {
      const result = callAndTrack(name, args, call)
      if (mutates(name, args) && at.left-- === 0) killSelf()
      return result
    }
  }
}

const cell = new Int32Array(new SharedArrayBuffer(4))

const hook: SyscallHook = (name, call, failWith) => {
  const plain = call as unknown as Call
  const wrapped = (...args: number[]): number =>
    intercept(nameOf(name, args), args, plain, failWith)
  return Object.assign(wrapped, { async: call.async }) as unknown as typeof call
}

;(globalThis as { [key: symbol]: unknown })[Symbol.for('tsoverlay.syscalls')] = hook

/** Runs `use` and traces its calls. */
export const traced = async <T>(use: () => Promise<T>): Promise<{ result: T; calls: Traced[] }> => {
  const calls: Traced[] = []
  plan = { do: 'trace', calls }
  try {
    return { result: await use(), calls }
  } finally {
    plan = { do: 'nothing' }
  }
}

/**
 * Runs `use`, in which call number `n`, counted from 0, fails with `errno`. `hit` is null if there
 * are fewer calls.
 *
 * @returns also the `trail`: the calls after the failed one
 */
export const failing = async <T>(
  n: number,
  errno: number,
  use: () => Promise<T>,
): Promise<{ result: T; hit: Traced | null; trail: string }> => {
  const trail: string[] = []
  const failure = { do: 'fail' as const, left: n, errno, hit: null as Traced | null, trail }
  plan = failure
  try {
    const result = await use()
    return { result, hit: failure.hit, trail: trail.join() }
  } finally {
    plan = { do: 'nothing' }
  }
}

/** Kills this process with SIGKILL after mutating call number `n`, counted from 0. */
export const killAfter = (n: number): void => void (plan = { do: 'kill', left: n })

/** Runs `use` with each call delayed. */
export const delayed = async <T>(ms: number, use: () => Promise<T>): Promise<T> => {
  plan = { do: 'delay', ms }
  try {
    return await use()
  } finally {
    plan = { do: 'nothing' }
  }
}

/**
 * Closes the descriptors that unions have left open.
 * @returns their number
 */
export const closeLeaked = (): number => {
  const left = descriptors.size
  for (const fd of descriptors) sys.close(fd)
  descriptors.clear()
  return left
}
