/**
 * Work that may take long (the data of a copy-up, fsync) on threads of its own, so that the union's
 * thread goes on with other requests. A thread gets descriptors and numbers, and answers with a result;
 * it never sees a node.
 *
 * Where no thread can be started (the program's files were replaced or removed under a server that lives), the
 * union's thread does the work: slower, but nobody waits for ever.
 */

import { MessageChannel, Worker, receiveMessageOnPort, type MessagePort } from 'node:worker_threads'
import { eventfd, eventfdDrain, eventfdSignal, close } from '../sys/io.js'
import { begin, loading, settle } from '../sys/loading.js'
import type { Logger } from '../log.js'
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
 * The union's thread turns no event loop while it serves, so it can't be told by an event that a thread has not
 * come to life. The thread says so itself, and for that it must not need a file.
 */
const START = `
  const { workerData } = require('node:worker_threads')
  const { entry, port, wakeFd, loading } = workerData
  import(entry).catch(error => {
    Atomics.sub(loading, 0, 1)
    Atomics.notify(loading, 0)
    port.postMessage({ failed: String(error) })
    require('node:fs').writeSync(wakeFd, new BigUint64Array([1n]))
  })
`

const THREADS = 2

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
  busy: number
  /** How many of those are messages to the kernel. */
  telling: number
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
  readonly #threads: Thread[] = []
  readonly #running = new Map<number, Running>()
  #nextId = 1
  /** No thread can be started. */
  #broken = false

  constructor(log: Logger) {
    this.#log = log
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

  /** Runs what is due for every answer that has come. Called when `wakeFd` is readable. */
  runCallbacks(): void {
    eventfdDrain(this.wakeFd)
    for (const thread of this.#threads.slice()) this.#take(thread)
    if (this.#broken) this.#runHere()
  }

  #take(thread: Thread): void {
    for (;;) {
      const received = receiveMessageOnPort(thread.port)
      if (received === undefined) break
      const message = received.message as IoAnswer | { failed: string }
      if ('failed' in message) {
        this.#log.error({ error: message.failed }, 'no thread for input and output can be started')
        this.#lose(thread)
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

  /** What it was to do is left to `runHere`. */
  #lose(thread: Thread): void {
    thread.port.close()
    this.#threads.splice(this.#threads.indexOf(thread), 1)
    this.#broken = true
    for (const running of this.#running.values()) {
      if (running.thread === thread) running.thread = null
    }
  }

  /**
   * Waits for no task. A thread in the middle of one ends when that is done; only then are the
   * descriptors that it uses closed, lest their numbers mean other files by then.
   */
  close(): void {
    const abandoned = [...this.#running.values()]
    const end = (): void => {
      for (const { abandon } of abandoned) abandon()
      close(this.wakeFd)
    }
    if (this.#threads.length > 0) settle()
    const ended = this.#threads.map(({ worker, port }) => {
      port.close()
      if (abandoned.length > 0) worker.ref()
      return worker.terminate()
    })
    this.#threads.length = 0
    this.#running.clear()
    if (abandoned.length === 0) end()
    else void Promise.all(ended).then(end)
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
    const teller = this.#threads.find(thread => thread.telling > 0)
    if (telling && teller !== undefined) return teller
    const idle = this.#threads.find(thread => thread.busy === 0)
    if (idle !== undefined) return idle
    const others = this.#threads.filter(thread => thread !== teller)
    if (others.length < THREADS && !this.#broken) return this.#startThread()
    return others.reduce<Thread | null>((a, b) => (a === null || b.busy < a.busy ? b : a), null)
  }

  #startThread(): Thread {
    const { port1, port2 } = new MessageChannel()
    const entry = new URL('../overlay/io-worker.js', import.meta.url)
    // A loader that runs the sources themselves does so for files only.
    const built = import.meta.url.endsWith('.js')
    const worker = new Worker(built ? START : entry, {
      eval: built,
      workerData: { entry: entry.href, port: port2, wakeFd: this.wakeFd, loading },
      transferList: [port2],
    })
    begin()
    worker.on('error', error =>
      this.#log.error({ stack: error.stack }, 'a thread for input and output died'),
    )
    worker.unref()
    const thread = { worker, port: port1, busy: 0, telling: 0 }
    this.#threads.push(thread)
    return thread
  }
}
