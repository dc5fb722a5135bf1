/**
 * The threads of unions. A thread can be started before the options are known, because its start
 * and the loading of its code take longer than the parsing. A thread serves one union, or several
 * that allow sharing. A thread without a union is kept for the next one: its code is already
 * optimized, and the foreign-function library never frees the memory that it maps for a thread.
 */

import { writeSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { Worker } from 'node:worker_threads'
import { MountError } from '../errors.js'
import { RESERVED, reservedBy, THREADS } from '../overlay/layer/descriptor-budget.js'
import type { UnionOptions } from '../overlay/options.js'
import { keep } from '../sys/code-cache.js'
import { beginLoading, awaitLoading } from '../sys/loading.js'
import {
  HEAP,
  LOAD,
  LOAD_AT,
  SLEEPS,
  SLEEPS_AT,
  type FromThread,
  type FromWorker,
  type ThreadData,
  type ToWorker,
} from './messages.js'
import { entryPoint } from '../sys/entry-points.js'

const entry = entryPoint('server/worker-main')

/**
 * Heap size for new objects, in MiB. A request allocates almost no objects, so few survive. With
 * the engine's default (48), an idle server would keep that memory.
 */
const YOUNG_MB = 3

/**
 * A thread with a higher load, in thousandths, gets no further union if another thread is
 * available.
 */
const BUSY = 500
/** Age at which a load value is ignored, in milliseconds: only a thread that sleeps updates it. */
const STALE_MS = 2000
/** A thread that has slept for so many milliseconds has nothing to do. */
const REST_MS = 100

/** As `ThreadData.load`: a thread that has not begun sleeps. */
const loadMemory = (): Int32Array => {
  const memory = new Int32Array(new SharedArrayBuffer(5 * Int32Array.BYTES_PER_ELEMENT))
  memory[SLEEPS] = 1
  return memory
}

/** The value that is written to an eventfd. */
const ONE = new Uint8Array(BigUint64Array.of(1n).buffer)

/** Receives the messages of a union. */
export interface UnionListener {
  receive(message: FromWorker): void
  /** The thread has ended; `error` is set if it died of one. */
  died(code: number, error: Error | undefined): void
}

/** The threads of the process that serve unions, and what they share. */
class ThreadPool {
  readonly threads = new Set<UnionThread>()
  /**
   * Indexed by THREADS and RESERVED. From these each thread computes its share of the descriptors
   * (overlay/layer/descriptor-budget.ts).
   */
  readonly budgets = new Int32Array(new SharedArrayBuffer(8))
  nextUnion = 1

  /**
   * If the counter grows, the threads are woken up: those above their new share close descriptors.
   */
  count(index: number, more: number): void {
    Atomics.add(this.budgets, index, more)
    if (more > 0) for (const thread of this.threads) thread.wake()
  }
}

/**
 * The built program consists of several files, and each has a copy of this module. So the pool is
 * that of the thread which another file has started early (`threadFor`).
 */
let pool = new ThreadPool()

/** The number of descriptors that the unions of this process hold for their whole life. */
export const descriptorsHeld = (): number => Atomics.load(pool.budgets, RESERVED)

/** The used share (0 to 1) of the heap of the thread whose heap is fullest. */
export const heapTaken = (): number => Math.max(0, ...[...pool.threads].map(({ heap }) => heap))

/** The number of a union's layers. A union holds descriptors for each. */
const layersOf = ({ lower, upper }: UnionOptions): number =>
  lower.length + (upper === undefined ? 0 : 1)

interface Served {
  listener: UnionListener
  /** Number of descriptors. */
  held: number
}

let watchesExit = false

export class UnionThread {
  readonly pool = pool
  readonly #worker: Worker
  readonly #load = loadMemory()
  readonly #unions = new Map<number, Served>()
  #wakeFd = -1
  #error: Error | undefined
  /** It is reserved for an early caller, or a task of an ended union is still running. */
  #reserved = false
  /** It may serve several unions. */
  shared = false

  /**
   * @param keeps its compiled code goes into the code cache (sys/code-cache.ts)
   * @throws {MountError} EAGAIN: the process may not start another thread
   */
  constructor(keeps = false) {
    // Exiting while a thread loads the library would abort the process. That includes threads that
    // the process does not wait for.
    if (!watchesExit) process.on('exit', () => void awaitLoading())
    watchesExit = true
    try {
      this.#worker = new Worker(entry, {
        name: 'union',
        workerData: { load: this.#load, budgets: this.pool.budgets, keeps } satisfies ThreadData,
        resourceLimits: { maxYoungGenerationSizeMb: YOUNG_MB },
      })
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error)
      throw new MountError(
        `the union's thread can't be started: ${why} (the limit of processes and threads: ulimit -u, or pids.max of the cgroup)`,
        { code: 'EAGAIN' },
      )
    }
    beginLoading()
    this.pool.threads.add(this)
    this.#worker.on('error', (error: Error) => {
      this.#error = error
    })
    this.#worker.on('exit', code => {
      this.pool.threads.delete(this)
      for (const [union, { listener }] of this.#unions) {
        this.#forget(union)
        listener.died(code, this.#error)
      }
    })
    this.#worker.on('message', (message: FromThread) => this.#receive(message))
  }

  #receive(message: FromThread): void {
    if (message.type === 'loaded') {
      this.#wakeFd = message.wakeFd
      // Messages sent before are in its queue.
      this.wake()
    } else if (message.type === 'compiled') {
      void keep(message.compiled)
    } else if (message.type === 'idle') {
      this.#reserved = false
    } else {
      const served = this.#unions.get(message.union)
      if (message.message.type === 'closed') this.#forget(message.union)
      served?.listener.receive(message.message)
    }
  }

  #forget(union: number): void {
    const served = this.#unions.get(union)
    if (served === undefined) return
    this.#unions.delete(union)
    this.pool.count(RESERVED, -served.held)
    if (this.#unions.size > 0) return
    this.pool.count(THREADS, -1)
    this.#worker.unref()
  }

  /** Whether it was busy for most of the last seconds, for a union that it still serves. */
  get busy(): boolean {
    if (this.#unions.size === 0) return false
    const now = Date.now() | 0
    const age = (index: number): number => (now - Atomics.load(this.#load, index)) | 0
    if (Atomics.load(this.#load, SLEEPS) === 1 && age(SLEEPS_AT) > REST_MS) return false
    // A thread that never sleeps reports no load.
    if (age(LOAD_AT) >= STALE_MS) return Atomics.load(this.#load, SLEEPS) === 0
    return Atomics.load(this.#load, LOAD) > BUSY
  }

  /** The used share of its heap limit, from 0 to 1. */
  get heap(): number {
    return Atomics.load(this.#load, HEAP) / 1000
  }

  get size(): number {
    return this.#unions.size
  }

  get free(): boolean {
    return this.#unions.size === 0 && !this.#reserved
  }

  /** Reserves the thread for the caller. */
  reserve(): this {
    this.#reserved = true
    return this
  }

  get isAlive(): boolean {
    return this.pool.threads.has(this)
  }

  /** Has the thread serve a union. Returns the number that identifies the union in messages. */
  serve(message: ToWorker & { type: 'serve' }, listener: UnionListener): number {
    const union = this.pool.nextUnion++
    const held = reservedBy(layersOf(message.options.union))
    if (this.#unions.size === 0) this.pool.count(THREADS, 1)
    this.pool.count(RESERVED, held)
    this.#unions.set(union, { listener, held })
    this.#reserved = true
    this.#worker.ref()
    this.send(union, message)
    return union
  }

  send(union: number, message: ToWorker): void {
    this.#worker.postMessage({ union, ...message })
    this.wake()
  }

  /**
   * Has the thread fetch its messages and recompute its share of descriptors. Writes to the eventfd
   * without the foreign-function library, which this thread may not have loaded yet.
   */
  wake(): void {
    if (this.#wakeFd < 0) return
    try {
      writeSync(this.#wakeFd, ONE)
    } catch {
      // EAGAIN: it is signalled already.
    }
  }

  async terminate(): Promise<void> {
    awaitLoading()
    await this.#worker.terminate()
  }
}

/**
 * Starts a thread in advance, for `threadFor`.
 * @throws {MountError} no thread can be started
 */
export const startEarly = (): UnionThread => new UnionThread(true).reserve()

/**
 * A thread for several unions: the thread with the fewest unions that is not busy, or a new thread
 * if there are fewer threads than processors.
 */
const sharedThread = (): UnionThread => {
  const shared = [...pool.threads].filter(thread => thread.shared)
  const fewest = (some: UnionThread[]): UnionThread | undefined =>
    some.reduce<UnionThread | undefined>(
      (a, b) => (a === undefined || b.size < a.size ? b : a),
      undefined,
    )
  const quiet = fewest(shared.filter(thread => !thread.busy))
  if (quiet !== undefined) return quiet
  if (shared.length > 0 && shared.length >= availableParallelism()) return fewest(shared)!
  return [...pool.threads].find(thread => thread.free) ?? new UnionThread()
}

/**
 * A thread that serves a union: the thread that was started early, if it is alive, or an idle one,
 * or a new one.
 * @param share the thread may serve other unions, too; no layer may be on one of these
 * @throws {MountError} no thread can be started
 */
export const threadFor = (early: UnionThread | undefined, share: boolean): UnionThread => {
  if (early !== undefined) ({ pool } = early)
  const own = early?.isAlive === true ? early : undefined
  const thread =
    own ??
    (share
      ? sharedThread()
      : ([...pool.threads].find(one => one.free && !one.shared) ?? new UnionThread()))
  thread.shared = share
  return thread
}
