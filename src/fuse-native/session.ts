/**
 * The union behind the package's handlers. It runs an operation, waits if the union must wait, and
 * answers in every case. Handlers throw nothing: an unexpected error is logged with its stack and
 * answered with EIO.
 */

import { countLinks } from '../fuse/protocol/encode.js'
import type { Tuning } from '../config/tuning.js'
import type { Logger } from '../log.js'
import {
  Attr,
  Entry,
  Opened,
  Pending,
  SetAttr,
  StatFsOut,
  type Caller,
  type Fh,
  type KeptAnswers,
  type NodeId,
  type Ops,
  type Result,
} from '../overlay/ops.js'
import { E, errnoName } from '../sys/errno.js'
import { Inos } from './attrs.js'
import { Hidden, HIDE_MS } from './hidden.js'
import { Paths, type Dentry, type Place } from './paths.js'
import type { Operations } from './package.js'

/** The package passes a file handle as a C int. */
const MAX_FH = 0x7fff_ffff

export interface SessionOptions {
  ops: Ops
  log: Logger
  tuning: Tuning
  /** The owner of new files: the package does not pass the caller. */
  uid: number
  gid: number
}

export class Session {
  readonly ops: Ops
  readonly log: Logger
  readonly tuning: Tuning
  readonly paths: Paths
  readonly hidden: Hidden
  readonly inos = new Inos()
  /** Its umask is 0 because the kernel has applied the caller's umask already. */
  readonly caller: Caller
  /** The libfuse thread of the current request; binding.ts sets it before each handler. */
  thread: Buffer | undefined

  // Reused by every operation.
  readonly entry = new Entry()
  readonly attr = new Attr()
  readonly opened = new Opened()
  readonly setAttr = new SetAttr()
  readonly statfs = new StatFsOut()

  /** Requests by operation; `errors` counts those that failed. */
  readonly counts = new Map<keyof Operations, number>()
  errors = 0
  /** Number of names that listings had to omit. */
  unlisted = 0
  #running = 0
  #waiting = 0
  #timer: NodeJS.Timeout | undefined
  #closed = false
  readonly #files = new Map<Fh, NodeId>()
  readonly #open = new Map<NodeId, number>()

  constructor(options: SessionOptions) {
    this.ops = options.ops
    this.log = options.log
    this.tuning = options.tuning
    this.paths = new Paths(options.ops)
    this.hidden = new Hidden(options.ops, this.paths, options.log)
    this.caller = { uid: options.uid, gid: options.gid, pid: 0, umask: 0 }
  }

  /**
   * Runs an operation until it has a result.
   *
   * @param call may throw `Pending`; it is then called again from the start
   * @param done gets the result of `call`, or -errno
   */
  run(op: keyof Operations, call: () => Result, done: (result: Result) => void): void {
    this.counts.set(op, (this.counts.get(op) ?? 0) + 1)
    this.#running++
    if (op === 'rename') this.#attempt(op, call, done)
    else
      this.#attempt(
        op,
        () => {
          this.hidden.removePending()
          return call()
        },
        done,
      )
  }

  /** @param kept results of slow calls from earlier attempts */
  #attempt(
    op: keyof Operations,
    call: () => Result,
    done: (result: Result) => void,
    kept: KeptAnswers | null = null,
  ): void {
    const { slow } = this.ops
    let r: Result
    slow?.begin(kept)
    try {
      r = this.#closed ? -E.EIO : call()
    } catch (error) {
      if (error instanceof Pending) {
        const { job, answer } = error
        const answers = slow === null ? null : slow.suspend()
        this.#waiting++
        job.onDone(result => {
          this.#waiting--
          if (result < 0 || answer) {
            slow?.drop(answers)
            this.#finish(op, Math.min(result, 0), done)
          } else this.#attempt(op, call, done, answers)
        })
        return
      }
      this.log.error({ err: error, op }, 'an operation failed')
      r = -E.EIO
    }
    slow?.end()
    this.#finish(op, r, done)
  }

  #finish(op: keyof Operations, r: Result, done: (result: Result) => void): void {
    if (r < 0) this.errors++
    if (this.log.isLevelEnabled('debug'))
      this.log.debug({}, `${op}: ${r < 0 ? errnoName(r) : 'OK'}`)
    try {
      done(r)
    } catch (err) {
      this.log.error({ err, op }, 'an answer failed')
    }
    if (--this.#running === 0 && !this.#closed) this.paths.trim()
    if (this.hidden.isWaiting && this.#timer === undefined)
      this.#timer = setTimeout(() => this.#removeHidden(), HIDE_MS)
  }

  /** No request has arrived since: triggers the removal of the hidden file. */
  #removeHidden(): void {
    this.#timer = undefined
    if (this.hidden.isWaiting)
      this.run(
        'unlink',
        () => 0,
        () => {},
      )
  }

  /** Starts no further operations. Operations that wait get EIO. */
  close(): void {
    clearTimeout(this.#timer)
    if (!this.#closed && this.hidden.isWaiting)
      this.run(
        'unlink',
        () => 0,
        () => {},
      )
    this.#closed = true
  }

  find(path: string): Dentry | Result {
    return this.paths.find(path)
  }

  /** The nodeid of a path, or -errno. */
  node(path: string): Result {
    const dentry = this.paths.find(path)
    return typeof dentry === 'number' ? dentry : dentry.id
  }

  /** Stores `entry` after an operation that has created a name. */
  created(place: Place, r: Result): Result {
    if (r >= 0) this.paths.add(place, this.entry.nodeId)
    return r
  }

  /** Applies static_nlink to the link count, as every transport does. */
  counted(r: Result): Result {
    if (r >= 0) countLinks(this.attr, this.tuning)
    return r
  }

  /** Stores an open file. Returns its file handle for the package, or -errno. */
  fileOpened(id: NodeId): Result {
    const { fh } = this.opened
    if (fh > MAX_FH) {
      this.ops.release(fh)
      return -E.ENFILE
    }
    this.#files.set(fh, id)
    this.#open.set(id, (this.#open.get(id) ?? 0) + 1)
    return fh
  }

  fileClosed(fh: Fh): void {
    const id = this.#files.get(fh)
    if (id === undefined) return
    this.#files.delete(fh)
    const left = (this.#open.get(id) ?? 1) - 1
    if (left === 0) this.#open.delete(id)
    else this.#open.set(id, left)
    this.ops.release(fh)
  }

  /** The nodeid of an open file, or undefined. */
  fileNode(fh: Fh): NodeId | undefined {
    return this.#files.get(fh)
  }

  isOpen(id: NodeId): boolean {
    return this.#open.has(id)
  }

  stats(): Record<string, number> {
    const stats: Record<string, number> = { requests: 0, errors: this.errors }
    for (const [op, count] of this.counts) {
      stats['requests']! += count
      stats[`native.${op}`] = count
    }
    stats['parked'] = this.#waiting
    stats['io.handles'] = this.#files.size
    stats['names'] = this.paths.size
    return stats
  }
}
