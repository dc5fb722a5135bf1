/**
 * Giving memory back. The engine collects garbage when it needs room, and while a program is idle;
 * the union's thread never is in the engine's eyes, as its event loop does not turn. So what
 * millions of forgotten nodes took would stay with the process. Here it is told when to look.
 */

import { heap } from '../../overlay/inode/heap.js'

/** So many forgotten nodes are worth a collection: 10 MiB. */
const WORTH = 20_000
/** So many are worth one in any case where there is no room. */
const MANY = 10 * WORTH
/** After so much silence, in milliseconds. It takes some tens of them for a heap of 100 MiB. */
const QUIET_MS = 1000

export class Tidy {
  readonly #collect: () => void
  #forgotten = 0

  constructor(collect = () => heap.collect()) {
    this.#collect = collect
  }

  /** The kernel has given back so many nodes. */
  forgot(nodes: number): void {
    this.#forgotten += nodes
    // Who makes nothing new for want of room waits for that.
    if (heap.isFull && this.#forgotten >= MANY) this.quiet()
  }

  /** How long to sleep before `quiet` is to be called, in milliseconds; -1: for ever. */
  get patience(): number {
    return this.#forgotten < WORTH ? -1 : QUIET_MS
  }

  /** It has been quiet for so long. */
  quiet(): void {
    this.#forgotten = 0
    this.#collect()
  }
}
