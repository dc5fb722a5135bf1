/**
 * The threads for input and output of all unions that one thread serves. They are started as they
 * are needed and kept: the foreign-function library never gives back what it maps for a thread.
 *
 * No union's callback runs in the middle of another one's operation: whoever takes an answer puts
 * it aside for its union.
 */

import { E } from '../../sys/errno.js'
import { eventfd, eventfdDrain, eventfdSignal } from '../../sys/io.js'
import { settle } from '../../sys/loading.js'
import { silentLogger, type Logger } from '../../log.js'
import { hasEnded } from './cells.js'
import { ENTRY, IoThread, START_MS, type Owner, type Submitted } from './thread.js'
import { Turns } from './turns.js'
import type { Result } from '../ops.js'

/** Threads that have no message to the kernel. */
const THREADS = 2

/**
 * Where a thread was given up, has died or could not load its files, none is started for so long.
 */
const RETRY_MS = 60_000

/**
 * How often is asked for the end of what is under way for unions that have ended, in milliseconds.
 */
const MOST_PAUSE_MS = 100

const NO_THREAD = 'no thread for input and output can be started'

let watchesExit = false

export class IoThreads {
  readonly #entry: URL
  readonly #startMs: number
  readonly #threads = new Set<IoThread>()
  readonly #waiting = new Turns()
  /** Messages to the kernel. */
  readonly #messages = new Turns()
  /** Unions that have ended, and for which something is under way. */
  readonly #ending = new Set<Owner>()
  /** While a thread sleeps: others that wanted to. */
  #sleepers: Submitted[] | null = null
  /** No thread is started before. */
  #retryAt = 0
  #endsFd = -1
  #leftovers: Promise<void> | null = null
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
  start(owner: Owner): void {
    this.#log = owner.log
    this.#pick(false, owner)
  }

  submit(item: Submitted): void {
    this.#log = item.owner.log
    this.#turnsOf(item).push(item)
    this.#hand()
  }

  /** Has everybody's answers put aside; a union that does not attend is woken for its own. */
  attend(by: Owner | null): void {
    if (by !== null) this.#log = by.log
    // Before the answers are taken: then all of these are among them.
    const through =
      this.#ending.size === 0 ? [] : [...this.#ending].filter(owner => isThrough(owner))
    this.#threads.forEach(thread => this.#look(thread, by))
    for (const owner of through) {
      this.#ending.delete(owner)
      owner.letGo()
    }
    this.#hand()
  }

  /** Takes back what a union has submitted and no thread was given. */
  drop(owner: Owner): Submitted[] {
    const asleep = this.#sleepers?.filter(item => item.owner === owner) ?? []
    this.#sleepers &&= this.#sleepers.filter(item => item.owner !== owner)
    return [...asleep, ...this.#messages.drop(owner), ...this.#waiting.drop(owner)]
  }

  /** A union has ended: `letGo` follows, at once where nothing is under way for it. */
  end(owner: Owner): void {
    this.#ending.add(owner)
    if (!this.isSettled()) void this.leftovers()
  }

  /** Whether nothing of the unions that have ended is under way. */
  isSettled(): boolean {
    if (this.#endsFd >= 0) void eventfdDrain(this.#endsFd)
    this.attend(null)
    return this.#ending.size === 0
  }

  /**
   * Settles when nothing of the unions that have ended is under way: in a thread whose event loop
   * turns.
   */
  leftovers(): Promise<void> {
    this.#leftovers ??= this.#waitForEnds().finally(() => {
      this.#leftovers = null
    })
    return this.#leftovers
  }

