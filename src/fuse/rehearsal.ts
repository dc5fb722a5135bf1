/**
 * Practice before the first caller. A program that was just started runs its code slowly, until the
 * engine has seen which parts are worth compiling: the first 4,000 files of a walk took 65 ms, all after
 * them 20. So a new server goes through the requests of a walk by itself, on a read-only union of its
 * own whose one layer is the folder of this program, while nobody asks for anything; what it answers
 * goes nowhere. It takes a part of a second of one processor, once.
 */

import { fileURLToPath } from 'node:url'
import { silentLogger } from '../log.js'
import { ROOT_ID, type Ops } from '../overlay/ops.js'
import { defaultUnionOptions } from '../overlay/options.js'
import { openUnion } from '../overlay/overlay.js'
import { E } from '../sys/errno.js'
import {
  BATCH_FORGET_IN_SIZE,
  FORGET_IN_SIZE,
  GETATTR_IN_SIZE,
  IN_HEADER_SIZE,
  INIT_IN_SIZE,
  KERNEL_MAJOR,
  KERNEL_MINOR,
  Opcode,
  OPEN_IN_SIZE,
  OUT_HEADER_SIZE,
  READ_IN_SIZE,
  RELEASE_IN_SIZE,
} from './abi.js'
import { DataMode, type RealFiles } from './data-mode.js'
import { Session } from './session.js'
import { Reply, Request } from './wire.js'

/** Milliseconds of practice. More of it makes nothing faster any more. */
const ENOUGH_MS = 120

/** Folders of this program, as they are built and as they are written. */
const FOLDERS = ['overlay', 'fuse', 'sys', 'cli']
const ROOM = 32 * 1024

const NO_FILES: RealFiles = {
  openBacking: () => -E.EPERM,
  closeBacking: () => {},
  reopen: () => -E.EPERM,
  hasDirectIo: () => false,
  mayBeWritten: () => false,
}
const NOTIFIER = { attrChanged: () => {}, dropPages: () => null }

export class Rehearsal {
  readonly #ops: Ops & { close(): void }
  readonly #session: Session
  readonly #reply = new Reply(ROOM + 4096)
  readonly #req = new Request(4096)
  #spent = 0
  #turn = 0
  #closed = false

  constructor() {
    const program = fileURLToPath(new URL('../', import.meta.url))
    const deps = { log: silentLogger, notifier: NOTIFIER, writeback: false }
    this.#ops = openUnion({ ...defaultUnionOptions, lower: [program], readOnly: true }, deps)
    this.#session = new Session({
      ops: this.#ops,
      reply: this.#reply,
      log: silentLogger,
      wish: { io: 'cached', writeback: false, stackDepth: 1 },
      timeout: 1,
      onInit: ({ io }) => new DataMode(io, NO_FILES, NOTIFIER),
    })
    this.#ask(Opcode.INIT, ROOT_ID, INIT_IN_SIZE, '', [KERNEL_MAJOR, KERNEL_MINOR, 1 << 20])
  }

  /** Goes through one folder. False: that was the last time. */
  step(): boolean {
    const start = performance.now()
    const name = FOLDERS[this.#turn++ % FOLDERS.length] ?? ''
    const folder = this.#lookup(ROOT_ID, name)
    if (folder !== 0) {
      this.#list(folder)
      this.#lookup(folder, `${name}.none`)
      this.#ask(Opcode.GETATTR, folder, GETATTR_IN_SIZE, '', [])
      this.#ask(Opcode.FORGET, folder, FORGET_IN_SIZE, '', [1])
    }
    this.#spent += performance.now() - start
    if (folder !== 0 && this.#spent < ENOUGH_MS) return true
    this.close()
    return false
  }

  /** Ends it, if it has not ended. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#ops.close()
  }

  #list(folder: number): void {
    if (this.#ask(Opcode.OPENDIR, folder, OPEN_IN_SIZE, '', []) <= 0) return
    const fh = this.#number(0)
    const length = this.#ask(Opcode.READDIRPLUS, folder, READ_IN_SIZE, '', [fh, 0, 0, 0, ROOM])
    if (length > OUT_HEADER_SIZE) this.#session.undelivered(this.#req)
    this.#ask(Opcode.BATCH_FORGET, ROOT_ID, BATCH_FORGET_IN_SIZE, '', [0])
    this.#ask(Opcode.RELEASEDIR, folder, RELEASE_IN_SIZE, '', [fh])
  }

  /** The node's number, or 0. */
  #lookup(parent: number, name: string): number {
    const length = this.#ask(Opcode.LOOKUP, parent, 0, `${name}\0`, [])
    return length > OUT_HEADER_SIZE ? this.#number(0) : 0
  }

  /** A number of 48 bits in the reply's body. */
  #number(at: number): number {
    return this.#reply.buf.readUIntLE(OUT_HEADER_SIZE + at, 6)
  }

  /** @param words of the body, 32 bits each; the rest of `size` bytes is 0 */
  #ask(opcode: number, node: number, size: number, text: string, words: number[]): number {
    const { buf } = this.#req
    const length = IN_HEADER_SIZE + size + text.length
    buf.fill(0, 0, length)
    buf.writeUInt32LE(length, 0)
    buf.writeUInt32LE(opcode, 4)
    buf.writeUIntLE(node, 16, 6)
    words.forEach((word, i) => buf.writeUInt32LE(word, IN_HEADER_SIZE + 4 * i))
    buf.latin1Write(text, IN_HEADER_SIZE + size)
    this.#req.length = length
    return this.#session.handle(this.#req)
  }
}
