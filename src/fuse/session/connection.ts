/**
 * One connection to the kernel. It reads requests, has the session handle them and writes the
 * replies, one request at a time. It keeps the requests that the union has parked. The loop decides
 * when it reads (loop.ts).
 */

import { readFileSync } from 'node:fs'
import type { Logger } from '../../log.js'
import type { Job } from '../../overlay/ops.js'
import { E, errnoName } from '../../sys/errno.js'
import { read, write } from '../../sys/io.js'
import { Opcode } from '../protocol/abi.js'
import { ENDED, type Member } from '../device/loop.js'
import { PARKED, type Session } from './session.js'
import type { ReplyPipe } from '../device/splice-read.js'
import type { Request } from '../protocol/wire.js'

/**
 * Interval in milliseconds at which the connection checks a running job, because a job thread that
 * died sends no message.
 */
const JOB_CHECK_MS = 500

/**
 * Time limit in milliseconds for a notification that is on its way to the kernel. Until then no
 * request is served. Afterwards requests are served again, because the notification may itself wait
 * for one of them.
 */
const NOTIFY_MS = 200

/**
 * If only single requests arrived, the connection tries a second read(2) once in this number of
 * rounds.
 */
const READ_AGAIN_EVERY = 8

/** A request that waits for a job. */
interface Parked {
  readonly req: Request
  readonly job: Job
  /** The kernel has its answer already (EINTR). */
  abandoned: boolean
}

/**
 * Why a connection has ended:
 *
 * - `unmounted`: the filesystem was unmounted;
 * - `aborted`: the connection was aborted (through /sys/fs/fuse/connections, or umount -f), which
 *   leaves a dead mount;
 * - `stopped`: the loop was told to end it;
 * - an Error: it has failed.
 */
export type End = 'unmounted' | 'aborted' | 'stopped' | Error

export interface ConnectionOptions {
  /** /dev/fuse, O_NONBLOCK. */
  fd: number
  session: Session
  /** Its buffer serves one request after the other; several connections may share it. */
  request: Request
  log: Logger
  /** Called once, after the answer to INIT was written. */
  onReady: () => void
  /** Called once, as the last callback; also with the MountError of a failed INIT. */
  onEnd: (end: End) => void
}

export class Connection implements Member {
  readonly fd: number
  readonly wakeFd: number
  readonly #session: Session
  readonly #req: Request
  readonly #log: Logger
  readonly #options: ConnectionOptions
  readonly #parked: Parked[] = []
  #ready = false
  #ending: End = 'stopped'
  /** When the connection next checks a running job, in milliseconds of performance.now(). */
  #checkAt = Infinity
  /**
   * Until this time requests wait for a notification that the kernel has not taken yet. 0: no
   * notification is under way. Infinity: the time limit has passed.
   */
  #heldUntil = 0
  /** The last round has found several requests in the queue. */
  #queued = false
  #single = 0

  constructor(options: ConnectionOptions) {
    this.fd = options.fd
    this.wakeFd = options.session.ops.wakeFd
    this.#session = options.session
    this.#req = options.request
    this.#log = options.log
    this.#options = options
  }

  get parkedCount(): number {
    return this.#parked.length
  }

  serve(limit: number, alone: boolean): number {
    let served = 0
    try {
      while (served < limit) {
        if (this.held) break
        const n = read(this.fd, this.#req.buf, 0, this.#req.buf.length)
        if (n > 0) {
          this.#serveOne(n)
          served++
          if (!this.#readsAgain(served, alone)) break
        } else if (n === -E.EAGAIN) {
          this.#queued = served > 1
          break
        } else if (!this.#continuesAfter(n)) {
          return ENDED
        }
      }
      this.#scheduleCheck()
    } catch (error) {
      return this.#end(error instanceof Error ? error : new Error(String(error)))
    }
    return served
  }

  /**
   * A read(2) that finds nothing costs a system call. It pays off if several requests wait at a
   * time.
   */
  #readsAgain(served: number, alone: boolean): boolean {
    if (alone || this.#queued || served > 1) return true
    this.#single++
    return this.#single % READ_AGAIN_EVERY === 0
  }

  #serveOne(length: number): void {
    const req = this.#req
    req.length = length
    this.#serve(req)
    if (this.#session.refused !== undefined) throw this.#session.refused
  }

  /** Handles an error of read(2). False: the connection has ended. */
  #continuesAfter(n: number): boolean {
    // ENOENT: the request was interrupted before it was read.
    if (n === -E.EINTR || n === -E.ENOENT) return true
    if (n === -E.ENODEV) this.#end('unmounted')
    else if (n === -E.ECONNABORTED || n === 0) this.#end('aborted')
    else this.#end(new Error(`reading /dev/fuse failed: ${errnoName(n)}`))
    return false
  }

  #end(end: End): typeof ENDED {
    this.#ending = end
    return ENDED
  }

  ended(): void {
    this.#options.onEnd(this.#ending)
  }

