/**
 * Work that may take long (the data of a copy-up, fsync) on threads of its own, so that the union's
 * thread goes on with other requests. A thread gets descriptors and numbers, and answers with a
 * result; it never sees a node. The threads serve other unions as well (threads.ts).
 *
 * Where no thread comes to life (the program's files were replaced or removed under a server that
 * lives, or the process has no descriptors left), the union's thread does the work: slower, but
 * nobody waits for ever.
 */

import { close, eventfd, eventfdDrain, eventfdSignal } from '../../sys/io.js'
import type { Logger } from '../../log.js'
import { endCell, markEnded, hasEnded } from './cells.js'
import { runTask, type IoTask } from './task.js'
import type { IoThread, ThreadUser, QueuedTask } from './thread.js'
import { ioThreads, type IoThreads } from './threads.js'
import type { Job, Result } from '../ops.js'

/** How often is asked again for what nobody tells the end of, in milliseconds. */
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
  /** Readable when an answer waits. */
  readonly wakeFd: number
  readonly log: Logger
  readonly end = endCell()
  readonly lastTask = new Map<IoThread, number>()
  readonly #threads: IoThreads
  /** Answered; the callbacks are to be run. */
  readonly #answered: { item: QueuedTask; result: Result }[] = []
  /** The union's own thread is to do these. */
  readonly #inlineTasks: QueuedTask[] = []
  /** What the union's end has left. */
  readonly #abandoned: { item: QueuedTask; mayHaveBegun: boolean }[] = []
  #pending = 0
  #tick: Job | null = null

  constructor(log: Logger, threads = ioThreads) {
    this.log = log
    this.#threads = threads
    this.wakeFd = eventfd()
  }

  /** Starts a thread before there is a task for it: that takes some tens of milliseconds. */
  start(): void {
    this.#threads.start(this)
  }

  /**
   * Hands a task to a thread.
   *
   * @param finish runs on the union's thread when the task is done; what it returns is the job's
   *   result
   * @param abandon runs instead where the union is closed before: lets go of the task's
   *   descriptors; it is told whether the task may have begun
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
   * Closes what may take long to close, the last descriptor of a large file without a name above
   * all.
   */
  closeLater(fd: number): void {
    // Never closed twice: the number may be another file's by then.
    this.submit({ kind: 'close', fd }, undefined, mayHaveBegun => {
      if (mayHaveBegun !== true) close(fd)
    })
  }

  /**
   * A job that ends in a moment; one for all who ask meanwhile, so that they take up no more than
   * one thread.
   */
  tick(): Job {
    this.#tick ??= this.submit({ kind: 'sleep', ms: TICK_MS }, result => {
      this.#tick = null
      return result
    })
    return this.#tick
  }

  /**
   * Runs what is due for every answer that has come. Called when `wakeFd` is readable; and while
   * something is pending also now and then, since a thread that does not come to life says nothing.
   */
  runCallbacks(): void {
    // Whether there was a signal does not matter.
    void eventfdDrain(this.wakeFd)
    this.#threads.collect(this)
    for (let next; (next = this.#answered.shift()) !== undefined;)
      this.#finish(next.item, next.result)
    // What these submit has its own signal.
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
    // It fails only where it is signalled already.
    void eventfdSignal(this.wakeFd)
  }

  /**
   * Waits for no task. What no thread has begun is not done. Descriptors that a thread uses are
   * closed when it is done with them, lest their numbers mean other files by then.
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

/** Whoever has tasks done: the pool, or the threads of slow layers. */
export interface TaskThreads {
  submit(task: IoTask, finish: (result: Result) => Result, abandon: () => void): Job
}

/**
 * Hands over one task after the other. Between two of them the tasks of others have their turn.
 *
 * @param next gets the result of the last task, 0 at first, and whether nobody waits any more;
 *   returns the next task, or the job's result
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
  // Who waits is told by the job.
  void go(0)
  return job
}
