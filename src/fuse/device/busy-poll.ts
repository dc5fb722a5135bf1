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
const BUSY_POLL_MS = 0.05
/**
 * Polling would have avoided a sleep that is shorter than this, wakeup included. In milliseconds.
 */
const SHORT_SLEEP_MS = 0.1
/** The thread polls after this number of short sleeps in a row. */
const MIN_SHORT_SLEEPS = 2

export class BusyPoll {
  readonly #alone: boolean
  readonly #now: () => number
  readonly #yieldProcessor: () => void
  /** The time of the first poll without a result, or -1. */
  #firstPoll = -1
  #shortSleeps = 0

  /**
   * @param processors the number of processors that the thread may run on
   * @param now milliseconds of a monotonic clock
   * @param yieldProcessor yields the processor
   */
  constructor(
    processors = availableParallelism(),
    now = (): number => performance.now(),
    yieldProcessor = schedYield,
  ) {
    this.#alone = processors === 1
    this.#now = now
    this.#yieldProcessor = yieldProcessor
  }

  /** Whether recent sleeps were short, so that polling is worth its system calls. */
  get active(): boolean {
    return this.#shortSleeps >= MIN_SHORT_SLEEPS
  }

  /** A poll has found nothing. True: poll again. False: sleep, and call `slept` afterwards. */
  again(): boolean {
    if (this.#alone) return false
    const now = this.#now()
    if (this.#firstPoll < 0) this.#firstPoll = now
    if (this.#shortSleeps < MIN_SHORT_SLEEPS || now - this.#firstPoll > BUSY_POLL_MS) return false
    this.#yieldProcessor()
    return true
  }

  /** A sleep has ended. */
  slept(): void {
    if (this.#alone) return
    if (this.#firstPoll >= 0 && this.#now() - this.#firstPoll < SHORT_SLEEP_MS) this.#shortSleeps++
    else this.#shortSleeps = 0
    this.#firstPoll = -1
  }

  /** A poll has found a request. */
  found(): void {
    this.#firstPoll = -1
  }
}
