/**
 * A mount through fuse-native as seen from the caller's process: starts the process that serves it,
 * receives its log and unmounts.
 *
 * The kernel transport uses a thread; this one needs a process. The package runs its handlers on
 * the process's default event loop, so it must be in a main thread. In the caller's main thread, a
 * synchronous call on the mount would wait for itself forever, and a crash of the C side would end
 * the program.
 */

import { fork, type ChildProcess } from 'node:child_process'
import { statfs } from 'node:fs/promises'
import { MountError } from '../errors.js'
import { tuneBdi } from '../fuse/device/bdi.js'
import { reviveError, type ServeOptions } from '../server/messages.js'
import { detach, mountedDevice } from '../fuse/mount/mount.js'
import type { Server } from '../server/transport.js'
import { StatsQueries, type Stats } from '../fuse/session/stats.js'
import { deferred, unmountServer } from '../fuse/mount/unmount.js'
import type { Logger } from '../log.js'
import { errnoMessage } from '../sys/errno.js'
import { MS_BIND, MS_REMOUNT } from '../sys/constants.js'
import { mount } from '../sys/mount.js'
import { laterFlags } from './options.js'
import type { FromProcess, ToProcess } from './process.js'
import { entryPoint } from '../sys/entry-points.js'

const entry = entryPoint('fuse-native/process')

/** Starts a union; resolves when the mount is live. */
export const startServer = async (options: ServeOptions, log: Logger): Promise<Server> => {
  const server = new Serving(options, log)
  await server.ready
  // The package reports the mount before the kernel has processed the answer to INIT, which would
  // reset the readahead. statfs(2) waits for that.
  await statfs(options.mountpoint).catch(() => {})
  if (server.device !== undefined) tuneBdi(server.device, log)
  remount(options, log)
  return server
}

/** Remounts from this process, because the other one must not wait for itself. */
const remount = ({ mountpoint, mountFlags }: ServeOptions, log: Logger): void => {
  const flags = laterFlags(mountFlags)
  if (flags === 0) return
  const r = mount(null, mountpoint, null, MS_REMOUNT | MS_BIND | flags)
  if (r < 0) log.warn({ error: errnoMessage(r) }, 'not all mount flags could be set')
}

class Serving implements Server {
  readonly mountpoint: string
  readonly ready: Promise<void>
  readonly closed: Promise<void>
  readonly io = 'cached'

  readonly #log: Logger
  readonly #child: ChildProcess
  readonly #stats = new StatsQueries()
  #live = false
  #device: string | undefined
  /** The process has closed the union and reported it. */
  #hasEnded = false
  /** It was killed by this process. */
  #killed = false
  #failure: Error | undefined
  /** The last output of libfuse. */
  #stderr = ''

  constructor(options: ServeOptions, log: Logger) {
    this.mountpoint = options.mountpoint
    this.#log = log
    const ready = deferred<void>()
    const ended = deferred<void>()
    this.ready = ready.promise
    this.closed = ended.promise
    // Callers need not await `closed`.
    this.closed.catch(() => {})

    const before = mountedDevice(this.mountpoint)
    // Detached by setsid(2), so that terminal signals do not reach it. It inherits no descriptors.
    this.#child = fork(entry, [], {
      cwd: '/',
      detached: true,
      execArgv: [],
      serialization: 'advanced',
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    })
    this.#child.stderr?.setEncoding('utf8').on('data', (text: string) => this.#logStderr(text))
    this.#child.on('message', (message: FromProcess) => {
      if (message.type === 'ready') {
        this.#live = true
        ready.resolve()
      } else {
        this.#receive(message)
      }
    })
    this.#child.on('error', error => {
      this.#failure ??= error
    })
    process.on('exit', this.#onExit)
    this.#child.on('close', (code, signal) => {
      process.off('exit', this.#onExit)
      this.#device ??= this.#newMount(before)
      const failure = this.#onClose(signal ?? `code ${code}`)
      this.#stats.end()
      if (failure === undefined) ended.resolve()
      else ended.reject(failure)
      ready.reject(failure ?? new MountError('the mount was taken away while it was being made'))
    })
    this.#send({ type: 'start', options })
  }

  /** The device of a mount that was made without a report. */
  #newMount(before: string | undefined): string | undefined {
    const now = mountedDevice(this.mountpoint)
    return now === before ? undefined : now
  }

  #logStderr(text: string): void {
    this.#stderr = `${this.#stderr}${text}`.slice(-4096)
    for (const line of text.split('\n')) {
      if (line !== '') this.#log.warn({ line }, 'libfuse says')
    }
  }

  #receive(message: Exclude<FromProcess, { type: 'ready' }>): void {
    switch (message.type) {
      case 'log':
        this.#log[message.level](message.fields, message.message)
        break
      case 'live':
        this.#device = message.device
        break
      case 'stats':
        this.#stats.answer(message.id, message.stats)
        break
      case 'closed':
        this.#hasEnded = true
        if (message.error !== undefined) this.#failure = this.#withReason(message.error)
        break
    }
  }

  /** Adds libfuse's reason, because the package's error is always "fuse failed". */
  #withReason(error: Parameters<typeof reviveError>[0]): Error {
    const reason = this.#stderr.trim().split('\n').at(-1) ?? ''
    const message = reason === '' || !error.mount ? error.message : `${error.message}: ${reason}`
    return reviveError({ ...error, message })
  }

  /** The process has ended. Returns the reason if it failed. */
  #onClose(how: string): Error | undefined {
    if (!this.#hasEnded) {
      if (!this.#killed) this.#failure ??= new Error(`the union's process ended with ${how}`)
      // The process may have left a mount without a server.
      detach(this.mountpoint, this.#device)
    }
    this.#hasEnded = true
    return this.#failure
  }

  /** The process ends by itself when the channel is closed. exit-guard.ts detaches a live mount. */
  readonly #onExit = (): void => {
    if (!this.#live) this.#child.kill('SIGKILL')
  }

  /** The mount's device, as major:minor. */
  get device(): string | undefined {
    return this.#device
  }

  #send(message: ToProcess): boolean {
    if (this.#hasEnded || !this.#child.connected) return false
    return this.#child.send(message, error => {
      if (error !== null) this.#log.debug({ error: error.message }, "the union's process is gone")
    })
  }

  unmount(options: { lazy?: boolean } = {}): Promise<void> {
    return this.#hasEnded ? this.closed : unmountServer(this, options)
  }

  abandon(): void {
    this.kill()
  }

  kill(): boolean {
    this.#killed = true
    return this.#child.kill('SIGKILL')
  }

  stats(): Promise<Stats> {
    return this.#stats.ask(id => this.#send({ type: 'stats', id }))
  }
}
