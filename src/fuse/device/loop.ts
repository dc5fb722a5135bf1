/**
 * The loop of a union's thread. It serves all connections of the thread, one request at a time, and
 * waits for the next request with epoll(7). After a burst, a connection with many requests yields
 * to the others.
 *
 * Node's event loop does not run while this loop serves. The thread fetches messages of the main
 * thread when `wakeFd` is signalled.
 */

import { MountError } from '../../errors.js'
import { Epoll, EPOLLIN } from '../../sys/epoll.js'
import { errnoName } from '../../sys/errno.js'
import { eventfd, eventfdDrain } from '../../sys/io.js'
import { BusyPoll } from './busy-poll.js'
import { IdleGc } from './idle-gc.js'

/** What `serve`, `wake` and `tick` return when the member has ended. */
export const ENDED = -1

/** A connection, as seen by the loop. */
export interface Member {
  /** Readable if there are requests. */
  readonly fd: number
  /** An eventfd. The loop drains it before it calls `wake`. */
  readonly wakeFd: number
  /**
   * Serves at most `limit` requests. Returns how many it has served, or ENDED.
   * @param alone the loop will call it again at once, and its requests come close together
   */
  serve(limit: number, alone: boolean): number
  /** `wakeFd` was signalled: 0 or ENDED. */
  wake(): number
  /** Its requests must wait; the loop does not poll `fd` meanwhile. */
  readonly held: boolean
  /** When `tick` must be called, in milliseconds of performance.now(); Infinity: never. */
  readonly due: number
  tick(): number
  /** The loop has removed the member: its descriptors can be closed. */
  ended(): void
}

/** After this number of requests of one connection, the loop serves the others. */
const BURST = 64

/**
 * Numbers in the epoll instance: `2n` stands for the requests of the n-th member, `2n + 1` for its
 * wakeup descriptor. 1 stands for the loop's own `wakeFd`.
 */
const WAKEUP = 1

interface Slot {
  readonly member: Member
  readonly number: number
  held: boolean
  gone: boolean
}

export class Loop {
  /** Wakes the loop for messages: it calls `onMessages`. */
  readonly wakeFd = eventfd()
  readonly idleGc = new IdleGc()
  readonly #epoll = new Epoll()
  readonly #onMessages: () => void
  readonly #busyPoll = new BusyPoll()
  readonly #slots = new Map<number, Slot>()
  /** Members that may have requests. */
  readonly #ready = new Set<Slot>()
  /** Members with a time at which `tick` is due. */
  readonly #timed = new Set<Slot>()
  /** The member that was served last. */
  #last: Slot | undefined
  #next = 1
  readonly #timers = new Map<() => void, number>()
  readonly #meter: Meter

  /**
   * @param onMessages called when `wakeFd` was signalled
   * @param load receives the thread's load
   */
  constructor(onMessages: () => void, load: LoadReceiver = NO_RECEIVER) {
    this.#onMessages = onMessages
    this.#meter = new Meter(load)
    const r = this.#epoll.fd < 0 ? this.#epoll.fd : this.#epoll.add(this.wakeFd, WAKEUP)
    if (r < 0) throw new MountError(`no epoll instance: ${errnoName(r)}`, { code: errnoName(r) })
  }

  get size(): number {
    return this.#slots.size
  }

  /** @throws {MountError} no memory, or the limit fs.epoll.max_user_watches is reached */
  add(member: Member): void {
    const number = this.#next++
    const slot = { member, number, held: false, gone: false }
    let r = this.#epoll.add(member.wakeFd, number * 2 + WAKEUP)
    if (r >= 0) {
      r = this.#epoll.add(member.fd, number * 2)
      if (r < 0) this.#epoll.remove(member.wakeFd)
    }
    if (r < 0)
      throw new MountError(`the connection can't be waited for: ${errnoName(r)}`, {
        code: errnoName(r),
      })
    this.#slots.set(number, slot)
    this.#ready.add(slot)
  }

  /** Removes a member and calls its `ended`. */
  end(member: Member): void {
    for (const slot of this.#slots.values()) {
      if (slot.member === member) this.#remove(slot)
    }
  }

  /** Calls back once, after `ms` milliseconds, if the loop still runs at that time. */
  after(ms: number, callback: () => void): void {
    this.#timers.set(callback, performance.now() + ms)
  }

