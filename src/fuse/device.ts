/**
 * The loop on /dev/fuse: read a request, have it handled, write the reply; all in one thread, one
 * request at a time. Requests that the union has parked wait here.
 */

import { readFileSync } from 'node:fs'
import type { Logger } from '../log.js'
import { E, errnoName } from '../sys/errno.js'
import { eventfdDrain, poll2, read, write } from '../sys/io.js'
import { MAX_IO } from './tuning.js'
import { Linger } from './linger.js'
import { PARKED, type Session } from './session.js'
import { Opcode } from './abi.js'
import type { ReplyPipe } from './splice.js'
import { Request } from './wire.js'

/**
 * The kernel refuses to hand out requests to a smaller buffer than one for a WRITE of MAX_IO; beside
 * the data there are headers and, in SETXATTR, at most 64 KiB and a name.
 */
export const REQUEST_SIZE = MAX_IO + 64 * 1024
/** Data is read to behind the header; copies of struct fuse_direntplus need no more. */
export const REPLY_SIZE = MAX_IO + 4096

/** Under load, look at the wake-up descriptor after so many requests. */
const WAKE_EVERY = 64

/** Nobody has asked for so many milliseconds: what can wait may be done. */
const IDLE_MS = 5

/** A request that waits for a job. */
interface Parked {
  readonly req: Request
  /** The kernel was answered already. */
  abandoned: boolean
}

/**
 * Why the loop ended: the file system was unmounted; the connection was aborted (through
 * /sys/fs/fuse/connections, or umount -f), which leaves a dead mount; `onWake` said so.
 */
export type End = 'unmounted' | 'aborted' | 'stopped'

export interface DeviceOptions {
  /** /dev/fuse, O_NONBLOCK. */
  fd: number
  session: Session
  log: Logger
  /** Called when `wakeFd` was readable; true ends the loop. */
  onWake: () => boolean
  /** Called once, when the answer to INIT is with the kernel. */
  onReady: () => void
  /** Called again and again while nobody asks for anything, until it returns false. */
  onIdle?: () => boolean
}

export class Device {
  readonly #fd: number
  readonly #session: Session
  readonly #log: Logger
  readonly #onWake: () => boolean
  readonly #onReady: () => void
  readonly #parked: Parked[] = []
  #onIdle: (() => boolean) | undefined
  #ready = false

  constructor(options: DeviceOptions) {
    this.#fd = options.fd
    this.#session = options.session
    this.#log = options.log
    this.#onWake = options.onWake
    this.#onReady = options.onReady
    this.#onIdle = options.onIdle
  }

  get parkedCount(): number {
    return this.#parked.length
  }

  /** Serves to the end. Throws the MountError of a failed INIT. */
  run(): End {
    const req = new Request(REQUEST_SIZE)
    const fd = this.#fd
    const { wakeFd } = this.#session.ops
    const { tidy } = this.#session
    const linger = new Linger()
    let untilWake = WAKE_EVERY
    for (;;) {
      const n = read(fd, req.buf, 0, REQUEST_SIZE)
      if (n > 0) {
        req.length = n
        linger.end()
        this.#serve(req)
        if (this.#session.refused !== undefined) throw this.#session.refused
        if (--untilWake > 0) continue
        untilWake = WAKE_EVERY
        if (poll2(-1, wakeFd, 0) > 0 && this.#wake()) return 'stopped'
      } else if (n === -E.EAGAIN) {
        if (this.#parked.length === 0 && linger.on()) continue
        const idle = this.#ready && this.#parked.length === 0 ? this.#onIdle : undefined
        const woken = poll2(fd, wakeFd, idle === undefined ? tidy.patience : IDLE_MS)
        linger.waited()
        if (woken === 0 && idle === undefined) tidy.quiet()
        else if (woken === 0 && idle?.() === false) this.#onIdle = undefined
        if ((woken & 2) !== 0 && this.#wake()) return 'stopped'
      } else if (n === -E.ENODEV) {
        return 'unmounted'
      } else if (n === -E.ECONNABORTED || n === 0) {
        return 'aborted'
      } else if (n !== -E.EINTR && n !== -E.ENOENT) {
        // ENOENT: the request was interrupted before it was read.
        throw new Error(`reading /dev/fuse failed: ${errnoName(n)}`)
      }
    }
  }

  #wake(): boolean {
    const { ops } = this.#session
    eventfdDrain(ops.wakeFd)
    ops.runCallbacks()
    return this.#onWake()
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
    const r = write(this.#fd, reply.buf, 0, length)
    if (r < 0) this.#notTaken(req, r)
    if (!this.#ready && this.#session.negotiated !== undefined) {
      this.#ready = true
      this.#onReady()
    }
  }

  #sendPipe(pipe: ReplyPipe, req: Request, length: number): void {
    const r = pipe.send(this.#fd, length)
    if (r >= 0 || r === -E.ENOENT || r === -E.ENODEV) return
    this.#log.warn({ errno: errnoName(r) }, 'the kernel takes no replies from a pipe')
    pipe.stop()
    this.#serve(req)
  }

  #notTaken(req: Request, r: number): void {
    // ENOENT: nobody waits for it any more. ENODEV: unmounted meanwhile.
    if (r === -E.ENOENT || r === -E.ENODEV) {
      this.#session.undelivered(req)
      return
    }
    this.#log.error({ op: req.opcode, errno: errnoName(r) }, 'the kernel refused a reply')
    // Who waits for it would wait for ever.
    const length = this.#session.answer(req, -E.EIO)
    write(this.#fd, this.#session.reply.buf, 0, length)
  }

  /** Keeps a request until its job is done. */
  #park(req: Request): void {
    const { pending } = this.#session
    if (pending === undefined) return
    const parked: Parked = { req: req.copy(), abandoned: false }
    this.#parked.push(parked)
    pending.job.onDone(result => {
      this.#parked.splice(this.#parked.indexOf(parked), 1)
      if (parked.abandoned) return
      if (result < 0 || pending.answer) {
        this.#send(parked.req, this.#session.answer(parked.req, Math.min(result, 0)))
      } else {
        this.#serve(parked.req)
      }
    })
  }

  /**
   * FUSE_INTERRUPT: the caller has a signal. One that kills it ends the wait, as in
   * fs/overlayfs/copy_up.c; any other does not, or system calls that never fail with EINTR elsewhere
   * would do so here. The job goes on in either case.
   */
  #interrupt(req: Request): void {
    const low = req.u32(0)
    const high = req.u32(4)
    for (const parked of this.#parked) {
      const waiting = parked.req
      if (waiting.uniqueLow !== low || waiting.uniqueHigh !== high || parked.abandoned) continue
      if (!isDying(waiting.pid)) return
      parked.abandoned = true
      this.#send(waiting, this.#session.answer(waiting, -E.EINTR))
      return
    }
  }
}

/** SIGKILL in a mask of /proc/PID/status. kernel/signal.c:complete_signal() sets it for any deadly signal. */
const SIGKILL_BIT = 1 << 8

/** Whether a thread is about to be killed, or is gone. */
const isDying = (tid: number): boolean => {
  try {
    const status = readFileSync(`/proc/${tid}/status`, 'latin1')
    const masks = [...status.matchAll(/^(?:SigPnd|ShdPnd):\s*[0-9a-f]*?([0-9a-f]{1,8})$/gm)]
    return masks.some(match => (Number.parseInt(match[1]!, 16) & SIGKILL_BIT) !== 0)
  } catch {
    return true
  }
}
