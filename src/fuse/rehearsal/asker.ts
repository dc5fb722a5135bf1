/** Asks a session for things as the kernel would; what it answers goes nowhere. */

import { silentLogger, type Logger } from '../../log.js'
import { ROOT_ID, type Ops } from '../../overlay/ops.js'
import { close, eventfdSignal, write } from '../../sys/io.js'
import { messagePair } from '../../sys/socket.js'
import {
  BATCH_FORGET_IN_SIZE,
  FORGET_IN_SIZE,
  FORGET_ONE_SIZE,
  GETATTR_IN_SIZE,
  IN_HEADER_SIZE,
  INIT_IN_SIZE,
  InitFlag,
  InitFlag2,
  KERNEL_MAJOR,
  KERNEL_MINOR,
  Opcode,
  OUT_HEADER_SIZE,
  READ_IN_SIZE,
  WRITE_CACHE,
  WRITE_IN_SIZE,
} from '../abi.js'
import { DataMode, type RealFiles } from '../data-mode.js'
import { Device } from '../device.js'
import type { InitWish } from '../init.js'
import { DeviceNotifier } from '../notify.js'
import { MIN_SPLICED } from '../pipe.js'
import { Session } from '../session.js'
import { ReplyPipe } from '../splice.js'
import { PageStore } from '../store.js'
import type { Tuning } from '../tuning.js'
import { Reply, Request } from '../wire.js'

/** What a listing asks for at once: as readdir(3) does. */
const ROOM = 32 * 1024
const READAHEAD = 1 << 17
/** A node that the kernel does not know, of a number far from all others. */
const NOBODY = 1 << 20

const all = (flags: Readonly<Record<string, number>>): number =>
  Object.values(flags).reduce((sum, flag) => sum + flag, 0)

const MUCH = 'practice'.repeat(MIN_SPLICED / 8)
/** Arguments of `ask`. */
type Asked = [opcode: number, node: number, size: number, words: number[], text?: string]

/** Backing ids that are kept: so few that some always make way. */
const IDLE_MAX = 1

/** As the one that tells the kernel. */
export const notifierInto = (sink: number): DeviceNotifier => {
  const notifier = new DeviceNotifier(silentLogger)
  notifier.attach(sink)
  return notifier
}

/**
 * What the session that really serves has. The engine compiles for objects as it sees them, and does so again
 * for the next that are made in another way.
 */
export interface Likeness {
  readonly wish: InitWish
  readonly tuning: Tuning
  readonly log: Logger
  readonly files: RealFiles
}

/** What a loop calls. Two that do the same: for a single one the engine would compile, and again for the next. */
const oneWay = (next: () => boolean) => ({
  hang: () => true,
  takeDown: () => true,
  later: () => {},
  onWake: () => next(),
})
const otherWay: typeof oneWay = next => ({
  hang: () => true,
  takeDown: () => true,
  later: () => {},
  onWake: () => next(),
})
const LOOP = { log: silentLogger, onReady: (): void => {} }
/** Requests that come one after the other, half as many as that, and how often. */
const IN_A_ROW = 3
const ROUNDS = 4

export class Asker {
  /** Files are not opened. */
  readonly noOpen: boolean
  readonly #session: Session
  #loops = 0
  #taken = 0
  readonly #reply = new Reply(ROOM + 8192)
  readonly #req = new Request(MIN_SPLICED + 16 * 1024)

