/**
 * Whether to look again before going to sleep. A caller that has its answer mostly asks for the
 * next thing within microseconds, and to wake a sleeping thread up on another processor takes
 * longer than to find the answer (measured: 36 of 58 µs, of a lookup through an idle 2-processor
 * virtual machine). So where requests come close together the thread keeps looking for a moment,
 * giving way to whoever wants its processor; where they do not, it sleeps at once, as it does when
 * all is quiet.
 */

import { availableParallelism } from 'node:os'
import { schedYield } from '../../sys/proc.js'

/** How long a thread looks before it sleeps, in milliseconds. */
const LINGER_MS = 0.05
/** A sleep shorter than this, the waking included, would have been saved by looking. */
const SHORT_MS = 0.1
/** So many short sleeps, and none that was long, make it worth while. */
const ENOUGH = 2

export class Linger {
  readonly #alone: boolean
  readonly #now: () => number
  readonly #giveWay: () => void
  /** When the first look in vain was, or -1. */
  #since = -1
  #short = 0

  /**
   * @param processors that the thread may run on
   * @param now milliseconds, of a clock that only goes forward
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

  /** Whether it is worth while to look at all, rather than to sleep until there is something. */
  get looks(): boolean {
    return this.#short >= ENOUGH
  }

  /** There was nothing to do. Whether to look again; false: sleep, and say `waited` after it. */
  on(): boolean {
    if (this.#alone) return false
    const now = this.#now()
    if (this.#since < 0) this.#since = now
    if (this.#short < ENOUGH || now - this.#since > LINGER_MS) return false
    this.#giveWay()
    return true
  }

  /** A sleep is over. */
  waited(): void {
    if (this.#alone) return
    if (this.#since >= 0 && this.#now() - this.#since < SHORT_MS) this.#short++
    else this.#short = 0
    this.#since = -1
  }

  /** There was something to do. */
  end(): void {
    this.#since = -1
  }
}
