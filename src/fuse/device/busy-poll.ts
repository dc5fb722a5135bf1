/**
 * Decides whether the union's thread polls the device before it sleeps. A caller that has its
 * answer often sends the next request within microseconds. The wakeup of a sleeping thread on
 * another processor takes longer than the request itself. So if requests arrive close together, the
 * thread polls for a moment, and yields the processor to other threads. Otherwise it sleeps at
 * once.
 */

import { availableParallelism } from 'node:os'
import { schedYield } from '../../sys/proc.js'

/** How long a thread polls before it sleeps, in milliseconds. */
const LINGER_MS = 0.05
/**
 * Polling would have avoided a sleep that is shorter than this, wakeup included. In milliseconds.
 */
const SHORT_MS = 0.1
/** The thread polls after this number of short sleeps in a row. */
const ENOUGH = 2

export class Linger {
  readonly #alone: boolean
  readonly #now: () => number
  readonly #giveWay: () => void
  /** The time of the first poll without a result, or -1. */
  #since = -1
  #short = 0

  /**
   * @param processors the number of processors that the thread may run on
   * @param now milliseconds of a monotonic clock
   * @param giveWay yields the processor
   */
  constructor(
    processors = availableParallelism(),
    now = (): number => performance.now(),
    giveWay = schedYield,
  ) {
    this.#alone = processors === 1
    this.#now = now
    this.#giveWay = giveWay
  }

  /** Whether recent sleeps were short, so that polling is worth its system calls. */
  get looks(): boolean {
    return this.#short >= ENOUGH
  }

  /** A poll has found nothing. True: poll again. False: sleep, and call `waited` afterwards. */
  on(): boolean {
    if (this.#alone) return false
    const now = this.#now()
    if (this.#since < 0) this.#since = now
    if (this.#short < ENOUGH || now - this.#since > LINGER_MS) return false
    this.#giveWay()
    return true
  }

  /** A sleep has ended. */
  waited(): void {
    if (this.#alone) return
    if (this.#since >= 0 && this.#now() - this.#since < SHORT_MS) this.#short++
    else this.#short = 0
    this.#since = -1
  }

  /** A poll has found a request. */
  end(): void {
    this.#since = -1
  }
}
