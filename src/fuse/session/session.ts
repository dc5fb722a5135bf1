/**
 * The protocol as a function of bytes: `handle` takes a request and fills a reply. It does no i/o
 * on the device; connection.ts does.
 *
 * Every request gets an answer, and nothing is thrown. A malformed request gets EINVAL and an
 * unknown opcode ENOSYS. If an operation throws, the error is logged with its stack and the answer
 * is EIO.
 */

import type { MountError } from '../../errors.js'
import type { Logger } from '../../log.js'
import {
  Attr,
  Entry,
  Opened,
  Pending,
  ROOT_ID,
  SetAttr,
  StatFsOut,
  type Caller,
  type NodeId,
  type Ops,
} from '../../overlay/ops.js'
import { O_ACCMODE, O_RDWR } from '../../sys/constants.js'
import { E, errnoName } from '../../sys/errno.js'
import {
  ENTRY_OUT_SIZE,
  FOPEN_PASSTHROUGH,
  IN_HEADER_SIZE,
  Opcode,
  OPCODE_COUNT,
  opcodeName,
  OUT_HEADER_SIZE,
} from '../protocol/abi.js'
import type { IoModes } from './io-mode.js'
import type { InitConfig, Negotiated } from '../protocol/init.js'
import {
  countOut,
  DirPacker,
  DirPlusPacker,
  forEachPlusEntry,
  NEVER,
  Validity,
} from '../protocol/encode.js'
import type { ReplyPipe } from '../device/splice-read.js'
import type { Prefill } from '../device/prefill.js'
import { IdleGc } from '../device/idle-gc.js'
import { defaultTuning, type Tuning } from '../../config/tuning.js'
import type { Reply, Request } from '../protocol/wire.js'

/** Return values of `handle` that are not a reply's length. */
export const NOTHING = 0
export const PARKED = -1

/**
 * How often a request is retried after EMFILE or ENFILE. A request may need several descriptors,
 * and `closeIdleFds` may close one that the request has just opened.
 */
const ROOMS = 24

/** fs/fuse/dev.c:fuse_dev_do_write() refuses a reply whose error is this or below. */
const ERRNO_END = -512

/** Requests that have no reply, not even an error. */
const unanswered = (opcode: number): boolean =>
  opcode === Opcode.FORGET ||
  opcode === Opcode.BATCH_FORGET ||
  opcode === Opcode.INTERRUPT ||
  opcode === Opcode.NOTIFY_REPLY

/** Returned by a handler whose request has no reply. */
export const NO_REPLY = -0x7fff_ffff

export type Handle = (s: Session, req: Request, rep: Reply) => number
export interface Handler {
  /** The minimum size of the body in bytes. */
  readonly size: number
  readonly run: Handle
}

export interface SessionOptions {
  /** Indexed by opcode (handlers.ts). */
  handlers: readonly (Handler | undefined)[]
  ops: Ops
  reply: Reply
  log: Logger
  initConfig: InitConfig
  /** For replies with much data. Default: they are sent like all others. */
  pipe?: ReplyPipe
  /** Prefills files that are opened for the first time. Default: no prefill. */
  prefill?: Prefill
  /** How long the kernel may cache names and attributes, in seconds. */
  timeout: number
  /** Default: all features are on. */
  tuning?: Tuning
  /** Counts the nodes that the kernel has forgotten. Default: a new instance. */
  idleGc?: IdleGc
  /**
   * Called with the outcome of INIT. Returns the chooser of io modes, or the reason why the mount
   * cannot be served.
   */
  onInit: (negotiated: Negotiated) => IoModes | MountError
}

export class Session {
  readonly ops: Ops
  readonly #handlers: readonly (Handler | undefined)[]
  readonly reply: Reply
  readonly log: Logger
  readonly pipe: ReplyPipe | undefined
  readonly prefill: Prefill | undefined
  readonly initConfig: InitConfig
  readonly names: Validity
  readonly tuning: Tuning
  readonly onInit: (negotiated: Negotiated) => IoModes | MountError
  /** Undefined until INIT was answered. Other requests fail with EIO before that. */
  negotiated: Negotiated | undefined
  ioModes: IoModes | undefined
  /** Set if INIT has failed: there will be no mount. */
  refused: MountError | undefined
  /** Thrown by the latest request, if `handle` returned PARKED. */
  pending: Pending | undefined

  // Reused by every request.
  readonly caller: Caller = { uid: 0, gid: 0, pid: 0, umask: 0 }
  readonly entry = new Entry()
  readonly attr = new Attr()
  readonly opened = new Opened()
  readonly setAttr = new SetAttr()
  readonly statfs = new StatFsOut()
  readonly dir: DirPacker
  readonly dirPlus: DirPlusPacker

  /** Requests by opcode, and those that failed. */
  readonly counts = new Float64Array(OPCODE_COUNT)
  readonly failures = new Float64Array(OPCODE_COUNT)
  errors = 0
  readonly idleGc: IdleGc

  constructor(options: SessionOptions) {
    this.ops = options.ops
    this.#handlers = options.handlers
    this.reply = options.reply
    this.log = options.log
    this.pipe = options.pipe
    this.prefill = options.prefill
    this.initConfig = options.initConfig
    this.names = new Validity(options.timeout)
    this.tuning = options.tuning ?? defaultTuning
    this.idleGc = options.idleGc ?? new IdleGc()
    this.onInit = options.onInit
    this.dir = new DirPacker(this.reply)
    this.dirPlus = new DirPlusPacker(this.reply, this.names, id => this.attrs(id), this.tuning)
  }