  async #waitForEnds(): Promise<void> {
    for (let ms = 1; !this.isSettled(); ms = Math.min(2 * ms, MOST_PAUSE_MS))
      await new Promise(next => setTimeout(next, ms))
  }

  #turnsOf({ task }: Submitted): Turns {
    return task.kind === 'write' ? this.#messages : this.#waiting
  }

  #look(thread: IoThread, by: Owner | null): void {
    // Before the answers are taken: a dead thread sends none.
    const dead = thread.isDead
    for (let next; (next = thread.receive()) !== undefined;) {
      if ('failed' in next) {
        this.#lose(thread, by, { error: next.failed }, NO_THREAD)
        return
      }
      const { item, answer } = next
      if (answer.error !== undefined)
        item.owner.log.error({ error: answer.error }, 'a fault of the program')
      this.#answer(item, answer.result, answer.passed === true, by)
    }
    if (dead)
      this.#lose(thread, by, { stack: thread.failure?.stack }, 'a thread for input and output died')
    else if (thread.isLate()) {
      const error = `it has not come to life within ${this.#startMs} ms`
      this.#lose(thread, by, { error }, NO_THREAD)
    }
  }

  #answer(item: Submitted, result: Result, passed: boolean, by: Owner | null): void {
    const sleepers = item.task.kind === 'sleep' ? this.#sleepers : null
    if (sleepers !== null) this.#sleepers = null
    for (const one of sleepers ?? []) tell(one, 0, false, by)
    tell(item, result, passed, by)
  }

  /**
   * A thread does nothing any more. What it has not answered is done by another one, or by the
   * union's own; but nothing is closed twice: the number may be another file's by then.
   */
  #lose(
    thread: IoThread,
    by: Owner | null,
    fields: Record<string, unknown>,
    message: string,
  ): void {
    if (!this.#threads.delete(thread)) return
    this.#log.error(fields, message)
    this.#retryAt = performance.now() + RETRY_MS
    for (const [id, item] of [...thread.given].toReversed()) {
      const begun = thread.hasBegun(id)
      const { kind } = item.task
      if (hasEnded(item.owner.end)) this.#answer(item, -E.EINTR, !begun, by)
      else if (kind === 'sleep' || (kind === 'close' && begun)) this.#answer(item, 0, false, by)
      else this.#turnsOf(item).putBack(item)
    }
    thread.close()
  }

  #hand(): void {
    this.#handFrom(this.#messages, true)
    this.#handFrom(this.#waiting, false)
  }

  #handFrom(turns: Turns, telling: boolean): void {
    for (let next; (next = turns.first) !== undefined;) {
      const sleeps = next.task.kind === 'sleep'
      if (sleeps && this.#sleepers !== null) {
        this.#sleepers.push(next)
        turns.take()
        continue
      }
      const thread = this.#pick(telling, next.owner)
      if (thread === undefined) return
      turns.take()
      if (sleeps && thread !== null) this.#sleepers = []
      if (thread === null) next.owner.leave(next)
      else thread.give(next)
    }
  }

  /**
   * Undefined: all have enough to do. Null: there is none, and none can be started. A message to
   * the kernel waits for requests of the kernel, which may wait for other tasks (data written back
   * to a file that is copied up for it): no such task is put behind one, so all messages go to one
   * thread.
   */
  #pick(telling: boolean, owner: Owner): IoThread | null | undefined {
    const threads = [...this.#threads]
    const teller = threads.find(thread => thread.isTelling)
    if (telling && teller !== undefined) return teller.hasRoom ? teller : undefined
    const idle = threads.find(thread => thread.given.size === 0)
    if (idle !== undefined) return idle
    const others = threads.filter(thread => thread !== teller)
    if (others.length < THREADS && performance.now() >= this.#retryAt) {
      const thread = this.#startThread(owner)
      if (thread !== null) return thread
    }
    if (others.length === 0) return null
    return others
      .filter(thread => thread.hasRoom)
      .toSorted((a, b) => a.given.size - b.given.size)[0]
  }

  #startThread(owner: Owner): IoThread | null {
    // A process that ends while a thread loads the library would be aborted.
    if (!watchesExit) process.on('exit', () => void settle())
    watchesExit = true
    try {
      const thread = new IoThread({
        owner,
        endsFd: this.endsFd,
        entry: this.#entry,
        startMs: this.#startMs,
        onExit: one => this.#threads.has(one) && this.attend(null),
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
const tell = (item: Submitted, result: Result, passed: boolean, by: Owner | null): void => {
  const { owner } = item
  owner.answered(item, result, passed)
  // It fails only where it is signalled already.
  if (owner !== by) void eventfdSignal(owner.wakeFd)
}

/** Whether no thread does anything any more for a union that has ended. */
const isThrough = ({ last }: Owner): boolean =>
  [...last].every(([thread, id]) => thread.isThrough(id))

/** Those of this thread. */
export const ioThreads = new IoThreads()

export const isSettled = (): boolean => ioThreads.isSettled()
export const leftovers = (): Promise<void> => ioThreads.leftovers()
