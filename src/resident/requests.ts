/**
 * Reads the requests of clients and writes the answers. A request is one line with the client's
 * process id, written atomically. The answer is a file `answer.PID` in the server's directory. Its
 * first line is the exit status, or `own` if the client has to start a server of its own; lines for
 * standard error follow.
 *
 * A signal tells the client to look for the file. If the file does not exist yet, the signal means
 * that the server has taken the request, and the client waits longer. A client that gives up
 * creates the file itself: O_EXCL and RENAME_NOREPLACE decide whether the client or the server was
 * first.
 */

import { rmSync, writeFileSync } from 'node:fs'
import { Socket } from 'node:net'
import { constants } from 'node:os'

import { renameat2, toByteString } from '../sys/at.js'
import { AT_FDCWD, RENAME_NOREPLACE } from '../sys/constants.js'
import { Client } from './client.js'
import type { Registration } from './registration.js'

/**
 * The signal that tells a client to look for its answer. By default a process ignores it. A client
 * that has given up may already run Node when the signal arrives; SIGUSR1 would make Node open a
 * debugger port.
 */
const ANSWER_SIGNAL = constants.signals.SIGURG

/** After this time the client is told that its request was taken. The client waits 2 s for that. */
const TAKEN_MS = 300
/** How often to look for ended clients, whose files can be removed. */
const SWEEP_MS = 100

export type Answer =
  | {
      kind: 'own'
      /** For a person that reads the file; the client does not print it. */
      why: string
    }
  | {
      kind: 'done'
      status: number
      /** Lines for standard error. */
      lines: readonly string[]
      /** Takes the mount back if the client does not wait for the answer any more. */
      undo?: () => Promise<void>
    }

export type Handler = (client: Client) => Promise<Answer>

/** The limit of mounts that are in progress at a time. */
const MAX_IN_PROGRESS = 16

/** Longer than any line that a client writes. */
const LINE_MAX = 64

export class Requests {
  readonly #registration: Registration
  readonly #handle: Handler
  readonly #input: Socket
  /** The clients, keyed by `PID START`. A client stays until it has been answered and has ended. */
  readonly #clients = new Map<string, Client>()
  readonly #answered = new Set<Client>()
  /** Clients whose mount has not been started. */
  readonly #waiting: [client: Client, timer: NodeJS.Timeout][] = []
  #inProgress = 0
  #rest = ''
  #sweeper: NodeJS.Timeout | undefined

  constructor(registration: Registration, handle: Handler) {
    this.#registration = registration
    this.#handle = handle
    this.#input = new Socket({ fd: registration.from, readable: true, writable: false })
    this.#input.setEncoding('latin1')
    this.#input.on('data', (text: string) => this.#onData(text))
    this.#input.on('error', () => {}) // no client can ask after that
  }

  /**
   * The number of clients that wait for an answer, or have been answered and have not ended yet.
   */
  get size(): number {
    return this.#clients.size
  }

  #onData(text: string): void {
    const lines = `${this.#rest}${text}`.split('\n')
    this.#rest = lines.pop()?.slice(-LINE_MAX) ?? ''
    for (const line of lines) if (/^[1-9]\d{0,9}$/.test(line)) this.#add(Number(line))
    this.#startNext()
  }

  #add(pid: number): void {
    const client = Client.find(pid, this.#registration.pipe)
    // The client has given up, or has already been answered.
    if (client === undefined) return void this.#remove(this.#pathOf(pid, 'answer'))
    const key = `${client.pid} ${client.start}`
    if (this.#clients.has(key)) return client.close()
    this.#clients.set(key, client)
    this.#sweeper ??= setInterval(() => this.#sweep(), SWEEP_MS)
    // If the client has to wait for others, it is told at once.
    const isNext = this.#inProgress === 0 && this.#waiting.length === 0
    const confirm = (): void => void (client.isWaiting() && client.signal(ANSWER_SIGNAL))
    const timer = setTimeout(confirm, isNext ? TAKEN_MS : 0)
    this.#waiting.push([client, timer])
  }

  /**
   * Starts one mount per turn of the event loop: a mount contains long synchronous parts, and
   * timers must run between two mounts.
   */
  #startNext(): void {
    if (this.#inProgress >= MAX_IN_PROGRESS) return
    const [client, timer] = this.#waiting.shift() ?? []
    if (client === undefined) return
    void this.#answer(client).finally(() => clearTimeout(timer))
    if (this.#waiting.length > 0) setImmediate(() => this.#startNext())
  }

  async #answer(client: Client): Promise<void> {
    let answer: Answer
    this.#inProgress++
    try {
      answer = await this.#handle(client)
    } catch (error) {
      answer = { kind: 'own', why: String(error) }
    }
    this.#inProgress--
    this.#startNext()
    const committed = this.#commit(client, answer)
    this.#answered.add(client)
    if (!committed && answer.kind === 'done') await answer.undo?.()
  }

  /** @returns false if the client does not wait any more */
  #commit(client: Client, answer: Answer): boolean {
    if (!client.isWaiting()) return false
    const lines = answer.kind === 'own' ? ['own', answer.why] : [answer.status, ...answer.lines]
    // The answer file appears atomically with its whole content.
    const [temporary, file] = [
      this.#pathOf(client.pid, '.fresh'),
      this.#pathOf(client.pid, 'answer'),
    ]
    try {
      // `wx` creates a new file and follows no symlink.
      rmSync(temporary, { force: true })
      writeFileSync(temporary, `${lines.join('\n')}\n`, { mode: 0o600, flag: 'wx' })
    } catch {
      return this.#remove(temporary)
    }
    const [from, to] = [toByteString(temporary), toByteString(file)]
    if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) >= 0)
      return client.signal(ANSWER_SIGNAL) >= 0
    return this.#remove(temporary)
  }

  #remove(file: string): false {
    try {
      rmSync(file, { force: true })
    } catch {
      // another process has created a directory with this name
    }
    return false
  }

  #pathOf(pid: number, kind: '.fresh' | 'answer'): string {
    return `${this.#registration.directory}/${kind}.${pid}`
  }

  #sweep(): void {
    for (const [key, client] of this.#clients) {
      if (!this.#answered.has(client) || !client.hasEnded) continue
      this.#clients.delete(key)
      this.#answered.delete(client)
      client.close()
      this.#remove(this.#pathOf(client.pid, 'answer'))
    }
    if (this.#clients.size > 0) return
    clearInterval(this.#sweeper)
    this.#sweeper = undefined
  }

  /** Stops reading requests; for a server that ends. */
  end(): void {
    clearInterval(this.#sweeper)
    this.#input.destroy()
  }
}
