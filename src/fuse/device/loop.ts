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
import { Linger } from './busy-poll.js'
import { Tidy } from './idle-gc.js'

/** What `serve`, `wake` and `tick` return when the member has ended. */
export const ENDED = -1

/** A connection, as seen by the loop. */
export interface Member {
  /** Readable if there are requests. */
  readonly fd: number
  /** An eventfd. The loop drains it before it calls `wake`. */
  readonly wakeFd: number
  /**
   * Serves at most `most` requests. Returns how many it has served, or ENDED.
   * @param alone the loop will call it again at once, and its requests come close together
   */
  serve(most: number, alone: boolean): number
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
const WAKE_UP = 1

interface Seat {
  readonly member: Member
  readonly number: number
  held: boolean
  gone: boolean
}

export class Loop {
  /** Wakes the loop for messages: it calls `onMessages`. */
  readonly wakeFd = eventfd()
  readonly tidy = new Tidy()
  readonly #epoll = new Epoll()
  readonly #onMessages: () => void
  readonly #linger = new Linger()
  readonly #seats = new Map<number, Seat>()
  /** Members that may have requests. */
  readonly #ready = new Set<Seat>()
  /** Members with a time at which `tick` is due. */
  readonly #timed = new Set<Seat>()
  /** The member that was served last. */
  #last: Seat | undefined
  #next = 1
  readonly #timers = new Map<() => void, number>()
  readonly #meter: Meter

  /**
   * @param onMessages called when `wakeFd` was signalled
   * @param onLoad called from time to time with the thread's load, in thousandths
   */
  constructor(onMessages: () => void, onLoad: (permille: number) => void = () => {}) {
    this.#onMessages = onMessages
    this.#meter = new Meter(onLoad)
    const r = this.#epoll.fd < 0 ? this.#epoll.fd : this.#epoll.add(this.wakeFd, WAKE_UP)
    if (r < 0) throw new MountError(`no epoll instance: ${errnoName(r)}`, { code: errnoName(r) })
  }

  get size(): number {
    return this.#seats.size
  }

  /** @throws {MountError} no memory, or the limit fs.epoll.max_user_watches is reached */
  add(member: Member): void {
    const number = this.#next++
    const seat = { member, number, held: false, gone: false }
    let r = this.#epoll.add(member.wakeFd, number * 2 + WAKE_UP)
    if (r >= 0) {
      r = this.#epoll.add(member.fd, number * 2)
      if (r < 0) this.#epoll.remove(member.wakeFd)
    }
    if (r < 0)
      throw new MountError(`the connection can't be waited for: ${errnoName(r)}`, {
        code: errnoName(r),
      })
    this.#seats.set(number, seat)
    this.#ready.add(seat)
  }

  /** Removes a member and calls its `ended`. */
  end(member: Member): void {
    for (const seat of this.#seats.values()) {
      if (seat.member === member) this.#remove(seat)
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
    while (this.#seats.size > 0) this.#turn()
  }

  #turn(): void {
    let timeout = 0
    let sleeps = false
    const last = this.#last
    if (this.#ready.size === 0) {
      if (last !== undefined && this.#linger.on()) {
        if (this.#serve(last, true)) return this.#linger.end()
      } else {
        sleeps = true
        timeout = this.#patience()
      }
    }
    if (sleeps) this.#meter.sleep()
    const n = this.#epoll.wait(timeout)
    if (sleeps) {
      this.#meter.wake()
      this.#linger.waited()
    }
    if (n < 0) throw new Error(`epoll_wait failed: ${errnoName(n)}`)
    if (n === 0 && sleeps) this.#late()
    for (let i = 0; i < n; i++) this.#event(this.#epoll.number(i))
    if (this.#ready.size > 0) this.#serveAll()
  }

  /** How long the thread may sleep, in milliseconds; -1: forever. */
  #patience(): number {
    const { patience } = this.tidy
    let due = Infinity
    for (const { member } of this.#timed) due = Math.min(due, member.due)
    for (const at of this.#timers.values()) due = Math.min(due, at)
    if (due === Infinity) return patience
    const left = Math.max(0, due - performance.now())
    return patience < 0 ? left : Math.min(left, patience)
  }

  /** The sleep has timed out: runs timers and ticks that are due, or else the idle gc. */
  #late(): void {
    const now = performance.now()
    let any = false
    for (const seat of this.#timed) {
      if (seat.member.due > now) continue
      any = true
      this.#after(seat, seat.member.tick())
    }
    for (const [callback, at] of this.#timers) {
      if (at > now) continue
      any = true
      this.#timers.delete(callback)
      callback()
    }
    if (!any && this.tidy.patience >= 0) this.tidy.quiet()
  }

  #event(number: number): void {
    if (number === WAKE_UP) {
      eventfdDrain(this.wakeFd)
      this.#onMessages()
      return
    }
    const seat = this.#seats.get(number >>> 1)
    if (seat === undefined) return
    if ((number & WAKE_UP) === 0) {
      this.#ready.add(seat)
      return
    }
    eventfdDrain(seat.member.wakeFd)
    this.#after(seat, seat.member.wake())
  }

  #serveAll(): void {
    this.#linger.end()
    for (const seat of this.#ready) this.#serve(seat, false)
  }

  /** Whether the member has served a request, or has ended. */
  #serve(seat: Seat, alone: boolean): boolean {
    const served = seat.member.serve(BURST, alone || this.#linger.looks)
    if (served < BURST) this.#ready.delete(seat)
    else this.#ready.add(seat)
    this.#after(seat, served)
    if (served > 0) this.#last = seat
    return served !== 0
  }

  #after(seat: Seat, result: number): void {
    if (result === ENDED) return this.#remove(seat)
    if (seat.gone) return
    const { member, number } = seat
    if (member.due === Infinity) this.#timed.delete(seat)
    else this.#timed.add(seat)
    const { held } = member
    if (held === seat.held) return
    seat.held = held
    this.#epoll.change(member.fd, number * 2, held ? 0 : EPOLLIN)
    if (held) this.#ready.delete(seat)
  }

  #remove(seat: Seat): void {
    seat.gone = true
    this.#epoll.remove(seat.member.fd)
    this.#epoll.remove(seat.member.wakeFd)
    this.#seats.delete(seat.number)
    this.#ready.delete(seat)
    this.#timed.delete(seat)
    if (this.#last === seat) this.#last = undefined
    seat.member.ended()
  }
}

/** The load is reported at most once in this number of milliseconds. */
const METER_MS = 100

/** Measures the thread's busy time. */
class Meter {
  readonly #tell: (permille: number) => void
  #from = performance.now()
  #slept = 0
  #sleepsFrom = 0

  constructor(tell: (permille: number) => void) {
    this.#tell = tell
  }

  sleep(): void {
    const now = performance.now()
    this.#sleepsFrom = now
    const span = now - this.#from
    if (span < METER_MS) return
    this.#tell(Math.round((1000 * (span - this.#slept)) / span))
    this.#from = now
    this.#slept = 0
  }

  wake(): void {
    this.#slept += performance.now() - this.#sleepsFrom
  }
}
