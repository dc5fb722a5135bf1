/**
 * Tasks that wait for a thread. The unions take turns, so that one with many tasks keeps nobody
 * else waiting for all of them.
 */

import type { ThreadUser, QueuedTask } from './thread.js'

export class Turns {
  /** By union, in the order of their turns; none is empty. */
  readonly #queues = new Map<ThreadUser, QueuedTask[]>()

  push(item: QueuedTask): void {
    const queue = this.#queues.get(item.user)
    if (queue === undefined) this.#queues.set(item.user, [item])
    else queue.push(item)
  }

  /** It was taken, and not begun: the next of its union. */
  requeue(item: QueuedTask): void {
    const queue = this.#queues.get(item.user)
    if (queue === undefined) this.#queues.set(item.user, [item])
    else queue.unshift(item)
  }

  /** The next one; it stays. */
  get first(): QueuedTask | undefined {
    for (const [item] of this.#queues.values()) return item
    return undefined
  }

  /** Takes the next one; its union's turn comes again after those of all others. */
  shift(): QueuedTask | undefined {
    for (const [user, queue] of this.#queues) {
      const item = queue.shift()
      this.#queues.delete(user)
      if (queue.length > 0) this.#queues.set(user, queue)
      return item
    }
    return undefined
  }

  /** Takes all of a union. */
  drop(user: ThreadUser): QueuedTask[] {
    const queue = this.#queues.get(user) ?? []
    this.#queues.delete(user)
    return queue
  }
}
