/**
 * Runs slow work (the data of a copy-up, fsync) on threads, so that the union's thread continues
 * with other requests. A thread receives descriptors and numbers, and returns a result. It never
 * accesses a node. The threads also serve other unions (threads.ts).
 *
 * If no thread can be started, the union's thread does the work. Reasons are that the program's
 * files were replaced or removed while the server runs, or that the process has no descriptors
 * left. This is slower, but no operation waits for ever.
 */

import { close, eventfd, eventfdDrain, eventfdSignal } from '../../sys/io.js'
import type { Logger } from '../../log.js'
import { endCell, markEnded, hasEnded } from './cells.js'
import { runTask, type IoTask } from './task.js'
import type { IoThread, ThreadUser, QueuedTask } from './thread.js'
import { ioThreads, type IoThreads } from './threads.js'
import type { Job, Result } from '../ops.js'

/** The interval of retries for events without notification, in milliseconds. */
const TICK_MS = 20

class PoolJob implements Job {
  readonly #callbacks: ((result: Result) => void)[] = []
  #result: Result | undefined
  cancelled = false

  onDone(callback: (result: Result) => void): void {
    if (this.#result === undefined) this.#callbacks.push(callback)
    else callback(this.#result)
  }

  cancel(): void {
    this.cancelled = true
  }

  finish(result: Result): void {
    this.#result = result
    for (const callback of this.#callbacks) callback(result)
  }
}

export class IoPool implements ThreadUser {
  /** Readable if an answer is available. */
  readonly wakeFd: number
  readonly log: Logger
  readonly end = endCell()
  readonly lastTask = new Map<IoThread, number>()
  readonly #threads: IoThreads
  /** Answered tasks whose callbacks have not run yet. */
  readonly #answered: { item: QueuedTask; result: Result }[] = []
  /** Tasks that the union's thread must run. */
  readonly #inlineTasks: QueuedTask[] = []
  /** Tasks left after the union's end. */
  readonly #abandoned: { item: QueuedTask; mayHaveBegun: boolean }[] = []
  #pending = 0
  #tick: Job | null = null

  constructor(log: Logger, threads = ioThreads) {
    this.log = log
    this.#threads = threads
    this.wakeFd = eventfd()
  }

  /** Starts a thread in advance, because starting is slow. */
  start(): void {
    this.#threads.start(this)
  }

  /**
   * Submits a task to the threads.
   *
   * @param finish runs on the union's thread after the task; its return value is the result of the
   *   job
   * @param abandon runs instead if the union is closed first: it releases the descriptors of the
   *   task. Its argument tells whether the task may have begun
   */
  submit(
    task: IoTask,
    finish: (result: Result) => Result = result => result,
    abandon: (mayHaveBegun?: boolean) => void = () => {},
  ): Job {
    const job = new PoolJob()
    this.#pending++
    this.#threads.submit({
      user: this,
      task,
      finish: result => job.finish(finish(result)),
      abandon,
    })
    return job
  }

  /**
   * Closes a descriptor on a thread if closing it may take long. This mainly concerns the last
   * descriptor of a large file without a name.
   */
  closeLater(fd: number): void {
    // Never close it twice: the descriptor number may belong to another file already.
    this.submit({ kind: 'close', fd }, undefined, mayHaveBegun => {
      if (mayHaveBegun !== true) close(fd)
    })
  }

  /**
   * A job that ends after TICK_MS. All waiting operations share it, so that they occupy no more
   * than one thread.
   */
  tick(): Job {
    this.#tick ??= this.submit({ kind: 'sleep', ms: TICK_MS }, result => {
      this.#tick = null
      return result
    })
    return this.#tick
  }

  /**
   * Runs the callbacks of all answers. Called if `wakeFd` is readable. While tasks are pending it
   * is also called at intervals, because a thread that fails to start sends no signal.
   */
  runCallbacks(): void {
    // It does not matter whether the eventfd was signalled.
    void eventfdDrain(this.wakeFd)
    this.#threads.collect(this)
    for (let next; (next = this.#answered.shift()) !== undefined;)
      this.#finish(next.item, next.result)
    // Tasks that the callbacks submit signal the eventfd again.
    for (let left = this.#inlineTasks.length; left > 0; left--) {
      const item = this.#inlineTasks.shift()
      if (item !== undefined) this.#finish(item, runTask(item.task))
    }
  }

  #finish(item: QueuedTask, result: Result): void {
    this.#pending--
    item.finish(result)
  }

  answered(item: QueuedTask, result: Result, passed: boolean): void {
    if (hasEnded(this.end)) this.#abandoned.push({ item, mayHaveBegun: !passed })
    else this.#answered.push({ item, result })
  }

  runInline(item: QueuedTask): void {
    this.#inlineTasks.push(item)
    // It fails only if the eventfd is already signalled.
    void eventfdSignal(this.wakeFd)
  }

  /**
   * Does not wait for tasks. Tasks that no thread has begun are not run. Descriptors of running
   * tasks are closed after the thread has finished, because their numbers could otherwise belong to
   * other files by then.
   */
  close(): void {
    markEnded(this.end)
    for (const { item } of this.#answered.splice(0))
      this.#abandoned.push({ item, mayHaveBegun: true })
    for (const item of [...this.#inlineTasks.splice(0), ...this.#threads.drop(this)])
      this.#abandoned.push({ item, mayHaveBegun: false })
    this.#threads.end(this)
  }

  release(): void {
    for (const { item, mayHaveBegun } of this.#abandoned.splice(0)) item.abandon(mayHaveBegun)
    close(this.wakeFd)
  }

  get pending(): number {
    return this.#pending
  }
}

/** Runs tasks on threads: the pool, or the threads of slow layers. */
export interface TaskThreads {
  submit(task: IoTask, finish: (result: Result) => Result, abandon: () => void): Job
}

/**
 * Runs tasks one after the other. Tasks of other jobs may run in between.
 *
 * @param next receives the result of the last task (0 at first), and whether the job was cancelled;
 *   returns the next task, or the result of the job
 * @param abandon as in `submit`
 */
export function series(
  threads: TaskThreads,
  next: (result: Result, nobodyWaits: boolean) => IoTask | Result,
  abandon: () => void,
): Job {
  const job = new PoolJob()
  const go = (result: Result): Result => {
    const then = next(result, job.cancelled)
    if (typeof then === 'number') job.finish(then)
    else threads.submit(then, go, abandon)
    return result
  }
  // The job reports the result.
  void go(0)
  return job
}
