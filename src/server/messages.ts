/** Messages between the main thread and the union's thread. */

import { MountError } from '../errors.js'
import type { Logger, LogLevel } from '../log.js'
import type { ByteString } from '../overlay/ops.js'
import type { UnionOptions } from '../overlay/options.js'
import type { Compiled } from '../sys/code-cache.js'
import type { Answer } from '../overlay/namei/which.js'
import type { IoMode } from '../fuse/protocol/init.js'
import type { MountRequest, MountWay } from '../fuse/mount/request.js'
import type { Tuning } from '../config/tuning.js'

/** Everything that a union's thread needs to know. Structured clone can copy it. */
export interface ServeOptions {
  union: UnionOptions
  /** An absolute path. */
  mountpoint: string
  way: MountWay
  /** `auto`: passthrough if possible, else cached. */
  io: 'auto' | IoMode
  /** The source that /proc/mounts shows. */
  fsname: string
  /** The type that it shows after `fuse.`. */
  subtype: string
  /** Other users than the mounter have access. */
  allowOther: boolean
  /** MS_* */
  mountFlags: number
  logLevel: LogLevel
  /** How long the kernel may cache names and attributes, in seconds. Default: a year. */
  timeout?: number
  tuning: Tuning
}

/**
 * To a union's thread, about the union of that number. The sender signals the thread's `wakeFd`
 * after each message.
 */
export type ToThread = { union: number } & ToWorker

/** The data that a thread is started with. */
export interface ThreadData {
  /** Shared with the main thread: LOAD to SLEEPS_AT. */
  load: Int32Array
  /** Shared by all threads of the process (overlay/layer/descriptor-budget.ts). */
  budgets: Int32Array
  /** The thread sends the compiled code, if the code cache is empty. */
  keeps: boolean
}

/** From a union's thread. */
export type FromThread =
  /** The thread has loaded its code. `wakeFd` is an eventfd that wakes its loop. */
  | { type: 'loaded'; wakeFd: number }
  /** The thread serves no union, and no task of ended unions is running. */
  | { type: 'idle' }
  | { type: 'compiled'; compiled: Compiled }
  | { type: 'union'; union: number; message: FromWorker }

/**
 * Indices of the memory that the thread shares with the main thread: its load in thousandths, and
 * the time of that value (ms of Date.now(), 32 bits).
 */
export const LOAD = 0
export const LOAD_AT = 1
/** The used share of the thread's heap limit, in thousandths. */
export const HEAP = 2
/** 1 while the thread waits for the next event, else 0, and the time of the last change. */
export const SLEEPS = 3
export const SLEEPS_AT = 4

/** An error in a form that survives structured clone completely. */
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
  /** The layers are open: fusermount3 must mount now. The answer is `device`. */
  | { type: 'mount'; request: MountRequest }
  /**
   * The mount exists. `deviceFd` is the connection's descriptor; the main thread closes it if the
   * thread dies.
   */
  | { type: 'mounted'; deviceFd: number; device: string | undefined }
  /** INIT was answered: the mount is live. */
  | { type: 'ready'; io: IoMode }
  | { type: 'stats'; id: number; stats: Record<string, number> }
  | { type: 'explained'; id: number; answer: Answer }
  /** The union has ended and closed all descriptors; `error` is set if the end was unexpected. */
  | { type: 'closed'; error?: PlainError }

/** To the union's thread, about one union. */
export type ToWorker =
  | { type: 'serve'; options: ServeOptions }
  | { type: 'stats'; id: number }
  /** Asks which layers serve a path, given as its names from the root on. */
  | { type: 'explain'; id: number; names: ByteString[] }
  | { type: 'stop' }
  /** The connection that fusermount3 has mounted, or its error. */
  | { type: 'device'; fd: number }
  | { type: 'device'; error: PlainError }

const levels = { debug: 20, info: 30, warn: 40, error: 50 } as const
const thresholds: Record<LogLevel, number> = {
  trace: 10,
  ...levels,
  fatal: 60,
  silent: 100,
}

/** A logger that sends its lines to the main thread. Errors among the fields become text. */
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

/** Converts fields so that structured clone can copy them. */
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
