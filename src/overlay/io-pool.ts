/**
 * Work that may take long (the data of a copy-up, fsync) on threads of its own, so that the union's
 * thread goes on with other requests. A thread gets descriptors and numbers, and answers with a result;
 * it never sees a node.
 */

import { MessageChannel, Worker, receiveMessageOnPort, type MessagePort } from 'node:worker_threads'
import { eventfd, eventfdDrain, close } from '../sys/io.js'
import type { Logger } from '../log.js'
import type { Job, Result } from './ops.js'

/** What a thread is asked to do. */
export type IoTask =
  | { kind: 'copy'; src: number; dst: number; size: number; sync: boolean }
  | { kind: 'fsync'; fd: number; datasync: boolean }
  | { kind: 'syncfs'; fd: number }
  | { kind: 'write'; fd: number; bytes: Uint8Array }

export interface IoRequest {
  id: number
  task: IoTask
}

export interface IoAnswer {
  id: number
  result: Result
}

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

interface Running {
  job: PoolJob
  finish: (result: Result) => Result
  abandon: () => void
}

export class IoPool {
  /** Readable when an answer waits. */
  readonly wakeFd: number
  readonly #log: Logger
  readonly #threads: { worker: Worker; port: MessagePort; busy: number }[] = []
  readonly #running = new Map<number, Running>()
  #nextId = 1

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
    this.#running.set(id, { job, finish, abandon })
    const thread = this.#pick()
    thread.busy++
    thread.port.postMessage({ id, task } satisfies IoRequest)
    return job
  }

  /** Runs what is due for every answer that has come. Called when `wakeFd` is readable. */
  runCallbacks(): void {
    eventfdDrain(this.wakeFd)
    for (const thread of this.#threads) {
      for (;;) {
        const received = receiveMessageOnPort(thread.port)
        if (received === undefined) break
        const { id, result } = received.message as IoAnswer
        thread.busy--
        const running = this.#running.get(id)
        this.#running.delete(id)
        if (running !== undefined) running.job.finish(running.finish(result))
      }
    }
  }

  /**
   * Waits for nothing. A thread in the middle of a task ends when that is done; only then are the
   * descriptors that it uses closed, lest their numbers mean other files by then.
   */
  close(): void {
    const abandoned = [...this.#running.values()]
    const end = (): void => {
      for (const { abandon } of abandoned) abandon()
      close(this.wakeFd)
    }
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

  #pick(): { worker: Worker; port: MessagePort; busy: number } {
    const idle = this.#threads.find(thread => thread.busy === 0)
    if (idle !== undefined) return idle
    if (this.#threads.length < THREADS) {
      const { port1, port2 } = new MessageChannel()
      const worker = new Worker(new URL('../overlay/io-worker.js', import.meta.url), {
        workerData: { port: port2, wakeFd: this.wakeFd },
        transferList: [port2],
      })
      worker.on('error', error =>
        this.#log.error({ stack: error.stack }, 'a thread for input and output died'),
      )
      worker.unref()
      const thread = { worker, port: port1, busy: 0 }
      this.#threads.push(thread)
      return thread
    }
    return this.#threads.reduce((a, b) => (b.busy < a.busy ? b : a))
  }
}
