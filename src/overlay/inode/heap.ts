/**
 * Watches the V8 heap of this thread. V8 aborts a thread that exceeds its heap limit, and all of
 * its unions with it. Before that, the unions release nodes that the kernel can forget. If that is
 * not enough, they create no new nodes.
 */

import { getHeapStatistics, setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { trimMemory } from '../../sys/proc.js'

/** Runs a full collection now, with v8's own `gc`, which is hidden by default. */
export const collectGarbage = (): void => {
  setFlagsFromString('--expose-gc')
  const gc: unknown = runInNewContext('gc')
  // The flag applies to the whole process. The program that mounts may not want it.
  setFlagsFromString('--no-expose-gc')
  if (typeof gc === 'function') gc()
  trimMemory()
}

const measure = (): number => {
  const { used_heap_size: used, heap_size_limit: limit } = getHeapStatistics()
  return used / limit
}

/** The number of new objects between two measurements. An object has some hundred bytes. */
const MEASURE_EVERY = 4096
/**
 * Fractions of the heap limit. Above HIGH the kernel is asked to forget nodes. Above FULL no new
 * nodes are created.
 */
const HIGH = 1 / 2
const FULL = 3 / 4
/**
 * The duration of a collection grows with the heap. The heap must have grown by this fraction of
 * the limit since the last collection.
 */
const MIN_GROWTH = 1 / 16

export class Heap {
  readonly #measure: () => number
  readonly #collect: () => void
  #made = 0
  /** The used fraction after the last collection. */
  #left = 0
  /** The used fraction at the last measurement, garbage included. */
  used = 0
  /** Called after a collection. */
  onCollected: () => void = () => {}

  constructor(read = measure, collect = collectGarbage) {
    this.#measure = read
    this.#collect = collect
  }

  /** The kernel should forget nodes. */
  get isHigh(): boolean {
    return this.#left > HIGH
  }

  /** There is no room for new nodes. */
  get isFull(): boolean {
    return this.#left > FULL
  }

  /** Counts new objects that stay alive. */
  allocated(objects: number): void {
    this.#made += objects
    if (this.#made < MEASURE_EVERY) return
    this.#made = 0
    this.#look(HIGH)
  }

  /**
   * Whether there is room for as many objects as `allocated` may count between two measurements.
   */
  hasRoom(): boolean {
    this.#look(FULL)
    return this.used <= FULL
  }

  #look(limit: number): void {
    this.used = this.#measure()
    if (this.used > limit && this.used > this.#left + MIN_GROWTH) this.collect()
  }

  collect(): void {
    this.#collect()
    this.#left = this.used = this.#measure()
    this.onCollected()
  }
}

/** The heap of this thread. */
export const heap = new Heap()
