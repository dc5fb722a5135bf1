/**
 * Work that may take long (the data of a copy-up, fsync) on threads of its own, so that the union's
 * thread goes on with other requests. A thread gets descriptors and numbers, and answers with a result;
 * it never sees a node.
 *
 * Where no thread comes to life (the program's files were replaced or removed under a server that lives, or the
 * process has no descriptors left), the union's thread does the work: slower, but nobody waits for ever.
 */

import { fileURLToPath } from 'node:url'
import { MessageChannel, Worker, receiveMessageOnPort, type MessagePort } from 'node:worker_threads'
import { eventfd, eventfdDrain, eventfdSignal, close } from '../sys/io.js'
import { begin, end, loading, settle } from '../sys/loading.js'
import type { Logger } from '../log.js'
import {
  ALIVE,
  GIVEN_UP,
  giveUp,
  isStarting,
  STARTING,
  startCell,
  type StartCell,
} from './io-start.js'
import { runTask, type IoTask } from './io-task.js'
import type { Job, Result } from './ops.js'

export interface IoRequest {
  id: number
  task: IoTask
}

export interface IoAnswer {
  id: number
  result: Result
  /** A fault of the program. */
  error?: string
}

/**
 * What a thread does first (io-start.ts:comesAlive), without a file: where its own can't be loaded it says so. It is alive before it loads
 * anything, so that one which is not can be given up at once.
 */
const START = `
  const { workerData } = require('node:worker_threads')
  const { entry, port, wakeFd, loading, start } = workerData
  if (Atomics.compareExchange(start, 0, ${STARTING}, ${ALIVE}) !== ${GIVEN_UP}) {
    try {
      require(entry)
    } catch (error) {
      Atomics.sub(loading, 0, 1)
      Atomics.notify(loading, 0)
      port.postMessage({ failed: String(error) })
      require('node:fs').writeSync(wakeFd, new BigUint64Array([1n]))
    }
  }
`

const THREADS = 2

/** A loader that runs the sources themselves does so for files only; and such a thread is alive when all is loaded. */
const BUILT = !import.meta.url.endsWith('.ts')
const ENTRY = new URL(`../overlay/io-worker.${BUILT ? 'cjs' : 'ts'}`, import.meta.url)

/** A thread is given up that is not alive after so many milliseconds. */
const START_MS = BUILT ? 5000 : 60_000
/** Where one was, or could not load its files, none is started for so long. */
const RETRY_MS = 60_000

class PoolJob implements Job {
  readonly #callbacks: ((result: Result) => void)[] = []
  #result: Result | undefined

  onDone(callback: (result: Result) => void): void {
    if (this.#result === undefined) this.#callbacks.push(callback)
    else callback(this.#result)
  }

  finish(result: Result): void {
    this.#result = result
    for (const callback of this.#callbacks) callback(result)
  }
}

interface Thread {
  worker: Worker
  port: MessagePort
  start: StartCell
  /** When it is given up, unless it has come to life. */
  until: number
  busy: number
  /** How many of those are messages to the kernel. */
  telling: number
}

/** False: it has come to life. What was given up loads nothing; where it is a file of its own, it has done so by then. */
const disown = ({ start }: Thread): boolean => {
  if (!giveUp(start)) return false
  if (BUILT) end()
  return true
}

interface Running {
  task: IoTask
  /** Null: the union's own. */
  thread: Thread | null
  job: PoolJob
  finish: (result: Result) => Result
  abandon: () => void
}

export class IoPool {
  /** Readable when an answer waits. */
  readonly wakeFd: number
  readonly #log: Logger
  readonly #threads = new Set<Thread>()
  readonly #running = new Map<number, Running>()
  readonly #startMs: number
  #nextId = 1
  /** No thread is started before. */
  #retryAt = 0
  #closed = false

  /** @param startMs how long a thread may take to come to life */
  constructor(log: Logger, startMs = START_MS) {
    this.#log = log
    this.#startMs = startMs
    this.wakeFd = eventfd()
  }

  /** Starts a thread before there is a task for it: that takes some tens of milliseconds. */
  start(): void {
    this.#pick()
  }

  /**
   * Hands a task to a thread.
   *
   * @param finish runs on the union's thread when the task is done; what it returns is the job's result
   * @param abandon runs instead where the union is closed before: lets go of the task's descriptors
   */
  submit(
    task: IoTask,
    finish: (result: Result) => Result = result => result,
    abandon: () => void = () => {},
  ): Job {
    const id = this.#nextId++
    const job = new PoolJob()
    const telling = task.kind === 'write'
    const thread = this.#pick(telling)
    this.#running.set(id, { task, thread, job, finish, abandon })
    if (thread === null) {
      eventfdSignal(this.wakeFd)
    } else {
      thread.busy++
      if (telling) thread.telling++
      thread.port.postMessage({ id, task } satisfies IoRequest)
    }
    return job
  }

  /**
   * Runs what is due for every answer that has come. Called when `wakeFd` is readable; and while something is pending
   * also now and then, since a thread that does not come to life says nothing.
   */
  runCallbacks(): void {
    eventfdDrain(this.wakeFd)
    // No loop here: the engine compiles this while there are no threads yet, and would do so again for the first one.
    this.#threads.forEach(this.#attend)
    this.#runHere()
  }

  readonly #attend = (thread: Thread): void => {
    this.#take(thread)
    if (isStarting(thread.start)) this.#loseLate(thread)
  }

  #take(thread: Thread): void {
    for (;;) {
      const received = receiveMessageOnPort(thread.port)
      if (received === undefined) break
      const message = received.message as IoAnswer | { failed: string }
      if ('failed' in message) {
        this.#lose(thread, message.failed)
        break
      }
      if (message.error !== undefined)
        this.#log.error({ error: message.error }, 'a fault of the program')
      thread.busy--
      if (this.#running.get(message.id)?.task.kind === 'write') thread.telling--
      this.#finish(message.id, message.result)
    }
  }

  #finish(id: number, result: Result): void {
    const running = this.#running.get(id)
    this.#running.delete(id)
    if (running !== undefined) running.job.finish(running.finish(result))
  }

  #runHere(): void {
    for (const [id, { task, thread }] of this.#running) {
      if (thread === null) this.#finish(id, runTask(task))
    }
  }

