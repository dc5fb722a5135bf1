/**
 * What the engine's heap of this thread can hold. The engine ends a thread that needs more, and
 * with it all of its unions; so they give back what the kernel can do without before that, and make
 * nothing new where that does not help.
 */

import { getHeapStatistics, setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { trimMemory } from '../../sys/proc.js'

/** A full collection now (v8's own `gc`, which is hidden by default). */
export const collectGarbage = (): void => {
  setFlagsFromString('--expose-gc')
  const gc: unknown = runInNewContext('gc')
  // The flag is the whole process's, and the program that mounts may not want it.
  setFlagsFromString('--no-expose-gc')
  if (typeof gc === 'function') gc()
  trimMemory()
}

const measure = (): number => {
  const { used_heap_size: used, heap_size_limit: limit } = getHeapStatistics()
  return used / limit
}

/** New objects of some hundred bytes each: after so many it is measured again. */
const MEASURE_EVERY = 4096
/**
 * Parts of what it can hold: from here on the kernel is asked to forget, and nothing new is made.
 */
const HIGH = 1 / 2
const FULL = 3 / 4
/**
 * A collection takes as long as the heap is large, so it has to have grown by this part of the
 * limit since the last.
 */
const MIN_GROWTH = 1 / 16

export class Heap {
  readonly #measure: () => number
  readonly #collect: () => void
  #made = 0
  /** What the last collection has left. */
  #left = 0
  /** As a part of what it can hold, garbage included; as measured last. */
  used = 0
  /** Called after a collection. */
  onCollected: () => void = () => {}

  constructor(read = measure, collect = collectGarbage) {
    this.#measure = read
    this.#collect = collect
  }

  /** The kernel should forget something. */
  get isHigh(): boolean {
    return this.#left > HIGH
  }

  /** There is no room for what stays. */
  get isFull(): boolean {
    return this.#left > FULL
  }

  /** So many objects were made that stay. */
  allocated(objects: number): void {
    this.#made += objects
    if (this.#made < MEASURE_EVERY) return
    this.#made = 0
    this.#look(HIGH)
  }

  /** Whether there is room for as much again as `made` may bring between two measurements. */
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

/** Of this thread. */
export const heap = new Heap()
