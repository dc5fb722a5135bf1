/**
 * A mount through fuse-native, seen from the program: starts the process that serves it, hears its
 * log, and unmounts.
 *
 * A process, where the kernel transport has a thread: the package runs its handlers on the default
 * event loop of the process, so it can live in a main thread only. In the program's own one, a
 * synchronous call on the own mount would wait for itself for ever; and what goes wrong on the C
 * side (an assertion, a crash) would end the program.
 */

import { fork, type ChildProcess } from 'node:child_process'
import { statfs } from 'node:fs/promises'
import { MountError } from '../errors.js'
import { tuneBdi } from '../fuse/device/bdi.js'
import { reviveError, type ServeOptions } from '../server/messages.js'
import { detach, mountedDevice } from '../fuse/mount/mount.js'
import type { Server } from '../server/transport.js'
import { AskedStats, type Stats } from '../fuse/session/stats.js'
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
  // The package says so before the kernel has taken the answer to INIT, which would set it back;
  // whoever asks waits for that.
  await statfs(options.mountpoint).catch(() => {})
  if (server.device !== undefined) tuneBdi(server.device, log)
  remount(options, log)
  return server
}

/** By this process, since the other one must not wait for itself. */
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
  readonly #stats = new AskedStats()
  #live = false
  #device: string | undefined
  /** It has cleaned up and said so. */
  #over = false
  /** It was asked to end at once. */
  #killed = false
  #failure: Error | undefined
  /** What libfuse had to say. */
  #said = ''

  constructor(options: ServeOptions, log: Logger) {
    this.mountpoint = options.mountpoint
    this.#log = log
    const ready = deferred<void>()
    const ended = deferred<void>()
    this.ready = ready.promise
    this.closed = ended.promise
    // Nobody has to ask how it ended.
    this.closed.catch(() => {})

    const before = mountedDevice(this.mountpoint)
    // Detached, by setsid(2): what is typed at a terminal is not for it. Nothing of the program's
    // is held open.
    this.#child = fork(entry, [], {
      cwd: '/',
      detached: true,
      execArgv: [],
      serialization: 'advanced',
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    })
    this.#child.stderr?.setEncoding('utf8').on('data', (text: string) => this.#say(text))
    this.#child.on('message', (message: FromProcess) => {
      if (message.type === 'ready') {
        this.#live = true
        ready.resolve()
      } else {
        this.#hear(message)
      }
    })
    this.#child.on('error', error => {
      this.#failure ??= error
    })
    process.on('exit', this.#onExit)
    this.#child.on('close', (code, signal) => {
      process.off('exit', this.#onExit)
      this.#device ??= this.#made(before)
      const failure = this.#end(signal ?? `code ${code}`)
      this.#stats.end()
      if (failure === undefined) ended.resolve()
      else ended.reject(failure)
      ready.reject(failure ?? new MountError('the mount was taken away while it was being made'))
    })
    this.#tell({ type: 'start', options })
  }

  /** A mount that was made without a word. */
  #made(before: string | undefined): string | undefined {
    const now = mountedDevice(this.mountpoint)
    return now === before ? undefined : now
  }

  #say(text: string): void {
    this.#said = `${this.#said}${text}`.slice(-4096)
    for (const line of text.split('\n')) {
      if (line !== '') this.#log.warn({ line }, 'libfuse says')
    }
  }

  #hear(message: Exclude<FromProcess, { type: 'ready' }>): void {
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
        this.#over = true
        if (message.error !== undefined) this.#failure = this.#explained(message.error)
        break
    }
  }

  /** The package says "fuse failed" for everything; libfuse has said why. */
  #explained(error: Parameters<typeof reviveError>[0]): Error {
    const reason = this.#said.trim().split('\n').at(-1) ?? ''
    const message = reason === '' || !error.mount ? error.message : `${error.message}: ${reason}`
    return reviveError({ ...error, message })
  }

  /** The process is gone. Returns why it died. */
  #end(how: string): Error | undefined {
    if (!this.#over) {
      if (!this.#killed) this.#failure ??= new Error(`the union's process ended with ${how}`)
      // It may have left a mount that nobody serves.
      detach(this.mountpoint, this.#device)
    }
    this.#over = true
    return this.#failure
  }

  /**
   * It goes by itself when the channel is closed; a mount that is live is taken away by
   * exit-guard.ts.
   */
  readonly #onExit = (): void => {
    if (!this.#live) this.#child.kill('SIGKILL')
  }

  /** Of what is mounted, as major:minor. */
  get device(): string | undefined {
    return this.#device
  }

  #tell(message: ToProcess): boolean {
    if (this.#over || !this.#child.connected) return false
    return this.#child.send(message, error => {
      if (error !== null) this.#log.debug({ error: error.message }, "the union's process is gone")
    })
  }

  unmount(options: { lazy?: boolean } = {}): Promise<void> {
    return this.#over ? this.closed : unmountServer(this, options)
  }

  abandon(): void {
    this.kill()
  }

  kill(): boolean {
    this.#killed = true
    return this.#child.kill('SIGKILL')
  }

  stats(): Promise<Stats> {
    return this.#stats.ask(id => this.#tell({ type: 'stats', id }))
  }
}
