/**
 * The threads for input and output of all unions that one thread serves. They are started as they
 * are needed and kept: the foreign-function library never gives back what it maps for a thread.
 *
 * No union's callback runs in the middle of another one's operation: whoever takes an answer puts
 * it aside for its union.
 */

import { E } from '../../sys/errno.js'
import { eventfd, eventfdDrain, eventfdSignal } from '../../sys/io.js'
import { awaitLoading } from '../../sys/loading.js'
import { silentLogger, type Logger } from '../../log.js'
import { hasEnded } from './cells.js'
import { ENTRY, IoThread, START_MS, type ThreadUser, type QueuedTask } from './thread.js'
import { Turns } from './turns.js'
import type { Result } from '../ops.js'

/** Threads that have no message to the kernel. */
const MAX_THREADS = 2

/**
 * Where a thread was given up, has died or could not load its files, none is started for so long.
 */
const RETRY_MS = 60_000

/**
 * How often is asked for the end of what is under way for unions that have ended, in milliseconds.
 */
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
  /** Unions that have ended, and for which something is under way. */
  readonly #ended = new Set<ThreadUser>()
  /** While a thread sleeps: others that wanted to. */
  #sleepers: QueuedTask[] | null = null
  /** No thread is started before. */
  #retryAt = 0
  #endsFd = -1
  #drainPromise: Promise<void> | null = null
  /** Of the union that has used the threads last. */
  #log: Logger = silentLogger

  /** @param startMs how long a thread may take to come to life */
  constructor({ entry = ENTRY, startMs = START_MS } = {}) {
    this.#entry = entry
    this.#startMs = startMs
  }

  get size(): number {
    return this.#threads.size
  }

  /**
   * An eventfd that is signalled when something of a union that has ended is done: `isSettled` then
   * lets go of it. Never closed.
   */
  get endsFd(): number {
    if (this.#endsFd < 0) this.#endsFd = eventfd()
    return this.#endsFd
  }

  /**
   * Starts a thread before there is a task for it, unless one has nothing to do: that takes some
   * tens of milliseconds.
   */
  start(user: ThreadUser): void {
    this.#log = user.log
    this.#pickThread(false, user)
  }

  submit(item: QueuedTask): void {
    this.#log = item.user.log
    this.#turnsOf(item).push(item)
    this.#dispatch()
  }

  /** Has everybody's answers put aside; a union that does not attend is woken for its own. */
  collect(collector: ThreadUser | null): void {
    if (collector !== null) this.#log = collector.log
    // Before the answers are taken: then all of these are among them.
    const drained = this.#ended.size === 0 ? [] : [...this.#ended].filter(user => isDone(user))
    this.#threads.forEach(thread => this.#poll(thread, collector))
    for (const user of drained) {
      this.#ended.delete(user)
      user.release()
    }
    this.#dispatch()
  }

  /** Takes back what a union has submitted and no thread was given. */
  drop(user: ThreadUser): QueuedTask[] {
    const asleep = this.#sleepers?.filter(item => item.user === user) ?? []
    this.#sleepers &&= this.#sleepers.filter(item => item.user !== user)
    return [...asleep, ...this.#messages.drop(user), ...this.#queue.drop(user)]
  }

  /** A union has ended: `letGo` follows, at once where nothing is under way for it. */
  end(user: ThreadUser): void {
    this.#ended.add(user)
    if (!this.isDrained()) void this.drained()
  }

  /** Whether nothing of the unions that have ended is under way. */
  isDrained(): boolean {
    if (this.#endsFd >= 0) void eventfdDrain(this.#endsFd)
    this.collect(null)
    return this.#ended.size === 0
  }

  /**
   * Settles when nothing of the unions that have ended is under way: in a thread whose event loop
   * turns.
   */
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
    // Before the answers are taken: a dead thread sends none.
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
      const error = `it has not come to life within ${this.#startMs} ms`
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
   * A thread does nothing any more. What it has not answered is done by another one, or by the
   * union's own; but nothing is closed twice: the number may be another file's by then.
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
   * Undefined: all have enough to do. Null: there is none, and none can be started. A message to
   * the kernel waits for requests of the kernel, which may wait for other tasks (data written back
   * to a file that is copied up for it): no such task is put behind one, so all messages go to one
   * thread.
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
    // A process that ends while a thread loads the library would be aborted.
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

/** Who attends looks at what was put aside for it next. */
const deliver = (
  item: QueuedTask,
  result: Result,
  passed: boolean,
  collector: ThreadUser | null,
): void => {
  const { user } = item
  user.answered(item, result, passed)
  // It fails only where it is signalled already.
  if (user !== collector) void eventfdSignal(user.wakeFd)
}

/** Whether no thread does anything any more for a union that has ended. */
const isDone = ({ lastTask }: ThreadUser): boolean =>
  [...lastTask].every(([thread, id]) => thread.isDone(id))

/** Those of this thread. */
export const ioThreads = new IoThreads()

export const isDrained = (): boolean => ioThreads.isDrained()
export const drained = (): Promise<void> => ioThreads.drained()