  wake(): number {
    try {
      this.#session.ops.runCallbacks()
      this.#scheduleCheck()
    } catch (error) {
      return this.#end(error instanceof Error ? error : new Error(String(error)))
    }
    return 0
  }

  get held(): boolean {
    const { notifying } = this.#session.ops
    if (!notifying) {
      this.#heldUntil = 0
      return false
    }
    if (this.#heldUntil === Infinity) return false
    const now = performance.now()
    if (this.#heldUntil === 0) this.#heldUntil = now + NOTIFY_MS
    if (now < this.#heldUntil) return true
    this.#heldUntil = Infinity
    return false
  }

  /** Schedules the next check while jobs are running. */
  #scheduleCheck(): void {
    if (!this.#session.ops.busy) this.#checkAt = Infinity
    else if (this.#checkAt === Infinity) this.#checkAt = performance.now() + JOB_CHECK_MS
  }

  get due(): number {
    const until = this.#heldUntil
    return Math.min(this.#checkAt, until === 0 ? Infinity : until)
  }

  tick(): number {
    this.#checkAt = Infinity
    return this.wake()
  }

  #serve(req: Request): void {
    if (this.#parked.length > 0 && req.opcode === Opcode.INTERRUPT) {
      this.#interrupt(req)
      return
    }
    const n = this.#session.handle(req)
    if (n > 0) this.#send(req, n)
    else if (n === PARKED) this.#park(req)
  }

  #send(req: Request, length: number): void {
    const { pipe, reply } = this.#session
    if (pipe?.loaded === true) return this.#sendPipe(pipe, req, length)
    const r = write(this.fd, reply.buf, 0, length)
    if (r < 0) this.#replyRefused(req, r)
    if (!this.#ready && this.#session.negotiated !== undefined) {
      this.#ready = true
      this.#options.onReady()
    }
  }

  #sendPipe(pipe: ReplyPipe, req: Request, length: number): void {
    const r = pipe.send(this.fd, length)
    if (r >= 0 || r === -E.ENOENT || r === -E.ENODEV) return
    this.#log.warn({ errno: errnoName(r) }, 'the kernel takes no replies from a pipe')
    pipe.stop()
    this.#serve(req)
  }

  #replyRefused(req: Request, r: number): void {
    // ENOENT: the caller no longer waits for the reply. ENODEV: the filesystem was unmounted
    // meanwhile.
    if (r === -E.ENOENT || r === -E.ENODEV) {
      this.#session.undelivered(req)
      return
    }
    this.#log.error({ op: req.opcode, errno: errnoName(r) }, 'the kernel refused a reply')
    // Without any answer the caller would wait forever.
    const length = this.#session.answer(req, -E.EIO)
    write(this.fd, this.#session.reply.buf, 0, length)
  }

  /** Keeps a request until its job has finished. */
  #park(req: Request): void {
    const { pending } = this.#session
    if (pending === undefined) return
    const parked: Parked = { req: req.copy(), job: pending.job, abandoned: false }
    this.#parked.push(parked)
    pending.job.onDone(result => {
      this.#parked.splice(this.#parked.indexOf(parked), 1)
      const { slow } = this.#session.ops
      if (parked.abandoned) return slow?.drop(parked.req.kept)
      if (result < 0 || pending.answer) {
        slow?.drop(parked.req.kept)
        this.#send(parked.req, this.#session.finished(parked.req, result))
      } else {
        this.#serve(parked.req)
      }
    })
  }

  /**
   * FUSE_INTERRUPT: the caller has a signal. A fatal signal ends the wait, as in
   * fs/overlayfs/copy_up.c. Any other signal does not: otherwise system calls that never fail with
   * EINTR on other filesystems would do so here. The job continues in both cases.
   */
  #interrupt(req: Request): void {
    const low = req.u32(0)
    const high = req.u32(4)
    for (const parked of this.#parked) {
      const waiting = parked.req
      if (waiting.uniqueLow !== low || waiting.uniqueHigh !== high || parked.abandoned) continue
      if (parked.job.uninterruptible === true || !isDying(waiting.pid)) return
      parked.abandoned = true
      parked.job.cancel?.()
      this.#send(waiting, this.#session.answer(waiting, -E.EINTR))
      return
    }
  }
}

/**
 * SIGKILL in a signal mask of /proc/PID/status. kernel/signal.c:complete_signal() sets it for any
 * fatal signal.
 */
const SIGKILL_BIT = 1 << 8

/** Whether a thread has a fatal signal, or no longer exists. */
const isDying = (tid: number): boolean => {
  try {
    const status = readFileSync(`/proc/${tid}/status`, 'latin1')
    const masks = [...status.matchAll(/^(?:SigPnd|ShdPnd):\s*[0-9a-f]*?([0-9a-f]{1,8})$/gm)]
    return masks.some(match => (Number.parseInt(match[1]!, 16) & SIGKILL_BIT) !== 0)
  } catch {
    return true
  }
}
