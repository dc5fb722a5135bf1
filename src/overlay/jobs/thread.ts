/** One thread for input and output (worker.ts), as the union's thread sees it. */

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

/** Whoever has tasks done: the pool of a union. */
export interface ThreadUser {
  readonly log: Logger
  /** Signalled after each answer. */
  readonly wakeFd: number
  readonly end: EndCell
  /** The last task that each thread was given. */
  readonly lastTask: Map<IoThread, number>
  /**
   * Puts the answer aside; runs nothing. @param passed the task was not begun: the union has ended
   */
  answered(item: QueuedTask, result: Result, passed: boolean): void
  /** No thread does it: the union's own has to. */
  runInline(item: QueuedTask): void
  /** Called once after the union's end, when no thread does anything for it any more. */
  release(): void
}

export interface QueuedTask {
  readonly user: ThreadUser
  readonly task: IoTask
  /** Runs on the union's thread when the task is done. */
  readonly finish: (result: Result) => void
  /** Runs instead where the union ends before. */
  readonly abandon: (mayHaveBegun: boolean) => void
}

export interface IoRequest {
  id: number
  task: IoTask
  /** Signalled after the answer. */
  wakeFd: number
  /** Of the union. */
  end: EndCell
}

export interface IoAnswer {
  id: number
  result: Result
  /** A fault of the program. */
  error?: string
  /** The task was not begun: the union has ended. */
  skipped?: boolean
}

export interface Answered {
  item: QueuedTask
  answer: IoAnswer
}

/**
 * What a thread does first (cells.ts:markAlive), without a file: where its own can't be loaded it
 * says so. It is alive before it loads anything, so that one which is not can be given up at once.
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
 * A thread is given up that is not alive after so many milliseconds. One that runs the sources is
 * alive when all of them are loaded.
 */
export const START_MS = BUILT ? 5000 : 60_000
export const ENTRY = entryPoint('overlay/jobs/worker')

/**
 * So many tasks are with a thread: the next one begins without the union's thread, which may be
 * busy.
 */
const DEPTH = 2

const isMessage = ({ task }: QueuedTask): boolean => task.kind === 'write'
const isCopy = ({ task }: QueuedTask): boolean => task.kind === 'copy'

export interface Start {
  /** The union that it is started for. */
  user: ThreadUser
  /** Signalled when something of a union that has ended is done. */
  endsFd: number
  entry: URL
  startMs: number
  /** Called by an event loop, where one turns. */
  onExit: (thread: IoThread) => void
}

export class IoThread {
  /** Tasks that it was given and has not answered, by number. */
  readonly tasks = new Map<number, QueuedTask>()
  /** Why it died, where an event loop has said so. */
  failure: Error | undefined
  readonly #cell = threadCell()
  readonly #port: MessagePort
  /** When it is given up, unless it has come to life. */
  readonly #deadline: number
  #last = LOADING

  /** Throws where there can't be another thread. */
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
      // Before it has loaded anything.
      if (giveUp(cell)) endLoading()
      markDead(cell)
      onExit(this)
    })
  }

  /** It has a message to the kernel. */
  get hasMessage(): boolean {
    return [...this.tasks.values()].some(isMessage)
  }

  /** Nothing is put behind a copy, which may take minutes: another thread may be free before. */
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

  /** The next answer, or why there will be none. */
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
   * Whether it has not come to life in time; then it never does anything. What loads no file ends
   * nothing else, either.
   */
  giveUpIfLate(): boolean {
    if (!isStarting(this.#cell) || performance.now() < this.#deadline || !giveUp(this.#cell))
      return false
    if (BUILT) endLoading()
    return true
  }

  /** Whether a task without an answer may have been done by a thread that does nothing any more. */
  hasBegun(id: number): boolean {
    return hasBegun(this.#cell, id)
  }

  /** Whether it does nothing any more for a task and those before it. */
  isDone(id: number): boolean {
    return isDone(this.#cell, id)
  }

  close(): void {
    this.tasks.clear()
    this.#port.close()
  }
}
