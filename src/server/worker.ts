/**
 * A union's thread: makes unions, mounts them, and serves them until they are unmounted, several at
 * a time by one loop.
 */

import { receiveMessageOnPort, type MessagePort } from 'node:worker_threads'
import { shareBudgets } from '../overlay/layer/descriptor-budget.js'
import { isSettled, leftovers } from '../overlay/jobs/threads.js'
import { heap } from '../overlay/inode/heap.js'
import { threadDirectories } from '../overlay/layer/layer.js'
import { threadStanding } from '../overlay/file/inode-files.js'
import { Loop } from '../fuse/device/loop.js'
import { balance } from './heap-balance.js'
import { HEAP, LOAD, LOAD_AT, type FromThread, type ToThread } from './messages.js'
import { Pipe } from '../fuse/device/pipe.js'
import { ServedUnion, type ThreadParts } from './served-union.js'
import { MAX_IO } from '../config/tuning.js'
import { Reply, Request } from '../fuse/protocol/wire.js'

/**
 * The kernel refuses to hand out requests to a smaller buffer than one for a WRITE of MAX_IO;
 * beside the data there are headers and, in SETXATTR, at most 64 KiB and a name.
 */
const REQUEST_SIZE = MAX_IO + 64 * 1024
/** Data is read to behind the header; copies of struct fuse_direntplus need no more. */
const REPLY_SIZE = MAX_IO + 4096
/** How often it is asked for the end of tasks of unions that have ended, in milliseconds. */
const LEFT_MS = 50

export class ServingThread {
  readonly #port: MessagePort
  readonly #loop: Loop
  readonly #unions = new Map<number, ServedUnion>()
  readonly #parts: ThreadParts

  readonly #onLive: () => void

  /**
   * @param load where it says how busy it is (thread.ts)
   * @param budgets what it shares with other threads of the process
   *   (overlay/layer/descriptor-budget.ts)
   * @param onLive called when a union is live
   */
  constructor(port: MessagePort, load: Int32Array, budgets: Int32Array, onLive: () => void) {
    this.#port = port
    this.#onLive = onLive
    shareBudgets(budgets)
    heap.onCollected = () => {
      balance([...this.#unions.values()])
      Atomics.store(load, HEAP, Math.round(heap.taken * 1000))
    }
    this.#loop = new Loop(
      () => this.#fetch(),
      permille => {
        Atomics.store(load, LOAD, permille)
        Atomics.store(load, LOAD_AT, Date.now() | 0)
      },
    )
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
    threadDirectories.trim()
    threadStanding.trim()
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

  /** Who hears of the end may want the thread for another union at once. */
  #ended(union: number): void {
    this.#loop.tidy.forgot(this.#unions.get(union)?.nodes ?? 0)
    this.#unions.delete(union)
    if (this.#unions.size === 0 && isSettled())
      this.#port.postMessage({ type: 'idle' } satisfies FromThread)
    this.#letGo()
  }

  /**
   * While others are served, no event loop turns that would let go of what has been under way for
   * one that has ended.
   */
  readonly #letGo = (): void => {
    if (this.#unions.size > 0 && !isSettled()) this.#loop.after(LEFT_MS, this.#letGo)
  }

  /** Calls back once, after so many milliseconds, if it serves something then. */
  after(ms: number, callback: () => void): void {
    this.#loop.after(ms, callback)
  }

  /** Serves until nothing is left to do but to wait for messages. */
  run(): void {
    this.#loop.run()
  }

  collectGarbage(): void {
    heap.collect()
  }

  /**
   * Says so when nothing of the unions that have ended is under way any more, where it could not
   * before.
   */
  async settle(): Promise<void> {
    if (isSettled()) return
    await leftovers()
    if (this.#unions.size === 0) this.#port.postMessage({ type: 'idle' } satisfies FromThread)
  }
}
