/**
 * A mount as seen from the main thread: starts the union's thread, receives its log and unmounts.
 */

import { MountError } from '../errors.js'
import type { Logger } from '../log.js'
import type { ByteString } from '../overlay/ops.js'
import type { Answer } from '../overlay/namei/which.js'
import { close } from '../sys/io.js'
import { widenDescriptorTable } from '../sys/proc.js'
import { mountByHelper } from '../fuse/mount/fusermount.js'
import type { IoMode } from '../fuse/protocol/init.js'
import {
  plainError,
  reviveError,
  type FromWorker,
  type ServeOptions,
  type ToWorker,
} from './messages.js'
import type { MountRequest } from '../fuse/mount/request.js'
import { detach } from '../fuse/mount/mount.js'
import { Queries, StatsQueries, type Stats } from '../fuse/session/stats.js'
import type { Server } from './transport.js'
import { threadFor, type UnionListener, type UnionThread } from './thread.js'
import { deferred, unmountServer } from '../fuse/mount/unmount.js'
import { watchOver } from '../fuse/mount/watcher.js'

/**
 * Starts a union; resolves when the mount is live.
 * @param early a thread that was started in advance
 * @param share the thread may serve other unions, too. Then no layer may be on one of these unions,
 *   because the thread would wait for itself
 */
export const startServer = async (
  options: ServeOptions,
  log: Logger,
  early?: UnionThread,
  share = false,
): Promise<Server> => {
  const server = new Serving(options, log, early, share)
  await server.ready
  return server
}

class Serving implements Server, UnionListener {
  readonly mountpoint: string
  readonly ready: Promise<void>
  readonly closed: Promise<void>
  io: IoMode = 'cached'

  readonly #log: Logger
  readonly #thread: UnionThread
  readonly #union: number
  readonly #stats = new StatsQueries()
  readonly #explained = new Queries<Answer | undefined>(undefined)
  readonly #ready = deferred<void>()
  readonly #ended = deferred<void>()
  #deviceFd = -1
  #device: string | undefined
  readonly #way: ServeOptions['way']
  #endWatch: () => void = () => {}
  #live = false
  /** The thread has closed the union, or has died. */
  #hasEnded = false

  constructor(options: ServeOptions, log: Logger, early: UnionThread | undefined, share: boolean) {
    this.mountpoint = options.mountpoint
    this.#log = log
    this.#way = options.way
    this.ready = this.#ready.promise
    this.closed = this.#ended.promise
    // Callers need not await `closed`.
    this.closed.catch(() => {})
    this.#thread = threadFor(early, share)
    void widenDescriptorTable() // in parallel: it takes about as long as the thread needs to open the layers
    process.on('exit', this.#onExit)
    this.#union = this.#thread.serve({ type: 'serve', options }, this)
  }

  receive(message: FromWorker): void {
    switch (message.type) {
      case 'log':
        this.#log[message.level](message.fields, message.message)
        break
      case 'mount':
        void this.#mount(message.request)
        break
      case 'mounted':
        this.#deviceFd = message.deviceFd
        this.#device = message.device
        if (this.#way === 'fusermount' && message.device !== undefined)
          this.#endWatch = watchOver(this.mountpoint, message.device)
        break
      case 'ready':
        this.io = message.io
        this.#live = true
        this.#ready.resolve()
        break
      case 'stats':
        this.#stats.answer(message.id, message.stats)
        break
      case 'explained':
        this.#explained.answer(message.id, message.answer)
        break
      case 'closed':
        this.#deviceFd = -1
        this.#finish(message.error === undefined ? undefined : reviveError(message.error))
        break
    }
  }

  /** The main thread cleans up after a thread that died. */
  died(code: number, error: Error | undefined): void {
    // The mount has no server: any process that accesses it would wait forever.
    if (this.#deviceFd >= 0) {
      close(this.#deviceFd)
      detach(this.mountpoint, this.#device)
    }
    this.#deviceFd = -1
    this.#finish(error ?? new Error(`the union's thread ended with code ${code}`))
  }

  async #mount(request: MountRequest): Promise<void> {
    let answer: ToWorker
    try {
      answer = { type: 'device', fd: await mountByHelper(request) }
    } catch (error) {
      answer = { type: 'device', error: plainError(error) }
    }
    this.#thread.send(this.#union, answer)
  }

  #finish(failure: Error | undefined): void {
    if (this.#hasEnded) return
    this.#hasEnded = true
    process.off('exit', this.#onExit)
    this.#endWatch()
    this.#stats.end()
    this.#explained.end()
    if (failure === undefined) this.#ended.resolve()
    else this.#ended.reject(failure)
    this.#ready.reject(
      failure ?? new MountError('the mount was taken away while it was being made'),
    )
  }

  /** Once the mount is live, `exit-guard.ts` detaches it first. */
  readonly #onExit = (): void => {
    if (!this.#live) this.abandon()
  }

  /** The process joins the thread on exit, so a thread that waits for requests would block it. */
  abandon(): void {
    this.#send({ type: 'stop' })
  }

  #send(message: ToWorker): boolean {
    if (this.#hasEnded) return false
    this.#thread.send(this.#union, message)
    return true
  }

  unmount(options: { lazy?: boolean } = {}): Promise<void> {
    return this.#hasEnded ? this.closed : unmountServer(this, options)
  }

  stats(): Promise<Stats> {
    return this.#stats.ask(id => this.#live && this.#send({ type: 'stats', id }))
  }

  explain(names: ByteString[]): Promise<Answer | undefined> {
    return this.#explained.ask(id => this.#live && this.#send({ type: 'explain', id, names }))
  }
}