  /** @param sink where pages and messages for the kernel go, and nowhere from there; or below 0 */
  constructor(ops: Ops, { wish, tuning, log, files }: Likeness, sink: number) {
    this.noOpen = wish.noOpen === true
    this.#session = new Session({
      ops,
      pipe: new ReplyPipe(), // for no request that is made here
      store: new PageStore(sink, silentLogger),
      reply: this.#reply,
      // Nobody is to read of requests that were never made.
      log: log.isLevelEnabled('debug') ? silentLogger : log,
      wish,
      timeout: 1,
      tuning,
      onInit: ({ io }) =>
        new DataMode(io, files, notifierInto(sink), fh => ops.realFile(fh), IDLE_MAX),
    })
    const words = [KERNEL_MAJOR, KERNEL_MINOR, READAHEAD, all(InitFlag), all(InitFlag2)]
    this.ask(Opcode.INIT, ROOT_ID, INIT_IN_SIZE, words)
  }

  /** How many requests were answered with an error. */
  get errors(): number {
    return this.#session.errors
  }

  /** How many requests came through a pipe. */
  get taken(): number {
    return this.#taken
  }

  /** The node's number, or 0. */
  lookup(parent: number, name: string): number {
    const length = this.ask(Opcode.LOOKUP, parent, 0, [], `${name}\0`)
    return length > OUT_HEADER_SIZE ? this.number(0) : 0
  }

  forget(node: number): void {
    this.ask(Opcode.FORGET, node, FORGET_IN_SIZE, [1])
  }

  /** Lists a folder to its end, with READDIRPLUS and what that brings given back, or with READDIR. */
  list(folder: number, opcode: number): void {
    for (let cookie = 0; ;) {
      const length = this.ask(opcode, folder, READ_IN_SIZE, [0, 0, cookie, 0, ROOM])
      if (length <= OUT_HEADER_SIZE) break
      if (opcode === Opcode.READDIRPLUS) this.#session.undelivered(this.#req)
      // Places in listings are numbers of 31 bits: nothing lies behind this one.
      cookie = 0x7fff_ffff
    }
    const none = BATCH_FORGET_IN_SIZE + FORGET_ONE_SIZE
    this.ask(Opcode.BATCH_FORGET, ROOT_ID, none, [1, 0, ROOT_ID])
  }

  /** A number of up to 48 bits in the reply's body. */
  number(at: number): number {
    return this.#reply.buf.readUIntLE(OUT_HEADER_SIZE + at, 6)
  }

  /**
   * Asks for a folder's attributes and for a name that it has not, gives back what was never given out, and writes to
   * no file, over and over again in a loop.
   */
  throughLoop(folder: number): void {
    this.#inLoop(send => {
      send(Opcode.FORGET, NOBODY, FORGET_IN_SIZE, [1])
      for (let i = 0; i < IN_A_ROW; i++) {
        send(Opcode.LOOKUP, folder, 0, [], `none-${i}\0`)
        send(Opcode.GETATTR, folder, GETATTR_IN_SIZE, [])
      }
      send(Opcode.WRITE, folder, WRITE_IN_SIZE, [])
    })
  }

  /** Writes much to an open file, in a loop, as the kernel does that writes back: the second time through a pipe. */
  writeThroughLoop(node: number, fh: number): void {
    this.#inLoop(send => {
      const words = [fh, 0, 0, 0, MIN_SPLICED, WRITE_CACHE]
      for (let i = 0; i < 2; i++) send(Opcode.WRITE, node, WRITE_IN_SIZE, words, MUCH)
      send(Opcode.GETATTR, node, GETATTR_IN_SIZE, [])
    })
  }

  /**
   * A loop like the one on /dev/fuse, with a message for each request that is sent. They come in rounds, so that it has
   * to wait in between; an empty one ends it.
   */
  #inLoop(sendAll: (send: (...request: Asked) => void) => void): void {
    const pair = messagePair()
    if (typeof pair === 'number') return
    const [kernel, server] = pair
    const { wakeFd } = this.#session.ops
    const { buf } = this.#req
    const send = (...[opcode, node, size, words, text = '']: Asked): void => {
      this.#fill(opcode, node, size, words, text)
      write(kernel, buf, 0, this.#req.length)
    }
    let left = ROUNDS
    const next = (): boolean => {
      if (left === ROUNDS) {
        send(Opcode.NOTIFY_REPLY, ROOT_ID, 0, [])
        write(wakeFd, buf, 0, 1) // EINVAL; so the kernel refuses what it is told of a node that it has not
      }
      if (left-- > 0) sendAll(send)
      else if (write(kernel, buf, 0, 0) < 0 && left < -ROUNDS) throw new Error('no end of practice')
      eventfdSignal(wakeFd)
      return false
    }
    eventfdSignal(wakeFd)
    const way = this.#loops++ % 2 === 0 ? oneWay : otherWay
    const { hang, takeDown, later, onWake } = way(next)
    // In the order of worker.ts: in another, the engine would take it for another kind of object.
    const blocking = { fd: server, hang, takeDown, later }
    const device = new Device({ ...LOOP, fd: server, blocking, session: this.#session, onWake })
    try {
      device.run()
    } finally {
      this.#taken += device.intake.taken
      device.intake.close()
      close(kernel)
      close(server)
    }
  }

  /**
   * @param words of the body, 32 bits each; the rest of `size` bytes is 0
   * @param text what follows them
   * @returns the length of the reply; no more than its header is for an error
   */
  ask(opcode: number, node: number, size: number, words: number[], text = ''): number {
    this.#fill(opcode, node, size, words, text)
    return this.#session.handle(this.#req)
  }

  #fill(opcode: number, node: number, size: number, words: number[], text: string): void {
    const { buf } = this.#req
    const length = IN_HEADER_SIZE + size + text.length
    buf.fill(0, 0, length)
    buf.writeUInt32LE(length, 0)
    buf.writeUInt32LE(opcode, 4)
    buf.writeUIntLE(node, 16, 6)
    for (let i = 0; i < words.length; i++) buf.writeUInt32LE(words[i]!, IN_HEADER_SIZE + 4 * i)
    buf.latin1Write(text, IN_HEADER_SIZE + size)
    this.#req.length = length
  }
}
