/**
 * The threads of unions. One can be started before anybody knows what it is to serve, since to
 * start a thread and load its code takes longer than to find that out. A thread serves one union,
 * or several that agreed to share it; one that serves nothing any more is kept for the next union:
 * its code is warm, and the foreign-function library never gives back what it maps for a thread.
 */

import { writeSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { Worker } from 'node:worker_threads'
import { MountError } from '../errors.js'
import { HELD, heldBy, THREADS } from '../overlay/layer/descriptor-budget.js'
import type { UnionOptions } from '../overlay/options.js'
import { keep } from '../sys/code-cache.js'
import { begin, settle } from '../sys/loading.js'
import {
  HEAP,
  LOAD,
  LOAD_AT,
  type FromThread,
  type FromWorker,
  type ThreadData,
  type ToWorker,
} from './messages.js'
import { entryPoint } from '../sys/entry-points.js'

const entry = entryPoint('server/worker-main')

/**
 * For objects that are new, in MiB: few live on, since almost nothing is made for a request, and
 * what the engine takes by default (48) stays with a server that is idle.
 */
const YOUNG_MB = 3

/**
 * A thread that is busier than so many thousandths gets no further union where another thread can
 * be had.
 */
const BUSY = 500
/** A word about that holds for so long, in milliseconds: a thread that sleeps says nothing. */
const STALE_MS = 2000

/** What is added to an eventfd. */
const ONE = new Uint8Array(BigUint64Array.of(1n).buffer)

/** What hears of a union. */
export interface UnionListener {
  hear(message: FromWorker): void
  /** The thread has ended, of an error where there is one. */
  lost(code: number, error: Error | undefined): void
}

const threads = new Set<UnionThread>()

/**
 * By index, THREADS and HELD: from these each thread knows what is its own part
 * (overlay/layer/descriptor-budget.ts).
 */
const budgets = new Int32Array(new SharedArrayBuffer(8))

/** Threads that have more than their part by now give it back. */
const count = (index: number, more: number): void => {
  Atomics.add(budgets, index, more)
  if (more > 0) for (const thread of threads) thread.wake()
}

/** How many descriptors the unions of this process need as long as they live. */
export const descriptorsHeld = (): number => Atomics.load(budgets, HELD)

/** What is taken of the heap of the thread that has the least left of it, 1 being all. */
export const heapTaken = (): number => Math.max(0, ...[...threads].map(({ heap }) => heap))

/** Of a union: its directories, for which it has descriptors. */
const layersOf = ({ lower, upper }: UnionOptions): number =>
  lower.length + (upper === undefined ? 0 : 1)

interface Served {
  listener: UnionListener
  /** Descriptors. */
  held: number
}

let watchesExit = false
let nextUnion = 1

export class UnionThread {
  readonly #worker: Worker
  readonly #load = new Int32Array(new SharedArrayBuffer(12))
  readonly #unions = new Map<number, Served>()
  #wakeFd = -1
  #error: Error | undefined
  /** It waits for an early caller, or something of a union that has ended is still under way. */
  #taken = false
  /** Several unions may be served. */
  shared = false

  /**
   * @param keeps its compiled code is kept for others (sys/code-cache.ts)
   * @throws {MountError} EAGAIN: the process gets no further thread
   */
  constructor(keeps = false) {
    // A process that ends while a thread loads the library would be aborted. Also a thread that
    // nobody waits for may do so.
    if (!watchesExit) process.on('exit', () => void settle())
    watchesExit = true
    try {
      this.#worker = new Worker(entry, {
        name: 'union',
        workerData: { load: this.#load, budgets, keeps } satisfies ThreadData,
        resourceLimits: { maxYoungGenerationSizeMb: YOUNG_MB },
      })
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error)
      throw new MountError(
        `the union's thread can't be started: ${why} (the limit of processes and threads: ulimit -u, or pids.max of the cgroup)`,
        { code: 'EAGAIN' },
      )
    }
    begin()
    threads.add(this)
    this.#worker.on('error', (error: Error) => {
      this.#error = error
    })
    this.#worker.on('exit', code => {
      threads.delete(this)
      for (const [union, { listener }] of this.#unions) {
        this.#forget(union)
        listener.lost(code, this.#error)
      }
    })
    this.#worker.on('message', (message: FromThread) => this.#hear(message))
  }

  #hear(message: FromThread): void {
    if (message.type === 'loaded') {
      this.#wakeFd = message.wakeFd
      // What was sent before lies in its queue.
      this.wake()
    } else if (message.type === 'compiled') {
      void keep(message.compiled)
    } else if (message.type === 'idle') {
      this.#taken = false
    } else {
      const served = this.#unions.get(message.union)
      if (message.message.type === 'closed') this.#forget(message.union)
      served?.listener.hear(message.message)
    }
  }

  #forget(union: number): void {
    const served = this.#unions.get(union)
    if (served === undefined) return
    this.#unions.delete(union)
    count(HELD, -served.held)
    if (this.#unions.size > 0) return
    count(THREADS, -1)
    this.#worker.unref()
  }

  /** Whether it is busy: of the last second or so. */
  get busy(): boolean {
    const at = Atomics.load(this.#load, LOAD_AT)
    return (Date.now() | 0) - at < STALE_MS && Atomics.load(this.#load, LOAD) > BUSY
  }

  /** What is taken of its heap, 1 being all that it can have. */
  get heap(): number {
    return Atomics.load(this.#load, HEAP) / 1000
  }

  get size(): number {
    return this.#unions.size
  }

  get free(): boolean {
    return this.#unions.size === 0 && !this.#taken
  }

  /** It is kept for whoever has it. */
  take(): this {
    this.#taken = true
    return this
  }

  get isAlive(): boolean {
    return threads.has(this)
  }

  /** Has it serve a union. The number by which the union is told something. */
  serve(message: ToWorker & { type: 'serve' }, listener: UnionListener): number {
    const union = nextUnion++
    const held = heldBy(layersOf(message.options.union))
    if (this.#unions.size === 0) count(THREADS, 1)
    count(HELD, held)
    this.#unions.set(union, { listener, held })
    this.#taken = true
    this.#worker.ref()
    this.tell(union, message)
    return union
  }

  tell(union: number, message: ToWorker): void {
    this.#worker.postMessage({ union, ...message })
    this.wake()
  }

  /**
   * Has it look for messages, and at what its part is. By eventfd(2), without the foreign-function
   * library, which this thread may not have loaded yet.
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
    settle()
    await this.#worker.terminate()
  }
}

/**
 * A thread for `threadFor`.
 * @throws {MountError} there is none
 */
export const startEarly = (): UnionThread => new UnionThread(true).take()

/**
 * One that several unions share: the one with the fewest that is not busy, or a new one while there
 * are processors left.
 */
const sharedThread = (): UnionThread => {
  const shared = [...threads].filter(thread => thread.shared)
  const fewest = (some: UnionThread[]): UnionThread | undefined =>
    some.reduce<UnionThread | undefined>(
      (a, b) => (a === undefined || b.size < a.size ? b : a),
      undefined,
    )
  const quiet = fewest(shared.filter(thread => !thread.busy))
  if (quiet !== undefined) return quiet
  if (shared.length > 0 && shared.length >= availableParallelism()) return fewest(shared)!
  return [...threads].find(thread => thread.free) ?? new UnionThread()
}

/**
 * A thread that serves a union: the one that was started early, if it lives, or one that is idle,
 * or a new one.
 * @param share it may serve others, too: nothing of the union can wait for one of those
 * @throws {MountError} there is none
 */
export const threadFor = (early: UnionThread | undefined, share: boolean): UnionThread => {
  const own = early?.isAlive === true ? early : undefined
  const thread =
    own ??
    (share
      ? sharedThread()
      : ([...threads].find(one => one.free && !one.shared) ?? new UnionThread()))
  thread.shared = share
  return thread
}
