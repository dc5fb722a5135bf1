/**
 * Runs the garbage collector when the union's thread is idle. The engine itself collects when it
 * needs room, or when its event loop is idle. The event loop of a union's thread does not run, so
 * the memory of forgotten nodes would stay with the process.
 */

import { heap } from '../../overlay/inode/heap.js'

/** After this number of forgotten nodes (about 10 MiB) a collection pays off. */
const MIN_FORGOTTEN = 20_000
/** After this number of forgotten nodes the collector runs at once if the heap is full. */
const MANY_FORGOTTEN = 10 * MIN_FORGOTTEN
/** Time without a request before a collection, in milliseconds. A collection blocks the thread. */
const IDLE_MS = 1000

export class IdleGc {
  readonly #collect: () => void
  #forgotten = 0

  constructor(collect = () => heap.collect()) {
    this.#collect = collect
  }

  /** The kernel has forgotten `nodes` nodes. */
  forgot(nodes: number): void {
    this.#forgotten += nodes
    // A union whose heap is full creates no nodes until a collection.
    if (heap.isFull && this.#forgotten >= MANY_FORGOTTEN) this.run()
  }

  /**
   * How long the thread must be idle before the caller calls `run`, in milliseconds; -1: no
   * collection is needed.
   */
  get timeout(): number {
    return this.#forgotten < MIN_FORGOTTEN ? -1 : IDLE_MS
  }

  /** Collects garbage now. */
  run(): void {
    this.#forgotten = 0
    this.#collect()
  }
}
