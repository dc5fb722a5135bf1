/** What the main thread and the union's thread tell each other. */

import { MountError } from '../errors.js'
import type { Logger, LogLevel } from '../log.js'
import type { ByteString } from '../overlay/ops.js'
import type { UnionOptions } from '../overlay/options.js'
import type { Compiled } from '../sys/code-cache.js'
import type { Answer } from '../overlay/namei/which.js'
import type { IoMode } from '../fuse/protocol/init.js'
import type { MountRequest, MountWay } from '../fuse/mount/mount.js'
import type { Tuning } from '../config/tuning.js'

/** Everything a union's thread needs to know. Can be sent to it. */
export interface ServeOptions {
  union: UnionOptions
  /** Absolute. */
  mountpoint: string
  way: MountWay
  /** `auto`: passthrough where it is possible, else cached. */
  io: 'auto' | IoMode
  /** The source that /proc/mounts shows. */
  fsname: string
  /** What it shows after `fuse.` as type. */
  subtype: string
  /** Let users other than the mounter in. */
  allowOther: boolean
  /** MS_* */
  mountFlags: number
  logLevel: LogLevel
  /** How long the kernel may cache names and attributes, in seconds. Default: a year. */
  timeout?: number
  tuning: Tuning
}

/**
 * To a union's thread, about the union of that number; each is followed by a signal on the thread's
 * `wakeFd`.
 */
export type ToThread = { union: number } & ToWorker

/** What a thread is started with. */
export interface ThreadData {
  /** Shared with the main thread: LOAD, LOAD_AT, HEAP. */
  load: Int32Array
  /** Shared by all threads of the process (overlay/layer/descriptor-budget.ts). */
  budgets: Int32Array
  /** The code that the engine has compiled is to be sent, where none is kept yet. */
  keeps: boolean
}

/** From it. */
export type FromThread =
  /** It has loaded its code: `wakeFd`, an eventfd, wakes its loop. */
  | { type: 'loaded'; wakeFd: number }
  /** It serves nothing any more, and nothing of the unions that have ended is under way. */
  | { type: 'idle' }
  | { type: 'compiled'; compiled: Compiled }
  | { type: 'union'; union: number; message: FromWorker }

/**
 * What a thread tells the main one in shared memory, by index: how busy it is, in thousandths, and
 * when it said so (ms of Date.now(), 32 bits).
 */
export const LOAD = 0
export const LOAD_AT = 1
/** What is taken of the heap that the engine gives the thread, in thousandths. */
export const HEAP = 2

/** An error that can be sent without losing what it says. */
export interface PlainError {
  mount: boolean
  message: string
  stack: string | undefined
  option: string | undefined
  path: string | undefined
  code: string | undefined
}

export const plainError = (error: unknown): PlainError => {
  const about = error instanceof MountError ? error : undefined
  return {
    mount: about !== undefined,
    message: error instanceof Error ? error.message : String(error),
    stack: error instanceof Error ? error.stack : undefined,
    option: about?.option,
    path: about?.path,
    code: about?.code,
  }
}

export const reviveError = (plain: PlainError): Error => {
  const { message, stack, option, path, code } = plain
  const error = plain.mount
    ? new MountError(message, {
        ...(option === undefined ? {} : { option }),
        ...(path === undefined ? {} : { path }),
        ...(code === undefined ? {} : { code }),
      })
    : new Error(message)
  if (stack !== undefined) error.stack = stack
  return error
}

/** From the union's thread, about one union. */
export type FromWorker =
  | { type: 'log'; level: keyof typeof levels; fields: Record<string, unknown>; message: string }
  /** The layers are open: fusermount3 is to mount. The answer is `device`. */
  | { type: 'mount'; request: MountRequest }
  /** There is a mount. `deviceFd`: of the connection, to be closed where the thread does not. */
  | { type: 'mounted'; deviceFd: number; device: string | undefined }
  /** INIT was answered: the mount is live. */
  | { type: 'ready'; io: IoMode }
  | { type: 'stats'; id: number; stats: Record<string, number> }
  | { type: 'explained'; id: number; answer: Answer }
  /** The end, all descriptors being closed; with `error` where it was none to be expected. */
  | { type: 'closed'; error?: PlainError }

/** To the union's thread, about one union. */
export type ToWorker =
  | { type: 'serve'; options: ServeOptions }
  | { type: 'stats'; id: number }
  /** Which layers serve a path: its names from the root on. */
  | { type: 'explain'; id: number; names: ByteString[] }
  | { type: 'stop' }
  /** What fusermount3 has mounted, or why it has not. */
  | { type: 'device'; fd: number }
  | { type: 'device'; error: PlainError }

const levels = { debug: 20, info: 30, warn: 40, error: 50 } as const
const thresholds: Record<LogLevel, number> = {
  trace: 10,
  ...levels,
  fatal: 60,
  silent: 100,
}

/** A logger whose lines are sent. Errors among the fields become text. */
export const remoteLogger = (level: LogLevel, send: (message: FromWorker) => void): Logger => {
  const threshold = thresholds[level]
  const method =
    (name: keyof typeof levels) =>
    (fields: Record<string, unknown>, message: string): void => {
      if (levels[name] >= threshold)
        send({ type: 'log', level: name, fields: plain(fields), message })
    }
  return {
    debug: method('debug'),
    info: method('info'),
    warn: method('warn'),
    error: method('error'),
    isLevelEnabled: asked => thresholds[asked] >= threshold,
  }
}

/** Fields that survive structured clone. */
const plain = (fields: Record<string, unknown>): Record<string, unknown> =>
  Object.fromEntries(
    Object.entries(fields).map(([key, value]) => [
      key,
      value instanceof Error
        ? (value.stack ?? value.message)
        : typeof value === 'function' || typeof value === 'symbol'
          ? String(value)
          : value,
    ]),
  )
