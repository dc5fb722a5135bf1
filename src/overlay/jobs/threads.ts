/**
 * The pool threads of all unions that a thread serves. They are started as needed and then kept,
 * because the foreign-function library never frees what it maps for a thread.
 *
 * No callback of a union runs in the middle of another union's operation: an answer is only stored
 * for its union.
 */

import { E } from '../../sys/errno.js'
import { eventfd, eventfdDrain, eventfdSignal } from '../../sys/io.js'
import { awaitLoading } from '../../sys/loading.js'
import { silentLogger, type Logger } from '../../log.js'
import { hasEnded } from './cells.js'
import { ENTRY, IoThread, START_MS, type ThreadUser, type QueuedTask } from './thread.js'
import { Turns } from './turns.js'
import type { Result } from '../ops.js'

/** The maximum of threads, besides the thread for messages to the kernel. */
const MAX_THREADS = 2

/**
 * After a thread was given up, has died or could not load its modules, no thread is started for
 * this time.
 */
const RETRY_MS = 60_000

/** The maximum interval of checks for running work of ended unions, in milliseconds. */
const MAX_PAUSE_MS = 100

const NO_THREAD = 'no thread for input and output can be started'

let watchesExit = false

export class IoThreads {
  readonly #entry: URL
  readonly #startMs: number
  readonly #threads = new Set<IoThread>()
  readonly #queue = new Turns()
  /** Messages to the kernel. */
  readonly #messages = new Turns()
  /** Ended unions with running work. */
  readonly #ended = new Set<ThreadUser>()
  /** Further sleep tasks while a thread sleeps. Null if no thread sleeps. */
  #sleepers: QueuedTask[] | null = null
  /** No thread is started before this time. */
  #retryAt = 0
  #endsFd = -1
  #drainPromise: Promise<void> | null = null
  /** The logger of the union that used the threads last. */
  #log: Logger = silentLogger

  /** @param startMs how long a thread may take to start */
  constructor({ entry = ENTRY, startMs = START_MS } = {}) {
    this.#entry = entry
    this.#startMs = startMs
  }

  get size(): number {
    return this.#threads.size
  }

  /**
   * An eventfd that is signalled when work of an ended union is done. `isDrained` then releases the
   * union. It is never closed.
   */
  get endsFd(): number {
    if (this.#endsFd < 0) this.#endsFd = eventfd()
    return this.#endsFd
  }

  /** Starts a thread in advance, unless a thread is idle. Starting is slow. */
  start(user: ThreadUser): void {
    this.#log = user.log
    this.#pickThread(false, user)
  }

  submit(item: QueuedTask): void {
    this.#log = item.user.log
    this.#turnsOf(item).push(item)
    this.#dispatch()
  }

  /** Stores the answers for all unions. Wakes the threads of the unions other than `collector`. */
  collect(collector: ThreadUser | null): void {
    if (collector !== null) this.#log = collector.log
    // Determine this before the answers are received, so that the answers include all of these
    // unions' answers.
    const drained = this.#ended.size === 0 ? [] : [...this.#ended].filter(user => isDone(user))
    this.#threads.forEach(thread => this.#poll(thread, collector))
    for (const user of drained) {
      this.#ended.delete(user)
      user.release()
    }
    this.#dispatch()
  }

  /** Takes back the tasks of a union that are not assigned to a thread. */
  drop(user: ThreadUser): QueuedTask[] {
    const asleep = this.#sleepers?.filter(item => item.user === user) ?? []
    this.#sleepers &&= this.#sleepers.filter(item => item.user !== user)
    return [...asleep, ...this.#messages.drop(user), ...this.#queue.drop(user)]
  }

  /** Called at the end of a union. `release` follows, at once if no thread works for the union. */
  end(user: ThreadUser): void {
    this.#ended.add(user)
    if (!this.isDrained()) void this.drained()
  }

  /** Whether no thread works for an ended union. */
  isDrained(): boolean {
    if (this.#endsFd >= 0) void eventfdDrain(this.#endsFd)
    this.collect(null)
    return this.#ended.size === 0
  }

  /** Resolves when no thread works for an ended union. Only for a thread with an event loop. */
  drained(): Promise<void> {
    this.#drainPromise ??= this.#waitUntilDrained().finally(() => {
      this.#drainPromise = null
    })
    return this.#drainPromise
  }

  async #waitUntilDrained(): Promise<void> {
    for (let ms = 1; !this.isDrained(); ms = Math.min(2 * ms, MAX_PAUSE_MS))
      await new Promise(next => setTimeout(next, ms))
  }