  /**
   * Serves until there is no member. It also fetches messages and runs timers: the end of the last
   * member may depend on a callback.
   */
  run(): void {
    this.#onMessages()
    while (this.#slots.size > 0) this.#iterate()
  }

  #iterate(): void {
    let timeout = 0
    let sleeps = false
    const last = this.#last
    if (this.#ready.size === 0) {
      if (last !== undefined && this.#busyPoll.again()) {
        if (this.#serve(last, true)) return this.#busyPoll.found()
      } else {
        sleeps = true
        timeout = this.#sleepTime()
      }
    }
    if (sleeps) this.#meter.sleep()
    const n = this.#epoll.wait(timeout)
    if (sleeps) {
      this.#meter.wake()
      this.#busyPoll.slept()
    }
    if (n < 0) throw new Error(`epoll_wait failed: ${errnoName(n)}`)
    if (n === 0 && sleeps) this.#timedOut()
    for (let i = 0; i < n; i++) this.#event(this.#epoll.number(i))
    if (this.#ready.size > 0) this.#serveAll()
  }

  /** How long the thread may sleep, in milliseconds; -1: forever. */
  #sleepTime(): number {
    const { timeout } = this.idleGc
    let due = Infinity
    for (const { member } of this.#timed) due = Math.min(due, member.due)
    for (const at of this.#timers.values()) due = Math.min(due, at)
    if (due === Infinity) return timeout
    const left = Math.max(0, due - performance.now())
    return timeout < 0 ? left : Math.min(left, timeout)
  }

  /** The sleep has timed out: runs timers and ticks that are due, or else the idle gc. */
  #timedOut(): void {
    const now = performance.now()
    let any = false
    for (const slot of this.#timed) {
      if (slot.member.due > now) continue
      any = true
      this.#afterCall(slot, slot.member.tick())
    }
    for (const [callback, at] of this.#timers) {
      if (at > now) continue
      any = true
      this.#timers.delete(callback)
      callback()
    }
    if (!any && this.idleGc.timeout >= 0) this.idleGc.run()
  }

  #event(number: number): void {
    if (number === WAKEUP) {
      eventfdDrain(this.wakeFd)
      this.#onMessages()
      return
    }
    const slot = this.#slots.get(number >>> 1)
    if (slot === undefined) return
    if ((number & WAKEUP) === 0) {
      this.#ready.add(slot)
      return
    }
    eventfdDrain(slot.member.wakeFd)
    this.#afterCall(slot, slot.member.wake())
  }

  #serveAll(): void {
    this.#busyPoll.found()
    for (const slot of this.#ready) this.#serve(slot, false)
  }

  /** Whether the member has served a request, or has ended. */
  #serve(slot: Slot, alone: boolean): boolean {
    const served = slot.member.serve(BURST, alone || this.#busyPoll.active)
    if (served < BURST) this.#ready.delete(slot)
    else this.#ready.add(slot)
    this.#afterCall(slot, served)
    if (served > 0) this.#last = slot
    return served !== 0
  }

  #afterCall(slot: Slot, result: number): void {
    if (result === ENDED) return this.#remove(slot)
    if (slot.gone) return
    const { member, number } = slot
    if (member.due === Infinity) this.#timed.delete(slot)
    else this.#timed.add(slot)
    const { held } = member
    if (held === slot.held) return
    slot.held = held
    this.#epoll.change(member.fd, number * 2, held ? 0 : EPOLLIN)
    if (held) this.#ready.delete(slot)
  }

  #remove(slot: Slot): void {
    slot.gone = true
    this.#epoll.remove(slot.member.fd)
    this.#epoll.remove(slot.member.wakeFd)
    this.#slots.delete(slot.number)
    this.#ready.delete(slot)
    this.#timed.delete(slot)
    if (this.#last === slot) this.#last = undefined
    slot.member.ended()
  }
}

/** Receives how busy the thread is. */
export interface LoadReceiver {
  /** The busy share of a span of at least METER_MS, in thousandths. */
  report(permille: number): void
  /** The thread begins to wait for the next event, or has stopped. */
  sleeping(sleeps: boolean): void
}
const NO_RECEIVER: LoadReceiver = { report: () => {}, sleeping: () => {} }

/** The minimum span of a load value in milliseconds: a short burst of requests is no load. */
const METER_MS = 500

/** Measures the thread's busy time, from its first sleep on. */
class Meter {
  readonly #receiver: LoadReceiver
  #from = -1
  #slept = 0
  #sleepsFrom = 0

  constructor(receiver: LoadReceiver) {
    this.#receiver = receiver
  }

  sleep(): void {
    this.#receiver.sleeping(true)
    const now = performance.now()
    this.#sleepsFrom = now
    const span = now - this.#from
    if (this.#from >= 0 && span < METER_MS) return
    if (this.#from >= 0) this.#receiver.report(Math.round((1000 * (span - this.#slept)) / span))
    this.#from = now
    this.#slept = 0
  }

  wake(): void {
    this.#receiver.sleeping(false)
    this.#slept += performance.now() - this.#sleepsFrom
  }
}
