/**
 * The loop on /dev/fuse: read a request, have it handled, write the reply; all in one thread, one
 * request at a time. Requests that the union has parked wait here.
 *
 * How it waits: best is a read(2) that blocks, on a descriptor of its own. It is woken by requests alone, so
 * the main thread rings for its messages (bell.ts). While a job is under way, or there is something to be done once
 * nobody asks, it is poll(2), which can be told to wait for that, too.
 */

import { readFileSync } from 'node:fs'
import type { Logger } from '../log.js'
import { ROOT_ID, type NodeId } from '../overlay/ops.js'
import { E, errnoName } from '../sys/errno.js'
import { eventfdDrain, poll2, write } from '../sys/io.js'
import { MAX_IO } from './tuning.js'
import { Intake } from './intake.js'
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
/** Then so many lie between what is done. Whoever asks meanwhile is answered first. */
const PAUSE_MS = 1

/** While a job is under way it is looked after so often, in milliseconds: a thread that died tells nobody. */
const JOB_MS = 500

/** How long a message may take before others are answered; it may itself wait for one of them, in milliseconds. */
const TELL_MS = 200

/**
 * After so many requests without a pause it waits for requests alone, though there is something to be done in a
 * pause; so many milliseconds later it looks for one again.
 */
const RUSH = 256
const RUSH_MS = 200

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

/** What is needed to wait for requests alone. */
export interface Blocking {
  /** Another descriptor of the connection, without O_NONBLOCK. */
  readonly fd: number
  /**
   * While the kernel has this node, every message is followed by a NOTIFY_REPLY, and there is one at once. False:
   * it does not do that with the node.
   */
  readonly hang: (node: NodeId) => boolean
  /** False: somebody is just about to send one. */
  readonly takeDown: () => boolean
  /** Asks for one after so many milliseconds. */
  readonly later: (ms: number) => void
}

export interface DeviceOptions {
  /** /dev/fuse, O_NONBLOCK. */
  fd: number
  blocking?: Blocking | undefined
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
  readonly #blocking: Blocking | undefined
  readonly #parked: Parked[] = []
  readonly #linger = new Linger()
  readonly intake = new Intake()
  #onIdle: (() => boolean) | undefined
  #ready = false
  /** A NOTIFY_REPLY has come since the bell was hung up. */
  #heard = false
  #stopping = false
  /** How long nobody must have asked for what can wait to be done, in milliseconds. */
  #pause = IDLE_MS
  /** A message has taken too long. */
  #late = false
  /** Waits without a pause. */
  #rush = 0

