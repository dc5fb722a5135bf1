/**
 * A queue of tasks that wait for a thread. The unions take turns, so that a union with many tasks
 * does not delay the others.
 */

import type { ThreadUser, QueuedTask } from './thread.js'

export class Turns {
  /** The queues of the unions, in the order of their turns. None is empty. */
  readonly #queues = new Map<ThreadUser, QueuedTask[]>()

  push(item: QueuedTask): void {
    const queue = this.#queues.get(item.user)
    if (queue === undefined) this.#queues.set(item.user, [item])
    else queue.push(item)
  }

  /** Puts a task back to the front of its union's queue: it was assigned, but not begun. */
  requeue(item: QueuedTask): void {
    const queue = this.#queues.get(item.user)
    if (queue === undefined) this.#queues.set(item.user, [item])
    else queue.unshift(item)
  }

  /** The next task. It stays in the queue. */
  get first(): QueuedTask | undefined {
    for (const [item] of this.#queues.values()) return item
    return undefined
  }

  /** Removes and returns the next task. Its union's next turn comes after those of all others. */
  shift(): QueuedTask | undefined {
    for (const [user, queue] of this.#queues) {
      const item = queue.shift()
      this.#queues.delete(user)
      if (queue.length > 0) this.#queues.set(user, queue)
      return item
    }
    return undefined
  }

  /** Removes and returns all tasks of a union. */
  drop(user: ThreadUser): QueuedTask[] {
    const queue = this.#queues.get(user) ?? []
    this.#queues.delete(user)
    return queue
  }
}
