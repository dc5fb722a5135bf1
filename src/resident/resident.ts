/**
 * A server that stays when its first mount is live, takes further ones, and ends when it has had
 * none for a while, or when it is told to. What a mount is, and how it is made, is the caller's
 * affair.
 */

import { fileURLToPath } from 'node:url'

import { fileKey, type Called, type Client } from './client.js'
import { difference, filtersAreShared, identityOf, type Identity } from './identity.js'
import { hasNeighbours, readProc } from './processes.js'
import { Registration } from './registration.js'
import { Requests, type Answer } from './requests.js'
import { serverDirectory } from './runtime-directory.js'

/** Which process it takes: `unanswered` has not answered somebody, and loses its place. */
export interface ResidentOptions {
  /** How long it stays without a mount, in milliseconds; Infinity: until it is told to end. */
  linger: number
  unanswered?: number
  /** It was started to stay: it takes the place of one that lingers. */
  stays: boolean
  /** Clients of every cgroup: this process ends with none of theirs. */
  allCgroups: boolean
  take: (client: Client, called: Called) => Promise<Answer>
  /** What this process has too little of for a further mount, which then gets another server. */
  lacks: () => string | undefined
  /** Told where there are mounts, when that changes. */
  onChange: (mountpoints: readonly string[]) => void
}

/** A mount, as far as it matters here. */
export interface Hosted {
  readonly mountpoint: string
  /** Settles when the mount has ended. */
  readonly closed: Promise<unknown>
}

/** After the pipe is out of sight, for clients that have opened it by then. */
const LAST_REQUESTS_MS = 30
/** How often to look whether another server has taken the place, or somebody the directory away. */
const PLACE_MS = 5000
/** How often a server without mounts looks whether anybody is left that could ask it. */
const NEIGHBOURS_MS = 1000
/** How long to wait for clients to read their answers. */
const LAST_ANSWERS_MS = 1000

const pause = (ms: number): Promise<void> => new Promise(done => setTimeout(done, ms))

/** The script that clients run. */
const launcher = (): string | undefined => {
  try {
    return fileKey(fileURLToPath(new URL('../cli/tsoverlay', import.meta.url)))
  } catch {
    return undefined
  }
}

export class Resident {
  readonly #options: ResidentOptions
  readonly #identity: Identity
  readonly #cgroup: string | undefined
  readonly #launcher: string
  readonly #registration: Registration
  readonly #requests: Requests
  readonly #mounts = new Set<Hosted>()
  /** Requests whose mounts are being made. */
  #underWay = 0
  #ending = false
  #timer: NodeJS.Timeout | undefined
  #neighbours: NodeJS.Timeout | undefined
  readonly #watch: NodeJS.Timeout
  #resolve: () => void = () => {}
  /**
   * Resolves when this process has nothing left to do: it has no mount, and nobody finds it any
   * more.
   */
  readonly ended: Promise<void>

  private constructor(
    options: ResidentOptions,
    identity: Identity,
    script: string,
    registration: Registration,
    mounts: readonly Hosted[],
  ) {
    this.#options = options
    this.#identity = identity
    this.#cgroup = readProc('self', 'cgroup')
    this.#launcher = script
    this.#registration = registration
    this.ended = new Promise(resolve => {
      this.#resolve = resolve
    })
    this.#requests = new Requests(registration, client => this.#take(client))
    process.on('exit', this.#onExit)
    registration.onLost(() => this.leave())
    this.#watch = setInterval(() => {
      // Nobody finds a server that has lost its place.
      if (!registration.isKnown) this.leave()
    }, PLACE_MS).unref()
    for (const mount of mounts) this.add(mount)
    this.#look()
  }

  /** Makes this process known to clients. A text: why it can't be. */
  static start(options: ResidentOptions, mounts: readonly Hosted[] = []): Resident | string {
    const directory = serverDirectory()
    if (directory === undefined) return "there is no directory that is this user's alone"
    const script = launcher()
    const identity = identityOf('self')
    if (script === undefined || identity === undefined) return '/proc or the launcher is missing'
    if (!filtersAreShared(identity)) return 'it has seccomp filters that process 1 has not'
    const registration = Registration.make(directory, options.stays, options.unanswered)
    if (typeof registration === 'string') return registration
    return new Resident(options, identity, script, registration, mounts)
  }

  add(mount: Hosted): void {
    this.#mounts.add(mount)
    const gone = (): void => {
      this.#mounts.delete(mount)
      this.#tell()
      this.#look()
    }
    mount.closed.then(gone, gone)
    this.#tell()
    this.#look()
  }

  #tell(): void {
    this.#options.onChange([...this.#mounts].map(({ mountpoint }) => mountpoint))
  }

  /** Takes no further mount, and ends with the last one. */
  leave(): void {
    if (this.#ending) return
    this.#ending = true
    clearInterval(this.#watch)
    this.#look()
    void this.#unregister()
  }

  async #take(client: Client): Promise<Answer> {
    const refusal = this.#refusal(client)
    if (refusal !== undefined) return { kind: 'own', why: refusal }
    const called = client.called(this.#launcher)
    if (called === undefined) return { kind: 'own', why: 'it does not run the launcher' }
    this.#underWay++
    this.#look()
    try {
      return await this.#options.take(client, called)
    } finally {
      this.#underWay--
      this.#look()
    }
  }

  /** Why a client is not taken. */
  #refusal(client: Client): string | undefined {
    if (this.#ending) return 'the server ends'
    const identity = client.identity()
    if (identity === undefined) return 'it is gone'
    const other = difference(this.#identity, identity)
    if (other !== undefined) return other
    if (!this.#options.allCgroups && client.cgroup !== this.#cgroup) return 'cgroup'
    const lacking = this.#options.lacks()
    if (lacking !== undefined) this.leave()
    return lacking
  }

  #look(): void {
    clearTimeout(this.#timer)
    clearInterval(this.#neighbours)
    this.#timer = undefined
    if (this.#mounts.size > 0 || this.#underWay > 0) return
    if (this.#ending) void this.#end()
    // Nobody finds a server that has lost its place.
    else if (this.#options.linger === 0 || !this.#registration.isKnown) this.leave()
    else if (this.#options.linger !== Infinity) {
      this.#timer = setTimeout(() => this.leave(), this.#options.linger)
      // Each command of rootless buildah makes namespaces of its own, which nobody else comes to.
      this.#neighbours = setInterval(() => {
        if (!hasNeighbours()) this.leave()
      }, NEIGHBOURS_MS)
    }
  }

  #unregistered: Promise<void> | undefined

  #unregister(): Promise<void> {
    this.#unregistered ??= (async () => {
      this.#registration.hide()
      await pause(LAST_REQUESTS_MS)
      for (const until = Date.now() + LAST_ANSWERS_MS; Date.now() < until;) {
        if (this.#requests.size === 0) break
        await pause(5)
      }
      this.#requests.end()
      this.#registration.end()
    })()
    return this.#unregistered
  }

  async #end(): Promise<void> {
    await this.#unregister()
    if (this.#mounts.size > 0 || this.#underWay > 0) return
    process.off('exit', this.#onExit)
    this.#resolve()
  }

  readonly #onExit = (): void => this.#registration.end()
}