  #turnsOf({ task }: QueuedTask): Turns {
    return task.kind === 'write' ? this.#messages : this.#queue
  }

  #poll(thread: IoThread, collector: ThreadUser | null): void {
    // Read this before the answers are received: a dead thread sends none.
    const dead = thread.isDead
    for (let next; (next = thread.receive()) !== undefined;) {
      if ('failed' in next) {
        this.#discard(thread, collector, { error: next.failed }, NO_THREAD)
        return
      }
      const { item, answer } = next
      if (answer.error !== undefined)
        item.user.log.error({ error: answer.error }, 'a fault of the program')
      this.#answer(item, answer.result, answer.skipped === true, collector)
    }
    if (dead)
      this.#discard(
        thread,
        collector,
        { stack: thread.failure?.stack },
        'a thread for input and output died',
      )
    else if (thread.giveUpIfLate()) {
      const error = `it has not started within ${this.#startMs} ms`
      this.#discard(thread, collector, { error }, NO_THREAD)
    }
  }

  #answer(item: QueuedTask, result: Result, passed: boolean, collector: ThreadUser | null): void {
    const sleepers = item.task.kind === 'sleep' ? this.#sleepers : null
    if (sleepers !== null) this.#sleepers = null
    for (const one of sleepers ?? []) deliver(one, 0, false, collector)
    deliver(item, result, passed, collector)
  }

  /**
   * Removes a thread that does nothing more. Another thread, or the union's own thread, runs its
   * tasks without an answer. A `close` that was begun is not repeated, because the descriptor
   * number may belong to another file already.
   */
  #discard(
    thread: IoThread,
    collector: ThreadUser | null,
    fields: Record<string, unknown>,
    message: string,
  ): void {
    if (!this.#threads.delete(thread)) return
    this.#log.error(fields, message)
    this.#retryAt = performance.now() + RETRY_MS
    for (const [id, item] of [...thread.tasks].toReversed()) {
      const begun = thread.hasBegun(id)
      const { kind } = item.task
      if (hasEnded(item.user.end)) this.#answer(item, -E.EINTR, !begun, collector)
      else if (kind === 'sleep' || (kind === 'close' && begun))
        this.#answer(item, 0, false, collector)
      else this.#turnsOf(item).requeue(item)
    }
    thread.close()
  }

  #dispatch(): void {
    this.#dispatchFrom(this.#messages, true)
    this.#dispatchFrom(this.#queue, false)
  }

  #dispatchFrom(turns: Turns, isMessage: boolean): void {
    for (let next; (next = turns.first) !== undefined;) {
      const sleeps = next.task.kind === 'sleep'
      if (sleeps && this.#sleepers !== null) {
        this.#sleepers.push(next)
        turns.shift()
        continue
      }
      const thread = this.#pickThread(isMessage, next.user)
      if (thread === undefined) return
      turns.shift()
      if (sleeps && thread !== null) this.#sleepers = []
      if (thread === null) next.user.runInline(next)
      else thread.assign(next)
    }
  }

  /**
   * Chooses a thread for a task. Undefined: all threads are busy. Null: no thread exists and none
   * can be started.
   *
   * Writing a message to the kernel may wait for FUSE requests, and these may wait for other tasks:
   * for example for the copy-up of a file to which the kernel writes data back. So no other task is
   * assigned behind a message, and all messages go to the same thread.
   */
  #pickThread(isMessage: boolean, user: ThreadUser): IoThread | null | undefined {
    const threads = [...this.#threads]
    const messageThread = threads.find(thread => thread.hasMessage)
    if (isMessage && messageThread !== undefined)
      return messageThread.hasRoom ? messageThread : undefined
    const idle = threads.find(thread => thread.tasks.size === 0)
    if (idle !== undefined) return idle
    const others = threads.filter(thread => thread !== messageThread)
    if (others.length < MAX_THREADS && performance.now() >= this.#retryAt) {
      const thread = this.#startThread(user)
      if (thread !== null) return thread
    }
    if (others.length === 0) return null
    return others
      .filter(thread => thread.hasRoom)
      .toSorted((a, b) => a.tasks.size - b.tasks.size)[0]
  }

  #startThread(user: ThreadUser): IoThread | null {
    // The process would be aborted if it ended while a thread loads the library.
    if (!watchesExit) process.on('exit', () => void awaitLoading())
    watchesExit = true
    try {
      const thread = new IoThread({
        user,
        endsFd: this.endsFd,
        entry: this.#entry,
        startMs: this.#startMs,
        onExit: one => this.#threads.has(one) && this.collect(null),
      })
      this.#threads.add(thread)
      return thread
    } catch (error) {
      this.#log.error({ error: String(error) }, NO_THREAD)
      this.#retryAt = performance.now() + RETRY_MS
      return null
    }
  }
}

/** Stores an answer. The collector reads its own answers next, so it needs no signal. */
const deliver = (
  item: QueuedTask,
  result: Result,
  passed: boolean,
  collector: ThreadUser | null,
): void => {
  const { user } = item
  user.answered(item, result, passed)
  // It fails only if the eventfd is already signalled.
  if (user !== collector) void eventfdSignal(user.wakeFd)
}

/** Whether no thread works for the ended union. */
const isDone = ({ lastTask }: ThreadUser): boolean =>
  [...lastTask].every(([thread, id]) => thread.isDone(id))

/** The pool threads of this thread. */
export const ioThreads = new IoThreads()

export const isDrained = (): boolean => ioThreads.isDrained()
export const drained = (): Promise<void> => ioThreads.drained()
