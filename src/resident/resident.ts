/**
 * A resident server: it stays after its first mount, accepts further ones, and ends after a time
 * without a mount, or when it is told to. The caller implements the mounts.
 */

import { fileURLToPath } from 'node:url'

import { fileKey, type Invocation, type Client } from './client.js'
import { difference, filtersAreShared, identityOf, type Identity } from './identity.js'
import { hasNeighbours, readProc } from './processes.js'
import { Registration } from './registration.js'
import { Requests, type Answer } from './requests.js'
import { serverDirectory } from './runtime-directory.js'

/**
 * Options of a resident server. `unanswered` is the process id of a server that did not answer,
 * which this one replaces.
 */
export interface ResidentOptions {
  /**
   * How long the server stays without a mount, in milliseconds; Infinity: until it is told to end.
   */
  linger: number
  unanswered?: number
  /** The server was started to stay: it replaces one that only lingers. */
  stays: boolean
  /** Accept clients of every cgroup, because this process does not end with a client's cgroup. */
  allCgroups: boolean
  handle: (client: Client, invocation: Invocation) => Promise<Answer>
  /**
   * The resource that is too scarce for a further mount, which then gets another server; undefined
   * if there is none.
   */
  lacks: () => string | undefined
  /** Called with all mountpoints when they change. */
  onChange: (mountpoints: readonly string[]) => void
}

/** The part of a mount that this class uses. */
export interface Hosted {
  readonly mountpoint: string
  /** Resolves or rejects when the mount has ended. */
  readonly closed: Promise<unknown>
}

/** The delay after hiding the pipe, for clients that have already opened it. */
const LAST_REQUESTS_MS = 30
/** How often to check that the directory still exists and belongs to this server. */
const CHECK_DIRECTORY_MS = 5000
/** How often a server without mounts checks whether a possible client exists. */
const NEIGHBOURS_MS = 1000
/** How long to wait for clients to read their answers. */
const LAST_ANSWERS_MS = 1000

const pause = (ms: number): Promise<void> => new Promise(done => setTimeout(done, ms))

/** `dev:ino` of the launcher script, which clients run. */
const launcherScript = (): string | undefined => {
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
  /** The number of requests that are in progress. */
  #inProgress = 0
  #ending = false
  #timer: NodeJS.Timeout | undefined
  #neighbours: NodeJS.Timeout | undefined
  readonly #watch: NodeJS.Timeout
  #resolve: () => void = () => {}
  /** Resolves when the server has no mount left and clients can't find it any more. */
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
    this.#requests = new Requests(registration, client => this.#handle(client))
    process.on('exit', this.#onExit)
    registration.onLost(() => this.leave())
    this.#watch = setInterval(() => {
      // A server that was replaced gets no further requests.
      if (!registration.isCurrent) this.leave()
    }, CHECK_DIRECTORY_MS).unref()
    for (const mount of mounts) this.add(mount)
    this.#update()
  }

  /**
   * Registers this process.
   * @returns a text: why it can't register
   */
  static start(options: ResidentOptions, mounts: readonly Hosted[] = []): Resident | string {
    const directory = serverDirectory()
    if (directory === undefined) return 'no directory is private to this user'
    const script = launcherScript()
    const identity = identityOf('self')
    if (script === undefined || identity === undefined)
      return '/proc or the launcher script is missing'
    if (!filtersAreShared(identity)) return 'it has seccomp filters that process 1 does not have'
    const registration = Registration.create(directory, options.stays, options.unanswered)
    if (typeof registration === 'string') return registration
    return new Resident(options, identity, script, registration, mounts)
  }

  add(mount: Hosted): void {
    this.#mounts.add(mount)
    const remove = (): void => {
      this.#mounts.delete(mount)
      this.#reportMounts()
      this.#update()
    }
    mount.closed.then(remove, remove)
    this.#reportMounts()
    this.#update()
  }

  #reportMounts(): void {
    this.#options.onChange([...this.#mounts].map(({ mountpoint }) => mountpoint))
  }

  /** Accepts no further mount, and ends after the last one. */
  leave(): void {
    if (this.#ending) return
    this.#ending = true
    clearInterval(this.#watch)
    this.#update()
    void this.#unregister()
  }

  async #handle(client: Client): Promise<Answer> {
    const refusal = this.#refusal(client)
    if (refusal !== undefined) return { kind: 'own', why: refusal }
    const invocation = client.invocation(this.#launcher)
    if (invocation === undefined) return { kind: 'own', why: 'it does not run the launcher script' }
    this.#inProgress++
    this.#update()
    try {
      return await this.#options.handle(client, invocation)
    } finally {
      this.#inProgress--
      this.#update()
    }
  }

  /** Why a client is refused. */
  #refusal(client: Client): string | undefined {
    if (this.#ending) return 'the server ends'
    const identity = client.identity()
    if (identity === undefined) return 'it is gone'
    const different = difference(this.#identity, identity)
    if (different !== undefined) return different
    if (!this.#options.allCgroups && client.cgroup !== this.#cgroup) return 'cgroup'
    const lacking = this.#options.lacks()
    if (lacking !== undefined) this.leave()
    return lacking
  }

  #update(): void {
    clearTimeout(this.#timer)
    clearInterval(this.#neighbours)
    this.#timer = undefined
    if (this.#mounts.size > 0 || this.#inProgress > 0) return
    if (this.#ending) void this.#end()
    // A server that was replaced gets no further requests.
    else if (this.#options.linger === 0 || !this.#registration.isCurrent) this.leave()
    else if (this.#options.linger !== Infinity) {
      this.#timer = setTimeout(() => this.leave(), this.#options.linger)
      // Each command of rootless buildah creates namespaces of its own, which no other process
      // enters.
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
    if (this.#mounts.size > 0 || this.#inProgress > 0) return
    process.off('exit', this.#onExit)
    this.#resolve()
  }

  readonly #onExit = (): void => this.#registration.end()
}
