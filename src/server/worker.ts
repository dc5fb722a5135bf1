/**
 * A union's thread: creates unions, mounts them and serves them in one loop until they are
 * unmounted.
 */

import { receiveMessageOnPort, type MessagePort } from 'node:worker_threads'
import { shareCounters } from '../overlay/layer/descriptor-budget.js'
import { isDrained, drained } from '../overlay/jobs/threads.js'
import { heap } from '../overlay/inode/heap.js'
import { directoryFds } from '../overlay/layer/layer.js'
import { threadInodeFiles } from '../overlay/file/inode-files.js'
import { Loop } from '../fuse/device/loop.js'
import { balance } from './heap-balance.js'
import {
  HEAP,
  LOAD,
  LOAD_AT,
  SLEEPS,
  SLEEPS_AT,
  type FromThread,
  type ToThread,
} from './messages.js'
import { Pipe } from '../fuse/device/pipe.js'
import { ServedUnion, type ThreadParts } from './served-union.js'
import { MAX_IO } from '../config/tuning.js'
import { Reply, Request } from '../fuse/protocol/wire.js'

/**
 * The kernel refuses to pass requests to a buffer that is smaller than a WRITE of MAX_IO. In
 * addition to the data, there are headers. A SETXATTR has at most 64 KiB and a name.
 */
const REQUEST_SIZE = MAX_IO + 64 * 1024
/** READ puts the data directly behind the header. Listings need no more than that. */
const REPLY_SIZE = MAX_IO + 4096
/** Interval at which the thread checks for running tasks of ended unions, in milliseconds. */
const LEFTOVERS_MS = 50

export class ServingThread {
  readonly #port: MessagePort
  readonly #loop: Loop
  readonly #unions = new Map<number, ServedUnion>()
  readonly #parts: ThreadParts

  readonly #onLive: () => void

  /**
   * @param load memory for the thread's load (thread.ts)
   * @param budgets memory shared with other threads of the process
   *   (overlay/layer/descriptor-budget.ts)
   * @param onLive called when a union is live
   */
  constructor(port: MessagePort, load: Int32Array, budgets: Int32Array, onLive: () => void) {
    this.#port = port
    this.#onLive = onLive
    shareCounters(budgets)
    heap.onCollected = () => {
      balance([...this.#unions.values()])
      Atomics.store(load, HEAP, Math.round(heap.used * 1000))
    }
    this.#loop = new Loop(() => this.#fetch(), {
      report: permille => {
        Atomics.store(load, LOAD, permille)
        Atomics.store(load, LOAD_AT, Date.now() | 0)
      },
      sleeping: sleeps => {
        Atomics.store(load, SLEEPS, sleeps ? 1 : 0)
        Atomics.store(load, SLEEPS_AT, Date.now() | 0)
      },
    })
    this.#parts = {
      loop: this.#loop,
      request: new Request(REQUEST_SIZE),
      reply: new Reply(REPLY_SIZE),
      pipe: new Pipe(),
    }
  }

  get wakeFd(): number {
    return this.#loop.wakeFd
  }

  get size(): number {
    return this.#unions.size
  }

  #fetch(): void {
    directoryFds.trim()
    threadInodeFiles.trim()
    for (;;) {
      const received = receiveMessageOnPort(this.#port)
      if (received === undefined) return
      this.receive(received.message as ToThread)
    }
  }

  receive({ union, ...message }: ToThread): void {
    if (message.type !== 'serve') {
      this.#unions.get(union)?.receive(message)
      return
    }
    const served = new ServedUnion(message.options, this.#parts, said => {
      if (said.type === 'closed') this.#ended(union)
      if (said.type === 'ready') this.#onLive()
      this.#port.postMessage({ type: 'union', union, message: said } satisfies FromThread)
    })
    this.#unions.set(union, served)
    served.open()
  }

  /**
   * Sends `idle` before the union's `closed`, because the receiver of `closed` may want the thread
   * for another union at once.
   */
  #ended(union: number): void {
    this.#loop.idleGc.forgot(this.#unions.get(union)?.nodes ?? 0)
    this.#unions.delete(union)
    if (this.#unions.size === 0 && isDrained())
      this.#port.postMessage({ type: 'idle' } satisfies FromThread)
    this.#checkLeftovers()
  }

  /**
   * Checks ended unions by a timer of the loop: while other unions are served, no event loop runs
   * that would complete their tasks.
   */
  readonly #checkLeftovers = (): void => {
    if (this.#unions.size > 0 && !isDrained()) this.#loop.after(LEFTOVERS_MS, this.#checkLeftovers)
  }

  /** Calls back once, after `ms` milliseconds, if the thread serves a union at that time. */
  after(ms: number, callback: () => void): void {
    this.#loop.after(ms, callback)
  }

  /** Serves until no union is left. */
  run(): void {
    this.#loop.run()
  }

  collectGarbage(): void {
    heap.collect()
  }

  /**
   * Sends `idle` when the last task of the ended unions has finished, unless it was sent already.
   */
  async awaitLeftovers(): Promise<void> {
    if (isDrained()) return
    await drained()
    if (this.#unions.size === 0) this.#port.postMessage({ type: 'idle' } satisfies FromThread)
  }
}