  constructor(options: DeviceOptions) {
    this.#fd = options.fd
    this.#blocking = options.blocking
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
    const { ops } = this.#session
    for (;;) {
      const end = this.#burst(req)
      if (end !== undefined) return end
      this.#hang()
      if ((ops.busy || poll2(-1, ops.wakeFd, 0) > 0) && this.#wake()) return 'stopped'
    }
  }

  /**
   * So many requests as may go by without a look at anything else. A method of its own, for one that never returns can't
   * profit from what was compiled in practice: it would be compiled anew, 9 ms, while somebody waits.
   */
  #burst(req: Request): End | undefined {
    const { ops } = this.#session
    for (let left = WAKE_EVERY; left > 0;) {
      if (!ops.telling) this.#late = false
      else if (!this.#late && this.#hearOut()) return 'stopped'
      const n = this.#read(req)
      if (n > 0) {
        req.length = n
        if (req.opcode === Opcode.NOTIFY_REPLY) {
          this.#heard = true
          this.#rush = 0
          if (this.#wake()) return 'stopped'
          continue
        }
        this.#serve(req)
        if (this.#session.refused !== undefined) throw this.#session.refused
        left--
      } else if (n === -E.EAGAIN) {
        if (this.#poll()) return 'stopped'
      } else if (n === -E.ENODEV) {
        return 'unmounted'
      } else if (n === -E.ECONNABORTED || n === 0) {
        return 'aborted'
      } else if (n !== -E.EINTR && n !== -E.ENOENT) {
        // ENOENT: the request was interrupted before it was read.
        throw new Error(`reading /dev/fuse failed: ${errnoName(n)}`)
      }
    }
    return undefined
  }

  /** The next request, or -errno; EAGAIN: there is none, and something else has to be waited for, too. */
  #read(req: Request): number {
    const linger = this.#linger
    const blocking = this.#mayBlock()
    if (blocking === undefined || linger.looks) {
      req.fd = this.#fd
      do {
        const n = this.intake.read(req)
        if (n !== -E.EAGAIN) {
          linger.end()
          return n
        }
      } while (this.#parked.length === 0 && linger.on())
      if (blocking === undefined) return -E.EAGAIN
    } else {
      linger.on()
    }
    req.fd = blocking.fd
    const n = this.intake.read(req)
    linger.waited()
    return n
  }

  /** Whether it may wait for requests alone. */
  #mayBlock(): Blocking | undefined {
    if (!this.#heard || this.#session.bellNode === 0 || this.#stopping) return undefined
    if (this.#parked.length > 0 || this.#session.ops.busy) return undefined
    if (this.#onIdle === undefined && this.#session.tidy.patience < 0) return this.#blocking
    if (this.#rush < RUSH) {
      this.#rush++
      return undefined
    }
    if (this.#rush === RUSH) {
      this.#rush++
      this.#blocking?.later(RUSH_MS)
    }
    return this.#blocking
  }

  /** Lets the kernel take a message first. Whether the loop ends. */
  #hearOut(): boolean {
    const { ops } = this.#session
    const until = performance.now() + TELL_MS
    while (ops.telling) {
      const left = Math.ceil(until - performance.now())
      this.#late = left <= 0
      if (this.#late) break
      if (poll2(-1, ops.wakeFd, left) > 0 && this.#wake()) return true
    }
    return false
  }

  /** Waits for anything. Whether the loop ends. */
  #poll(): boolean {
    const { ops, tidy } = this.#session
    const idle = this.#ready && this.#parked.length === 0 ? this.#onIdle : undefined
    const patience = this.#stopping ? 1 : idle === undefined ? tidy.patience : this.#pause
    const looks = ops.busy && (patience < 0 || patience > JOB_MS)
    const woken = poll2(this.#fd, ops.wakeFd, looks ? JOB_MS : patience)
    this.#linger.waited()
    if (this.#stopping) return this.#wake()
    if (woken === 0 && ops.busy) ops.runCallbacks()
    if (woken === 0 && !looks) {
      this.#hang()
      this.#rush = 0
      if (idle === undefined) tidy.quiet()
      else if (!idle()) this.#onIdle = undefined
      this.#pause = PAUSE_MS
    } else if ((woken & 1) !== 0) {
      this.#pause = IDLE_MS
    }
    return (woken & 2) !== 0 && this.#wake()
  }

  #wake(): boolean {
    const { ops } = this.#session
    eventfdDrain(ops.wakeFd)
    ops.runCallbacks()
    if (this.#onWake()) this.#stopping = true
    // Who rings is let go of first, and may need an answer for that.
    return this.#stopping && this.#blocking?.takeDown() !== false
  }

  /** Sees to it that it can be rung for. */
  #hang(): void {
    const { reply } = this.#session
    if (this.#session.bellNode !== 0 || reply.file === 0 || this.#blocking === undefined) return
    this.#heard = false
    if (this.#blocking.hang(reply.file)) this.#session.bellNode = reply.file
    else reply.file = 0
  }

  #serve(req: Request): void {
    if (this.#parked.length > 0 && req.opcode === Opcode.INTERRUPT) {
      this.#interrupt(req)
      return
    }
    let n = this.#session.handle(req)
    if (req.source >= 0) n = this.#emptyPipe(req, n)
    if (n > 0) this.#send(req, n)
    else if (n === PARKED) this.#park(req)
  }

  /** @param n what `handle` has returned */
  #emptyPipe(req: Request, n: number): number {
    if (n !== PARKED) this.intake.drop(req)
    else if (!this.intake.keep(req)) return this.#session.answer(req, -E.EIO)
    return n
  }

  #send(req: Request, length: number): void {
    const { pipe, reply } = this.#session
    if (pipe?.loaded === true) return this.#sendPipe(pipe, req, length)
    const r = write(req.fd, reply.buf, 0, length)
    if (r < 0) this.#notTaken(req, r)
    if (!this.#ready && this.#session.negotiated !== undefined) {
      this.#ready = true
      this.#session.reply.file = ROOT_ID
      this.#hang()
      this.#onReady()
    }
  }

  #sendPipe(pipe: ReplyPipe, req: Request, length: number): void {
    const r = pipe.send(req.fd, length)
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
    write(req.fd, this.#session.reply.buf, 0, length)
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
