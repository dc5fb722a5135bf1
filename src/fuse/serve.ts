/**
 * A mount, seen from the main thread: starts the union's thread, hears its log, and unmounts.
 */

import type { Worker } from 'node:worker_threads'
import { MountError } from '../errors.js'
import type { Logger } from '../log.js'
import { close, eventfdSignal } from '../sys/io.js'
import { settle } from '../sys/loading.js'
import { widenDescriptorTable } from '../sys/proc.js'
import { Bell } from './bell.js'
import { mountByHelper, watchOver } from './fusermount.js'
import type { IoMode } from './init.js'
import {
  plainError,
  reviveError,
  type FromWorker,
  type ServeOptions,
  type ToWorker,
} from './messages.js'
import { detach, type MountRequest } from './mount.js'
import { AskedStats, type Stats } from './stats.js'
import { threadFor } from './union-thread.js'
import { deferred, unmountServer, type Deferred } from './unmount.js'

export type { ServeOptions } from './messages.js'

/** A live mount. */
export interface Server {
  readonly mountpoint: string
  readonly io: IoMode
  /**
   * Settles when the mount has ended, for whatever reason, and its thread and descriptors are gone;
   * rejects where the thread died of an error.
   */
  readonly closed: Promise<void>
  /**
   * Unmounts. A busy mount rejects with a MountError (EBUSY) unless `lazy`: then it leaves the tree at
   * once and is served until the last user has gone.
   */
  unmount(options?: { lazy?: boolean }): Promise<void>
  /** Ends the server whatever is still open, at once; the process is about to end. */
  abandon(): void
  /** Counters: requests by opcode, and so on. */
  stats(): Promise<Stats>
  /** Where it has a process of its own: ends that at once. False: it is gone already. */
  kill?(): boolean
}

/**
 * Starts a union; resolves when the mount is live.
 * @param early a thread that waits for something to serve
 */
export const startServer = async (
  options: ServeOptions,
  log: Logger,
  early?: Worker,
): Promise<Server> => {
  const server = new Serving(options, log, early)
  await server.ready
  return server
}

class Serving implements Server {
  readonly mountpoint: string
  readonly ready: Promise<void>
  readonly closed: Promise<void>
  io: IoMode = 'cached'

  readonly #log: Logger
  readonly #worker: Worker
  readonly #stats = new AskedStats()
  #deviceFds: number[] = []
  #bell: Bell | undefined
  #device: string | undefined
  #controlFd = -1
  readonly #way: ServeOptions['way']
  #endWatch: () => void = () => {}
  #live = false
  /** The thread has cleaned up and said so. */
  #over = false
  #failure: Error | undefined

  constructor(options: ServeOptions, log: Logger, early: Worker | undefined) {
    this.mountpoint = options.mountpoint
    this.#log = log
    this.#way = options.way
    this.#worker = threadFor(options, early)
    void widenDescriptorTable() // which takes about as long as the thread to open its layers
    const ready = deferred<void>()
    const ended = deferred<void>()
    this.ready = ready.promise
    this.closed = ended.promise
    // Nobody has to ask how it ended.
    this.closed.catch(() => {})

    this.#worker.on('message', (message: FromWorker) => {
      if (message.type === 'ready') {
        this.io = message.io
        this.#live = true
        ready.resolve()
      } else {
        this.#hear(message)
      }
    })
    this.#worker.on('error', error => {
      this.#failure = error
    })
    process.on('exit', this.#onExit)
    this.#worker.on('exit', code => {
      process.off('exit', this.#onExit)
      this.#settle(code, ready, ended)
    })
  }

  #hear(message: FromWorker): void {
    switch (message.type) {
      case 'log':
        this.#log[message.level](message.fields, message.message)
        break
      case 'mounted':
        this.#deviceFds = message.deviceFds
        this.#bell = new Bell(message.bell)
        this.#device = message.device
        this.#controlFd = message.controlFd
        if (this.#way === 'fusermount' && message.device !== undefined)
          this.#endWatch = watchOver(this.mountpoint, message.device)
        break
      case 'mount':
        void this.#mount(message.request)
        break
      case 'stats':
        this.#stats.answer(message.id, message.stats)
        break
      case 'later':
        setTimeout(() => this.#wake(), message.ms).unref()
        break
      case 'closed':
        this.#over = true
        this.#deviceFds = []
        if (message.error !== undefined) this.#failure = reviveError(message.error)
        break
      case 'ready':
        break
    }
  }

  async #mount(request: MountRequest): Promise<void> {
    let answer: ToWorker
    try {
      answer = { type: 'device', fd: await mountByHelper(request) }
    } catch (error) {
      answer = { type: 'device', error: plainError(error) }
    }
    this.#worker.postMessage(answer)
  }

  #settle(code: number, ready: Deferred<void>, ended: Deferred<void>): void {
    const failure = this.#end(code)
    this.#stats.end()
    if (failure === undefined) ended.resolve()
    else ended.reject(failure)
    ready.reject(failure ?? new MountError('the mount was taken away while it was being made'))
  }

  /** The thread is gone. What it could not do itself is done here; returns why it died. */
  #end(code: number): Error | undefined {
    if (!this.#over) {
      this.#failure ??= new Error(`the union's thread ended with code ${code}`)
      // It has left a mount that nobody serves: whoever touches it would wait for ever.
      if (this.#deviceFds.length > 0) {
        for (const fd of this.#deviceFds) close(fd)
        detach(this.mountpoint, this.#device)
      }
    }
    this.#endWatch()
    if (this.#controlFd >= 0) close(this.#controlFd)
    this.#controlFd = -1
    this.#deviceFds = []
    return this.#failure
  }

  /** Where there is a mount, `exit-guard.ts` takes it away first. */
  readonly #onExit = (): void => {
    if (!this.#live) this.abandon()
    settle() // the process would be aborted
  }

  /** A thread that waits for requests would hold up the exit of the process, which joins it. */
  abandon(): void {
    this.#tell({ type: 'stop' })
  }

  #tell(message: ToWorker): boolean {
    if (this.#controlFd < 0 || this.#over) return false
    this.#worker.postMessage(message)
    this.#wake()
    return true
  }

  #wake(): void {
    if (this.#controlFd < 0 || this.#over) return
    eventfdSignal(this.#controlFd)
    this.#bell?.ring(this.#deviceFds[0]!)
  }

  unmount(options: { lazy?: boolean } = {}): Promise<void> {
    return this.#over ? this.closed : unmountServer(this, options)
  }

  stats(): Promise<Stats> {
    return this.#stats.ask(id => this.#tell({ type: 'stats', id }))
  }
}
