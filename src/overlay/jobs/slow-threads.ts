/**
 * Threads for calls and tasks that may block in a layer's file system (sys/slow.ts). They are
 * separate from the pool, whose threads must stay available. A call is handed over in shared
 * memory. The union's thread waits a moment for the answer: most userspace file systems answer at
 * once, and the request need not be parked. Threads are started one at a time as needed. A call
 * without a free thread waits in a queue, and delays no other request.
 */

import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import { eventfdSignal } from '../../sys/io.js'
import { beginLoading, loading, awaitLoading } from '../../sys/loading.js'
import type { Logger } from '../../log.js'
import {
  ALIVE,
  REQUESTED,
  DONE,
  FAILED,
  IDLE,
  UNATTENDED,
  LIFE,
  OUT_SIZE,
  perform,
  Slot,
  STARTING,
  STATE,
  type SlowWork,
} from './slow-call.js'
import type { Result } from '../ops.js'
import { BUILT, entryPoint } from '../../sys/entry-points.js'

const ENTRY = entryPoint('overlay/jobs/worker')

/** Sets LIFE to FAILED if its modules can't be loaded. */
const START = `
  const { workerData } = require('node:worker_threads')
  const { entry, memory, wakeFd, loading } = workerData
  try {
    require(entry)
  } catch {
    Atomics.sub(loading, 0, 1)
    Atomics.notify(loading, 0)
    Atomics.store(new Int32Array(memory), ${LIFE}, ${FAILED})
    require('node:fs').writeSync(wakeFd, new BigUint64Array([1n]))
  }
`

const MAX_THREADS = 12
/** A thread that has not started after this time is given up, in milliseconds. */
const START_MS = BUILT ? 5000 : 60_000
/**
 * How long the union's thread waits for an answer before the request is parked, in milliseconds.
 */
const PATIENCE_MS = 1
/**
 * After an answer took longer, the union's thread does not wait for answers for this time, in
 * milliseconds.
 */
const BACKOFF_MS = 1000

interface Work {
  readonly text: string
  /** @param out the bytes of the answer, valid until the callback returns */
  readonly done: (result: Result, out: Buffer) => void
  readonly abandon: () => void
}

interface Thread {
  readonly worker: Worker
  readonly slot: Slot
  readonly deadline: number
  work: Work | null
}

const isDead = ({ slot: { cells }, deadline }: Thread): boolean => {
  const life = Atomics.load(cells, LIFE)
  return life === FAILED || (life === STARTING && performance.now() > deadline)
}

export class SlowThreads {
  readonly #log: Logger
  readonly #wakeFd: number
  readonly #threads: Thread[] = []
  readonly #queue: Work[] = []
  /** Calls and tasks that this thread must run. */
  readonly #inlineWork: Work[] = []
  /** No further thread can be started. */
  #failed = false
  #backoffUntil = 0
  #busy = 0

  /** @param wakeFd an eventfd that is signalled when an answer is available */
  constructor(log: Logger, wakeFd: number) {
    this.#log = log
    this.#wakeFd = wakeFd
    this.#startThread()
  }

  /** A recent answer took longer than PATIENCE_MS. */
  get isBackingOff(): boolean {
    return performance.now() < this.#backoffUntil
  }

  get pending(): number {
    return this.#queue.length + this.#inlineWork.length + this.#busy
  }

  /**
   * Runs a call or a task on a thread.
   *
   * @param patient whether to wait a moment for the answer; otherwise the answer comes only with
   *   `runCallbacks`
   * @param done runs on the union's thread, and within `run` if the answer came in time
   * @returns whether `done` has run
   */
  run(work: SlowWork, patient: boolean, done: Work['done'], abandon = (): void => {}): boolean {
    const one: Work = { text: JSON.stringify(work), done, abandon }
    if (this.#failed && this.#threads.length === 0) {
      if (patient) this.#runInline(one)
      else this.#deferInline(one)
      return patient
    }
    const thread = this.#threads.find(
      ({ work: busy, slot }) => busy === null && Atomics.load(slot.cells, LIFE) === ALIVE,
    )
    if (thread === undefined) {
      this.#queue.push(one)
      this.#startThread()
      return false
    }
    this.#assign(thread, one)
    const { cells } = thread.slot
    if (patient && !this.isBackingOff) {
      Atomics.wait(cells, STATE, REQUESTED, PATIENCE_MS)
      if (Atomics.load(cells, STATE) !== DONE) this.#backoffUntil = performance.now() + BACKOFF_MS
    }
    if (Atomics.compareExchange(cells, STATE, REQUESTED, UNATTENDED) !== DONE) return false
    if (patient) this.#finish(thread)
    else eventfdSignal(this.#wakeFd)
    return patient
  }