  #loseLate(thread: Thread): void {
    if (performance.now() < thread.until || !disown(thread)) return
    this.#lose(thread, `it has not come to life within ${this.#startMs} ms`)
  }

  /** What it was to do is left to `runHere`. */
  #lose(thread: Thread, error: string): void {
    if (!this.#threads.delete(thread)) return
    this.#log.error({ error }, 'no thread for input and output can be started')
    thread.port.close()
    this.#retryAt = performance.now() + RETRY_MS
    for (const running of this.#running.values()) {
      if (running.thread === thread) running.thread = null
    }
  }

  /**
   * Waits for no task. A thread in the middle of one ends when that is done; only then are the
   * descriptors that it uses closed, lest their numbers mean other files by then.
   */
  close(): void {
    this.#closed = true
    const abandoned = [...this.#running.values()]
    const letGo = (): void => {
      for (const { abandon } of abandoned) abandon()
      close(this.wakeFd)
    }
    // One that is not alive need not be waited for.
    const threads = [...this.#threads]
    const loads = threads.filter(thread => !BUILT || !disown(thread))
    if (loads.length > 0) settle()
    const ended = threads.map(({ worker, port }) => {
      port.close()
      if (abandoned.length > 0) worker.ref()
      return worker.terminate()
    })
    this.#threads.clear()
    this.#running.clear()
    if (abandoned.length === 0) letGo()
    else void Promise.all(ended).then(letGo)
  }

  get pending(): number {
    return this.#running.size
  }

  /**
   * Null: there is none, and none can be started. A message to the kernel waits for requests of the kernel, which may
   * wait for other tasks (data written back to a file that is copied up for it): no such task is put behind one, so all
   * messages go to one thread.
   */
  #pick(telling = false): Thread | null {
    const threads = [...this.#threads]
    const teller = threads.find(thread => thread.telling > 0)
    if (telling && teller !== undefined) return teller
    const idle = threads.find(thread => thread.busy === 0)
    if (idle !== undefined) return idle
    const others = threads.filter(thread => thread !== teller)
    if (others.length < THREADS && performance.now() >= this.#retryAt) {
      const thread = this.#startThread()
      if (thread !== null) return thread
    }
    return others.reduce<Thread | null>((a, b) => (a === null || b.busy < a.busy ? b : a), null)
  }

  #startThread(): Thread | null {
    const { port1, port2 } = new MessageChannel()
    const start = startCell()
    let worker
    begin()
    try {
      worker = new Worker(BUILT ? START : ENTRY, {
        eval: BUILT,
        workerData: {
          entry: fileURLToPath(ENTRY),
          port: port2,
          wakeFd: this.wakeFd,
          loading,
          start,
        },
        transferList: [port2],
      })
    } catch (error) {
      end()
      port1.close()
      this.#log.error({ error: String(error) }, 'no thread for input and output can be started')
      this.#retryAt = performance.now() + RETRY_MS
      return null
    }
    worker.unref()
    const until = performance.now() + this.#startMs
    const thread = { worker, port: port1, start, until, busy: 0, telling: 0 }
    // Heard only where an event loop turns.
    worker.on('error', error => this.#died(thread, error))
    this.#threads.add(thread)
    return thread
  }

  #died(thread: Thread, error: Error): void {
    if (this.#closed) return
    this.#log.error({ stack: error.stack }, 'a thread for input and output died')
    disown(thread)
    this.#lose(thread, String(error))
    eventfdSignal(this.wakeFd)
  }
}
