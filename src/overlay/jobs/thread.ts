/** A pool thread (worker.ts), as the union's thread accesses it. */

import { fileURLToPath } from 'node:url'
import { MessageChannel, Worker, receiveMessageOnPort, type MessagePort } from 'node:worker_threads'
import { beginLoading, endLoading, loading } from '../../sys/loading.js'
import type { Logger } from '../../log.js'
import {
  ALIVE,
  DEAD,
  markDead,
  GIVEN_UP,
  giveUp,
  hasBegun,
  isDead,
  isStarting,
  isDone,
  LOADING,
  STARTING,
  threadCell,
  type EndCell,
} from './cells.js'
import type { IoTask } from './task.js'
import type { Result } from '../ops.js'
import { BUILT, entryPoint } from '../../sys/entry-points.js'

/** A user of the threads: the pool of a union. */
export interface ThreadUser {
  readonly log: Logger
  /** An eventfd that is signalled after each answer. */
  readonly wakeFd: number
  readonly end: EndCell
  /** The last task of each thread for this user. */
  readonly lastTask: Map<IoThread, number>
  /**
   * Stores the answer without running callbacks.
   *
   * @param skipped the task was not begun, because the union has ended
   */
  answered(item: QueuedTask, result: Result, passed: boolean): void
  /** Called if no thread can run the task: the union's thread must run it. */
  runInline(item: QueuedTask): void
  /** Called once after the union's end, after all threads have finished with it. */
  release(): void
}

export interface QueuedTask {
  readonly user: ThreadUser
  readonly task: IoTask
  /** Runs on the union's thread after the task. */
  readonly finish: (result: Result) => void
  /** Runs instead of `finish` if the union ends first. */
  readonly abandon: (mayHaveBegun: boolean) => void
}

export interface IoRequest {
  id: number
  task: IoTask
  /** An eventfd that is signalled after the answer. */
  wakeFd: number
  /** The cell of the union. */
  end: EndCell
}

export interface IoAnswer {
  id: number
  result: Result
  /** An exception in the thread: a bug. */
  error?: string
  /** The task was not begun, because the union has ended. */
  skipped?: boolean
}

export interface Answered {
  item: QueuedTask
  answer: IoAnswer
}

/**
 * The start of a thread (cells.ts:markAlive). It needs no file, so that it can report that the
 * thread's own modules can't be loaded. It sets ALIVE before it loads anything, so a thread that is
 * not alive in time can be given up at once.
 */
const START = `
  const { workerData } = require('node:worker_threads')
  const { entry, port, wakeFd, endsFd, loading, cell } = workerData
  if (Atomics.compareExchange(cell, 0, ${STARTING}, ${ALIVE}) !== ${GIVEN_UP}) {
    try {
      require(entry)
    } catch (error) {
      Atomics.sub(loading, 0, 1)
      Atomics.notify(loading, 0)
      port.postMessage({ failed: String(error) })
      for (const fd of [wakeFd, endsFd]) {
        try {
          require('node:fs').writeSync(fd, new BigUint64Array([1n]))
        } catch {}
      }
      Atomics.store(cell, 0, ${DEAD})
    }
  }
`

/**
 * A thread that has not started after this time is given up, in milliseconds. A thread that runs
 * the sources is alive only after all of them are loaded.
 */
export const START_MS = BUILT ? 5000 : 60_000
export const ENTRY = entryPoint('overlay/jobs/worker')

/**
 * The number of tasks assigned to a thread. It begins the next task without the union's thread,
 * which may be busy.
 */
const DEPTH = 2

const isMessage = ({ task }: QueuedTask): boolean => task.kind === 'write'
const isCopy = ({ task }: QueuedTask): boolean => task.kind === 'copy'

export interface Start {
  /** The union for which the thread is started. */
  user: ThreadUser
  /** An eventfd that is signalled when work of an ended union is done. */
  endsFd: number
  entry: URL
  startMs: number
  /** Called only if this thread runs an event loop. */
  onExit: (thread: IoThread) => void
}

export class IoThread {
  /** Assigned tasks without an answer, by number. */
  readonly tasks = new Map<number, QueuedTask>()
  /** Why the thread died. Set only if this thread runs an event loop. */
  failure: Error | undefined
  readonly #cell = threadCell()
  readonly #port: MessagePort
  /** The time at which the thread is given up if it has not started. */
  readonly #deadline: number
  #last = LOADING

  /** Throws if no thread can be created. */
  constructor({ user, endsFd, entry, startMs, onExit }: Start) {
    const { port1, port2 } = new MessageChannel()
    const { wakeFd } = user
    const cell = this.#cell
    let worker
    beginLoading()
    try {
      worker = new Worker(BUILT ? START : entry, {
        eval: BUILT,
        workerData: { entry: fileURLToPath(entry), port: port2, wakeFd, endsFd, loading, cell },
        transferList: [port2],
      })
    } catch (error) {
      endLoading()
      port1.close()
      throw error
    }
    this.#port = port1
    this.#deadline = performance.now() + startMs
    user.lastTask.set(this, LOADING)
    worker.unref()
    worker.on('error', error => void (this.failure = error))
    worker.on('exit', () => {
      // It exited before it loaded anything.
      if (giveUp(cell)) endLoading()
      markDead(cell)
      onExit(this)
    })
  }

  /** It has a message to the kernel. */
  get hasMessage(): boolean {
    return [...this.tasks.values()].some(isMessage)
  }

  /**
   * A copy may take minutes. No task is assigned behind it, because another thread may be free
   * earlier.
   */
  get hasRoom(): boolean {
    return this.tasks.size < DEPTH && ![...this.tasks.values()].some(isCopy)
  }

  get isDead(): boolean {
    return isDead(this.#cell)
  }

  assign(item: QueuedTask): void {
    const { user, task } = item
    const id = (this.#last = (this.#last + 1) | 0)
    this.tasks.set(id, item)
    user.lastTask.set(this, id)
    const { wakeFd, end: ended } = user
    this.#port.postMessage({ id, task, wakeFd, end: ended } satisfies IoRequest)
  }

  /** The next answer, or the reason why no answer follows. */
  receive(): Answered | { failed: string } | undefined {
    for (;;) {
      const received = receiveMessageOnPort(this.#port)
      if (received === undefined) return undefined
      const message = received.message as IoAnswer | { failed: string }
      if ('failed' in message) return message
      const item = this.tasks.get(message.id)
      this.tasks.delete(message.id)
      if (item !== undefined) return { item, answer: message }
    }
  }

  /**
   * Gives the thread up if it has not started in time. It never does anything then. In a build,
   * such a thread loads no module and does not call `endLoading`, so this does.
   */
  giveUpIfLate(): boolean {
    if (!isStarting(this.#cell) || performance.now() < this.#deadline || !giveUp(this.#cell))
      return false
    if (BUILT) endLoading()
    return true
  }

  /**
   * Whether a task without an answer may have been done. Only valid if the thread does nothing
   * more.
   */
  hasBegun(id: number): boolean {
    return hasBegun(this.#cell, id)
  }

  /** Whether the thread has completed a task and all earlier ones. */
  isDone(id: number): boolean {
    return isDone(this.#cell, id)
  }

  close(): void {
    this.tasks.clear()
    this.#port.close()
  }
}
