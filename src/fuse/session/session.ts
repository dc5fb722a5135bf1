/**
 * The protocol as a function of bytes: `handle` takes a request and fills a reply. No descriptor is
 * read or written here; device.ts does that.
 *
 * Whatever comes in, an answer goes out and nothing is thrown: a request that is malformed gets
 * EINVAL, an unknown one ENOSYS, and an operation that throws is logged with its stack and answered
 * EIO.
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
import type { DataMode } from './io-mode.js'
import { handlers, NO_REPLY } from './handlers.js'
import type { InitWish, Negotiated } from '../protocol/init.js'
import {
  countOut,
  DirPacker,
  DirPlusPacker,
  forEachPlusEntry,
  NEVER,
  Validity,
} from '../protocol/encode.js'
import type { ReplyPipe } from '../device/splice-read.js'
import type { PageStore } from '../device/prefill.js'
import { Tidy } from './idle-gc.js'
import { defaultTuning, type Tuning } from '../../config/tuning.js'
import type { Reply, Request } from '../protocol/wire.js'

/** What `handle` returns instead of a reply's length. */
export const NOTHING = 0
export const PARKED = -1

/**
 * How often a request is tried again that finds no descriptor. Some need several, and what is
 * closed to make room may be the one that was opened just before.
 */
const ROOMS = 24

/** fs/fuse/dev.c:fuse_dev_do_write() refuses replies with an error at or below this. */
const ERRNO_END = -512

/** Requests that have no reply, not even when something is wrong with them. */
const unanswered = (opcode: number): boolean =>
  opcode === Opcode.FORGET ||
  opcode === Opcode.BATCH_FORGET ||
  opcode === Opcode.INTERRUPT ||
  opcode === Opcode.NOTIFY_REPLY

export interface SessionOptions {
  ops: Ops
  reply: Reply
  log: Logger
  wish: InitWish
  /** Where replies with much data go. Default: as all others. */
  pipe?: ReplyPipe
  /** Who gives files to the kernel that are opened for the first time. Default: nobody. */
  store?: PageStore
  /** How long names and attributes are valid, in seconds. */
  timeout: number
  /** Default: nothing is left out. */
  tuning?: Tuning
  /** Hears how many nodes the kernel has given back. Default: one of its own. */
  tidy?: Tidy
  /**
   * Called with what INIT has brought: what decides on the way of data, or why it can't be served.
   */
  onInit: (negotiated: Negotiated) => DataMode | MountError
}

export class Session {
  readonly ops: Ops
  readonly reply: Reply
  readonly log: Logger
  readonly pipe: ReplyPipe | undefined
  readonly store: PageStore | undefined
  readonly wish: InitWish
  readonly names: Validity
  readonly tuning: Tuning
  readonly onInit: (negotiated: Negotiated) => DataMode | MountError
  /** Undefined until INIT was answered: before, nothing else is. */
  negotiated: Negotiated | undefined
  data: DataMode | undefined
  /** Set where INIT has failed: there will be no mount. */
  refused: MountError | undefined
  /** What the last request threw, where `handle` returned PARKED. */
  pending: Pending | undefined

  // Filled and read during one request.
  readonly caller: Caller = { uid: 0, gid: 0, pid: 0, umask: 0 }
  readonly entry = new Entry()
  readonly attr = new Attr()
  readonly opened = new Opened()
  readonly setAttr = new SetAttr()
  readonly statfs = new StatFsOut()
  readonly dir: DirPacker
  readonly dirPlus: DirPlusPacker

  /** Requests by opcode, and those that were answered with an error. */
  readonly counts = new Float64Array(OPCODE_COUNT)
  readonly failures = new Float64Array(OPCODE_COUNT)
  errors = 0
  readonly tidy: Tidy

  constructor(options: SessionOptions) {
    this.ops = options.ops
    this.reply = options.reply
    this.log = options.log
    this.pipe = options.pipe
    this.store = options.store
    this.wish = options.wish
    this.names = new Validity(options.timeout)
    this.tuning = options.tuning ?? defaultTuning
    this.tidy = options.tidy ?? new Tidy()
    this.onInit = options.onInit
    this.dir = new DirPacker(this.reply)
    this.dirPlus = new DirPlusPacker(this.reply, this.names, id => this.attrs(id), this.tuning)
  }

  /** How long attributes of a node are valid that go out now. */
  attrs(id: NodeId): Validity {
    return this.data?.attrsVolatile(id) === true ? NEVER : this.names
  }

  /**
   * Whether a file that was just opened can be mapped for writing in pages of the mount, of which
   * the kernel keeps no time (it does with write-back).
   *
   * @param fopen FOPEN_*, as it is answered
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
   * Handles one request. The length of the reply in `this.reply`; NOTHING where there is none to be
   * sent; PARKED where the union has to wait (`this.pending`), and the request is to be handled
   * again or answered with `answer`.
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
    const handler = handlers[opcode]
    if (!req.wellFormed) return -E.EINVAL
    if (handler === undefined) return -E.ENOSYS
    if (req.bodyLength < handler.size) return -E.EINVAL
    if (this.negotiated === undefined && opcode !== Opcode.INIT) return -E.EIO
    let r = handler.run(this, req, this.reply)
    for (let n = 0; n < ROOMS && (r === -E.EMFILE || r === -E.ENFILE); n++) {
      if (!this.ops.makeRoom()) break
      r = handler.run(this, req, this.reply)
    }
    return r
  }

  /** Completes the reply: `result` bytes follow the header, or -errno. */
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

  /** Completes the reply to a request that was parked for a job whose result is the answer. */
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
   * The kernel no longer wanted the reply that was just made: what it would have given back some
   * day (lookups, handles) is taken back now.
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

  /** An open file is given back. */
  closed(node: NodeId, fh: number): void {
    this.data?.release(node, fh)
    this.ops.release(fh)
    this.data?.released(node)
  }
}