  #deferInline(work: Work): void {
    this.#inlineWork.push(work)
    eventfdSignal(this.#wakeFd)
  }

  #assign(thread: Thread, work: Work): void {
    const { slot } = thread
    thread.work = work
    this.#busy++
    slot.text = work.text
    Atomics.store(slot.cells, STATE, REQUESTED)
    Atomics.notify(slot.cells, STATE)
  }

  /** Assigns queued work to the thread. */
  #assignQueued(thread: Thread): void {
    const { cells } = thread.slot
    while (thread.work === null && Atomics.load(cells, LIFE) === ALIVE) {
      const next = this.#queue.shift()
      if (next === undefined) return
      this.#assign(thread, next)
      if (Atomics.compareExchange(cells, STATE, REQUESTED, UNATTENDED) !== DONE) return
      this.#finish(thread)
    }
  }

  /** The thread is free only after `done` has read the answer. */
  #finish(thread: Thread): void {
    const { work, slot } = thread
    this.#busy--
    try {
      work?.done(slot.result, slot.out)
    } finally {
      thread.work = null
      Atomics.store(slot.cells, STATE, IDLE)
    }
  }

  /** As `IoPool.runCallbacks`. */
  runCallbacks(): void {
    for (const work of this.#inlineWork.splice(0)) this.#runInline(work)
    const dead = this.#threads.findIndex(isDead)
    if (dead >= 0) {
      this.#threads.splice(dead, 1)
      this.#giveUp('a thread has not started in time')
    }
    // The callbacks may start further threads.
    const { length } = this.#threads
    for (let i = 0; i < length; i++) {
      const thread = this.#threads[i]!
      if (thread.work !== null && Atomics.load(thread.slot.cells, STATE) === DONE)
        this.#finish(thread)
    }
    for (const thread of this.#threads) this.#assignQueued(thread)
    if (this.#queue.length > 0) this.#startThread()
  }

  /** Starts at most one thread at a time, because it delays the union's thread. */
  #startThread(): void {
    const { length } = this.#threads
    if (length >= MAX_THREADS || this.#failed) return
    if (this.#threads.some(({ slot }) => Atomics.load(slot.cells, LIFE) === STARTING)) return
    const memory = Slot.memory()
    const workerData = { entry: fileURLToPath(ENTRY), memory, wakeFd: this.#wakeFd, loading }
    beginLoading()
    try {
      const worker = new Worker(BUILT ? START : ENTRY, { eval: BUILT, workerData })
      worker.unref()
      const deadline = performance.now() + START_MS
      this.#threads.push({ worker, slot: new Slot(memory), deadline, work: null })
    } catch (error) {
      Atomics.sub(loading, 0, 1)
      this.#giveUp(String(error))
    }
  }

  /** Starts no further threads. If none is left, the union's thread makes the calls itself. */
  #giveUp(error: string): void {
    if (!this.#failed) this.#log.error({ error }, 'no thread for a slow layer can be started')
    this.#failed = true
    if (this.#threads.length > 0) return
    for (const work of this.#queue.splice(0)) this.#deferInline(work)
  }

  #runInline(work: Work): void {
    const out = Buffer.allocUnsafeSlow(OUT_SIZE)
    work.done(perform(JSON.parse(work.text) as SlowWork, out), out)
  }

  /** Does not wait. Work that a thread is still doing is abandoned after the thread has ended. */
  close(): void {
    for (const { abandon } of [...this.#queue.splice(0), ...this.#inlineWork.splice(0)]) abandon()
    if (this.#threads.some(({ slot }) => Atomics.load(slot.cells, LIFE) === STARTING))
      awaitLoading()
    for (const { worker, work } of this.#threads) {
      const ended = worker.terminate()
      if (work !== null) void ended.then(work.abandon)
    }
    this.#threads.length = 0
  }
}
