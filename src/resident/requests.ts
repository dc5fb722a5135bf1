/**
 * Requests of clients, and the answers to them. A request is a line with a number of a process,
 * written in one piece. The answer is a file `answer.PID` in the server's directory: the exit
 * status, or `own` (the client shall start a server of its own), and lines for standard error. A
 * signal tells the client to look for it; one that finds nothing there knows that its request was
 * taken, and waits longer. A client that waits no more makes that file itself: open(2) with O_EXCL
 * decides which of the two was first.
 */

import { rmSync, writeFileSync } from 'node:fs'
import { Socket } from 'node:net'
import { constants } from 'node:os'

import { renameat2, toByteString } from '../sys/at.js'
import { AT_FDCWD, RENAME_NOREPLACE } from '../sys/constants.js'
import { Client } from './client.js'
import type { Registration } from './registration.js'

/**
 * What tells a client to look for its answer. It is ignored by whatever does not expect it: a
 * client that has given up may run Node by the time that it is sent, whom SIGUSR1 would have open a
 * port for debuggers.
 */
const LOOK = constants.signals.SIGURG

/** After that the client is told that its request was taken; it waits 2 s for that. */
const TAKEN_MS = 300
/** How often to look for clients that have ended, whose files can go. */
const SWEEP_MS = 100

export type Answer =
  | {
      kind: 'own'
      /** For who looks into the file; the client does not tell it. */
      why: string
    }
  | {
      kind: 'done'
      status: number
      /** For standard error. */
      lines: readonly string[]
      /** Where nobody waits for the answer any more. */
      undo?: () => Promise<void>
    }

export type Take = (client: Client) => Promise<Answer>

/** How many mounts are made at the same time. */
const MOST = 16

/** Longer than any line that a client writes. */
const LINE_MAX = 64

export class Requests {
  readonly #registration: Registration
  readonly #take: Take
  readonly #input: Socket
  /** By `PID START`: those that have asked, until they are answered and have ended. */
  readonly #clients = new Map<string, Client>()
  readonly #answered = new Set<Client>()
  /** Those whose turn has not come. */
  readonly #waiting: [client: Client, timer: NodeJS.Timeout][] = []
  #underWay = 0
  #rest = ''
  #sweeper: NodeJS.Timeout | undefined

  constructor(registration: Registration, take: Take) {
    this.#registration = registration
    this.#take = take
    this.#input = new Socket({ fd: registration.from, readable: true, writable: false })
    this.#input.setEncoding('latin1')
    this.#input.on('data', (text: string) => this.#hear(text))
    this.#input.on('error', () => {}) // then nobody can ask
  }

  /** How many clients wait, or have not yet ended since they were answered. */
  get size(): number {
    return this.#clients.size
  }

  #hear(text: string): void {
    const lines = `${this.#rest}${text}`.split('\n')
    this.#rest = lines.pop()?.slice(-LINE_MAX) ?? ''
    for (const line of lines) if (/^[1-9]\d{0,9}$/.test(line)) this.#enter(Number(line))
    this.#next()
  }

  #enter(pid: number): void {
    const client = Client.find(pid, this.#registration.pipe)
    // It has taken its request back, or was answered already.
    if (client === undefined) return void this.#drop(this.#pathOf(pid, 'answer'))
    const key = `${client.pid} ${client.start}`
    if (this.#clients.has(key)) return client.close()
    this.#clients.set(key, client)
    this.#sweeper ??= setInterval(() => this.#sweep(), SWEEP_MS)
    // Where others come first, at once.
    const isNext = this.#underWay === 0 && this.#waiting.length === 0
    const tell = (): void => void (client.waits() && client.signal(LOOK))
    const timer = setTimeout(tell, isNext ? TAKEN_MS : 0)
    this.#waiting.push([client, timer])
  }

  /**
   * One after the other: much of a mount is done without a pause, and timers have to be heard
   * between two.
   */
  #next(): void {
    if (this.#underWay >= MOST) return
    const [client, timer] = this.#waiting.shift() ?? []
    if (client === undefined) return
    void this.#answer(client).finally(() => clearTimeout(timer))
    if (this.#waiting.length > 0) setImmediate(() => this.#next())
  }

  async #answer(client: Client): Promise<void> {
    let answer: Answer
    this.#underWay++
    try {
      answer = await this.#take(client)
    } catch (error) {
      answer = { kind: 'own', why: String(error) }
    }
    this.#underWay--
    this.#next()
    const committed = this.#commit(client, answer)
    this.#answered.add(client)
    if (!committed && answer.kind === 'done') await answer.undo?.()
  }

  /** False: it does not wait any more. */
  #commit(client: Client, answer: Answer): boolean {
    if (!client.waits()) return false
    const lines = answer.kind === 'own' ? ['own', answer.why] : [answer.status, ...answer.lines]
    // A client that finds the file finds all of it.
    const [fresh, file] = [this.#pathOf(client.pid, '.fresh'), this.#pathOf(client.pid, 'answer')]
    try {
      // A file of this process' own, and none that a link leads to.
      rmSync(fresh, { force: true })
      writeFileSync(fresh, `${lines.join('\n')}\n`, { mode: 0o600, flag: 'wx' })
    } catch {
      return this.#drop(fresh)
    }
    const [from, to] = [toByteString(fresh), toByteString(file)]
    if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) >= 0)
      return client.signal(LOOK) >= 0
    return this.#drop(fresh)
  }

  #drop(file: string): false {
    try {
      rmSync(file, { force: true })
    } catch {
      // somebody has made a directory of it
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
      this.#drop(this.#pathOf(client.pid, 'answer'))
    }
    if (this.#clients.size > 0) return
    clearInterval(this.#sweeper)
    this.#sweeper = undefined
  }

  /** Hears nobody any more; for a process that ends. */
  end(): void {
    clearInterval(this.#sweeper)
    this.#input.destroy()
  }
}
