/**
 * How the main thread wakes the union's thread where that sleeps in read(2) of /dev/fuse: it has the kernel
 * send a request. FUSE_NOTIFY_RETRIEVE of no byte of a file makes one, NOTIFY_REPLY, which wants no answer
 * (fs/fuse/dev.c:fuse_retrieve()). It waits in the queue of all requests, so it is never missed.
 *
 * The file is one that the kernel has in memory, which is so from a first success until the kernel says FORGET; and
 * that wakes the reader as well. Kernels that take a folder for it have the root, which stays.
 */

import { write, type Result } from '../sys/io.js'
import { NOTIFY_RETRIEVE, NOTIFY_RETRIEVE_OUT_SIZE, OUT_HEADER_SIZE } from './abi.js'
import type { NodeId } from '../overlay/ops.js'
import { Reply } from './wire.js'

const SIZE = OUT_HEADER_SIZE + NOTIFY_RETRIEVE_OUT_SIZE
const HIGH = 0x1_0000_0000

/** struct fuse_notify_retrieve_out */
export const writeRetrieve = (rep: Reply, node: NodeId): number => {
  rep.header(SIZE, NOTIFY_RETRIEVE, 0, 0)
  rep.zero(OUT_HEADER_SIZE, SIZE)
  rep.i64(OUT_HEADER_SIZE + 8, node)
  return SIZE
}

// The cells: a state, and the two halves of the node's number.
const STATE = 0
const LOW = 1
const NODE_HIGH = 2
/** The device is not to be written to. */
const OFF = 0
const HUNG = 1
/** The main thread is writing to the device. */
const RINGING = 2

/**
 * The two threads share cells, since a descriptor that one of them closes may be another file when the other
 * one writes to it. Whoever rings has signalled the wake-up descriptor before. Whoever hangs the bell up looks at
 * that once more before it relies on the bell, when its own NOTIFY_REPLY comes: one of the two sees the other.
 */
export class Bell {
  /** To be sent to the other thread. */
  readonly cells: Int32Array<SharedArrayBuffer>
  readonly #message = new Reply(SIZE)

  constructor(cells = new Int32Array(new SharedArrayBuffer(12))) {
    this.cells = cells
  }

  /** Rings once by itself, and where the kernel takes that for this node, allows others to. Whether it does. */
  hang(fd: number, node: NodeId): boolean {
    if (this.#write(fd, node) !== SIZE) return false
    Atomics.store(this.cells, LOW, node | 0)
    Atomics.store(this.cells, NODE_HIGH, Math.floor(node / HIGH))
    Atomics.compareExchange(this.cells, STATE, OFF, HUNG)
    return true
  }

  /** In the main thread: wakes the other one where it can be woken so. */
  ring(fd: number): void {
    const { cells } = this
    if (Atomics.compareExchange(cells, STATE, HUNG, RINGING) !== HUNG) return
    const low = Atomics.load(cells, LOW) >>> 0
    this.#write(fd, Atomics.load(cells, NODE_HIGH) * HIGH + low)
    Atomics.store(cells, STATE, HUNG)
    Atomics.notify(cells, STATE)
  }

  /** From now on nobody writes to the device. False: somebody does so just now. */
  takeDown(): boolean {
    return Atomics.compareExchange(this.cells, STATE, HUNG, OFF) !== RINGING
  }

  /** The same, but waits. Only where the connection has ended: else who writes may be waiting for an answer. */
  takeDownSoon(): void {
    while (!this.takeDown()) Atomics.wait(this.cells, STATE, RINGING)
  }

  #write(fd: number, node: NodeId): Result {
    return write(fd, this.#message.buf, 0, writeRetrieve(this.#message, node))
  }
}