  /** How long the kernel may cache the attributes of a node in the current reply. */
  attrs(id: NodeId): Validity {
    return this.ioModes?.attrsVolatile(id) === true ? NEVER : this.names
  }

  /**
   * Whether a file that was just opened allows a writable mapping of the mount's own pages, without
   * write-back. The kernel then does not update the file's times on such writes.
   *
   * @param fopen the FOPEN_* flags of the answer
   * @param flags those of open(2)
   */
  hasOwnPages(fopen: number, flags: number): boolean {
    return (
      (flags & O_ACCMODE) === O_RDWR &&
      (fopen & FOPEN_PASSTHROUGH) === 0 &&
      this.negotiated?.writeback === false
    )
  }

  /**
   * Handles one request. Returns the length of the reply in `this.reply`, or NOTHING if there is no
   * reply to send. PARKED: the union must wait (`this.pending`). The request must then be handled
   * again, or answered with `answer`.
   */
  handle(req: Request): number {
    if (req.length < IN_HEADER_SIZE) {
      this.log.error({ length: req.length }, 'a request without a header')
      return NOTHING
    }
    const debug = this.log.isLevelEnabled('debug')
    if (debug) this.#logRequest(req)
    const { opcode } = req
    if (opcode < OPCODE_COUNT) this.counts[opcode]!++
    const { slow } = this.ops
    slow?.begin(req.kept)
    let r
    try {
      r = this.#run(req, opcode)
    } catch (err) {
      if (err instanceof Pending) {
        if (slow !== null) req.kept = slow.suspend()
        this.pending = err
        if (debug) this.log.debug({}, `-- ${req.unique}: waits`)
        return PARKED
      }
      this.log.error({ err, op: opcodeName(opcode), node: req.nodeid }, 'an operation failed')
      r = -E.EIO
    }
    slow?.end()
    return r === NO_REPLY || unanswered(opcode) ? NOTHING : this.answer(req, r)
  }

  #run(req: Request, opcode: number): number {
    const handler = this.#handlers[opcode]
    if (!req.wellFormed) return -E.EINVAL
    if (handler === undefined) return -E.ENOSYS
    if (req.bodyLength < handler.size) return -E.EINVAL
    if (this.negotiated === undefined && opcode !== Opcode.INIT) return -E.EIO
    let r = handler.run(this, req, this.reply)
    for (let n = 0; n < ROOMS && (r === -E.EMFILE || r === -E.ENFILE); n++) {
      if (!this.ops.closeIdleFds()) break
      r = handler.run(this, req, this.reply)
    }
    return r
  }

  /** Completes the reply. `result` is the number of bytes behind the header, or -errno. */
  answer(req: Request, result: number): number {
    const r = result > ERRNO_END && result <= this.reply.capacity ? result : -E.EIO
    if (r < 0) this.#countError(req.opcode)
    const length = r < 0 ? OUT_HEADER_SIZE : OUT_HEADER_SIZE + r
    this.reply.header(length, r < 0 ? r : 0, req.uniqueLow, req.uniqueHigh)
    if (this.log.isLevelEnabled('debug')) {
      const status = r < 0 ? errnoName(r) : `OK, ${r} bytes`
      this.log.debug({}, `tx ${req.unique}: ${status}`)
    }
    return length
  }

  #countError(opcode: number): void {
    this.errors++
    if (opcode < OPCODE_COUNT) this.failures[opcode]!++
  }

  /** Completes the reply to a parked request whose job's result is the answer. */
  finished(req: Request, result: number): number {
    return this.answer(req, result < 0 ? result : countOut(req.opcode, this.reply, result))
  }

  #logRequest(req: Request): void {
    const { unique, nodeid, length, pid } = req
    this.log.debug(
      { caller: pid },
      `rx ${unique}: ${opcodeName(req.opcode)} n${nodeid}, ${length - IN_HEADER_SIZE} bytes`,
    )
  }

  /**
   * The kernel did not take the latest reply. Undoes its effects that the kernel would undo later:
   * lookup counts and handles.
   */
  undelivered(req: Request): void {
    const { buf } = this.reply
    if (buf.readInt32LE(4) !== 0) return
    const node = buf.readUIntLE(OUT_HEADER_SIZE, 6)
    switch (req.opcode) {
      case Opcode.CREATE:
      case Opcode.TMPFILE:
        this.closed(node, buf.readUIntLE(OUT_HEADER_SIZE + ENTRY_OUT_SIZE, 6))
        this.ops.forget(node, 1)
        break
      case Opcode.LOOKUP:
      case Opcode.MKNOD:
      case Opcode.MKDIR:
      case Opcode.SYMLINK:
      case Opcode.LINK:
        if (node > ROOT_ID) this.ops.forget(node, 1)
        break
      case Opcode.OPEN:
        this.closed(req.nodeid, node)
        break
      case Opcode.READDIRPLUS:
        forEachPlusEntry(buf, buf.readUInt32LE(0), id => this.ops.forget(id, 1))
        break
      default:
    }
  }

  /** Closes a file handle. */
  closed(node: NodeId, fh: number): void {
    this.ioModes?.release(node, fh)
    this.ops.release(fh)
    this.ioModes?.released(node)
  }
}
