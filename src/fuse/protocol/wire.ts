/**
 * Raw bytes: a request as read from the device, with bounds-checked access, and a reply in a buffer
 * that is allocated once. 32-bit words are read and written through typed arrays at aligned
 * offsets; a 64-bit integer is two of them.
 */

import type { KeptAnswers } from '../../overlay/ops.js'
import { ino64 } from '../../sys/stat.js'
import type { Ino, Off } from '../../sys/types.js'
import { IN_HEADER_SIZE, OUT_HEADER_SIZE } from './abi.js'

const HIGH = 0x1_0000_0000

/** Words of struct fuse_in_header. */
const LEN = 0
const OPCODE = 1
const UNIQUE = 2
const NODEID = 4
const UID = 6
const GID = 7
const PID = 8
const BODY = IN_HEADER_SIZE / 4

/**
 * A request. Offsets count bytes of the body. Numbers beyond the request's end read as 0, names as
 * undefined. Callers check the size of the fixed part once, with `bodyLength`.
 */
export class Request {
  readonly buf: Buffer
  readonly #u32: Uint32Array
  readonly #i32: Int32Array
  /** Bytes of the request in `buf`. */
  length = 0

  /** Results of slow calls that were kept while it was parked. */
  kept: KeptAnswers | null = null

  constructor(size: number) {
    this.buf = Buffer.allocUnsafeSlow((size + 7) & ~7)
    this.#u32 = new Uint32Array(this.buf.buffer)
    this.#i32 = new Int32Array(this.buf.buffer)
  }

  /** A separate request with the same bytes. It takes over `kept`. */
  copy(): Request {
    const other = new Request(this.length)
    this.buf.copy(other.buf, 0, 0, this.length)
    other.length = this.length
    other.kept = this.kept
    this.kept = null
    return other
  }

  /** Whether there is a header, and its length is the number of bytes that were read. */
  get wellFormed(): boolean {
    return this.length >= IN_HEADER_SIZE && this.#u32[LEN] === this.length
  }
  get opcode(): number {
    return this.#u32[OPCODE]!
  }
  /** The two halves of `unique`, which is only compared and sent back. */
  get uniqueLow(): number {
    return this.#u32[UNIQUE]!
  }
  get uniqueHigh(): number {
    return this.#u32[UNIQUE + 1]!
  }
  /** For the log. */
  get unique(): string {
    return uniqueText(this.uniqueLow, this.uniqueHigh)
  }
  /**
   * The nodeid. All nodeids that the union gave to the kernel are safe integers; others are
   * unknown.
   */
  get nodeid(): number {
    return this.#u32[NODEID + 1]! * HIGH + this.#u32[NODEID]!
  }
  get uid(): number {
    return this.#u32[UID]!
  }
  get gid(): number {
    return this.#u32[GID]!
  }
  get pid(): number {
    return this.#u32[PID]!
  }

  get bodyLength(): number {
    return this.length - IN_HEADER_SIZE
  }
  /** 32 bits, unsigned, at a multiple of 4. */
  u32(offset: number): number {
    return IN_HEADER_SIZE + offset + 4 <= this.length ? this.#u32[BODY + (offset >>> 2)]! : 0
  }
  /** 64 bits, unsigned, at a multiple of 4; rounded above 2^53. */
  u64(offset: number): number {
    return this.u32(offset + 4) * HIGH + this.u32(offset)
  }
  /** An offset or a size of 64 bits, exact. */
  off(offset: number): Off {
    return ino64(this.u32(offset), this.u32(offset + 4))
  }
  /** 64 bits, signed, at a multiple of 4; rounded above 2^53. */
  i64(offset: number): number {
    if (IN_HEADER_SIZE + offset + 8 > this.length) return 0
    const i = BODY + (offset >>> 2)
    return this.#i32[i + 1]! * HIGH + this.#u32[i]!
  }

  /** The offset of the NUL that ends the string at `offset`, or -1. */
  nul(offset: number): number {
    const { buf, length } = this
    for (let i = IN_HEADER_SIZE + offset; i < length; i++) {
      if (buf[i] === 0) return i - IN_HEADER_SIZE
    }
    return -1
  }
  /** The bytes between two body offsets as a ByteString. */
  text(from: number, to: number): string {
    return this.buf.latin1Slice(IN_HEADER_SIZE + from, IN_HEADER_SIZE + to)
  }
  /** A view of `length` bytes of the body. */
  bytes(offset: number, length: number): Buffer {
    return this.buf.subarray(IN_HEADER_SIZE + offset, IN_HEADER_SIZE + offset + length)
  }
}

export const uniqueText = (low: number, high: number): string =>
  high === 0 ? String(low) : String((BigInt(high) << 32n) | BigInt(low))

/** Words of struct fuse_statx that are copied: the last is rdev_minor. */
const STATX_SHOWN = 34

/** include/linux/kdev_t.h:new_encode_dev() */
const encodeDev = (major: number, minor: number): number =>
  (minor & 0xff) | (major << 8) | ((minor & 0xfff00) << 12)

/**
 * A reply. Offsets count bytes of the buffer; the first 16 are the header. The writers do not check
 * bounds, because a typed array ignores writes outside it. The buffer is larger than any reply.
 */
export class Reply {
  readonly buf: Buffer
  readonly #u32: Uint32Array
  readonly #i32: Int32Array

  constructor(size: number) {
    this.buf = Buffer.allocUnsafeSlow((size + 7) & ~7)
    this.#u32 = new Uint32Array(this.buf.buffer)
    this.#i32 = new Int32Array(this.buf.buffer)
  }

  /** Bytes of room behind the header. */
  get capacity(): number {
    return this.buf.length - OUT_HEADER_SIZE
  }

  /** struct fuse_out_header. `error` is 0 or -errno; in a notification it is the code. */
  header(length: number, error: number, uniqueLow: number, uniqueHigh: number): void {
    this.#u32[0] = length
    this.#i32[1] = error
    this.#u32[2] = uniqueLow
    this.#u32[3] = uniqueHigh
  }
  u32(offset: number, n: number): void {
    this.#u32[offset >>> 2] = n
  }
  /** A safe integer, possibly negative, as 64 bits. */
  i64(offset: number, n: number): void {
    const i = offset >>> 2
    this.#u32[i] = n
    this.#i32[i + 1] = Math.floor(n / HIGH)
  }
  /** An inode number, or an offset. */
  ino(offset: number, n: Ino): void {
    if (typeof n === 'number') {
      this.i64(offset, n)
    } else {
      this.#u32[offset >>> 2] = Number(n & 0xffff_ffffn)
      this.#u32[(offset >>> 2) + 1] = Number(n >> 32n)
    }
  }
  /** struct fuse_attr, from the words of a struct statx. */
  attr(offset: number, st: Uint32Array): void {
    const out = this.#u32
    const i = offset >>> 2
    out[i] = st[8]! // ino
    out[i + 1] = st[9]!
    out[i + 2] = st[10]! // size
    out[i + 3] = st[11]!
    out[i + 4] = st[12]! // blocks
    out[i + 5] = st[13]!
    out[i + 6] = st[16]! // atime
    out[i + 7] = st[17]!
    out[i + 8] = st[28]! // mtime
    out[i + 9] = st[29]!
    out[i + 10] = st[24]! // ctime
    out[i + 11] = st[25]!
    out[i + 12] = st[18]! // atimensec
    out[i + 13] = st[30]! // mtimensec
    out[i + 14] = st[26]! // ctimensec
    out[i + 15] = st[7]! & 0xffff // mode
    out[i + 16] = st[4]! // nlink
    out[i + 17] = st[5]! // uid
    out[i + 18] = st[6]! // gid
    out[i + 19] = encodeDev(st[32]!, st[33]!) // rdev
    out[i + 20] = st[1]! // blksize
    out[i + 21] = 0 // flags: FUSE_ATTR_SUBMOUNT, FUSE_ATTR_DAX
  }
  /** struct fuse_statx, which has the layout of struct statx up to rdev_minor. */
  statx(offset: number, st: Uint32Array): void {
    const out = this.#u32
    const i = offset >>> 2
    for (let n = 0; n < STATX_SHOWN; n++) out[i + n] = st[n]!
  }
  /** Zeroes words; both offsets are multiples of 4. */
  zero(from: number, to: number): void {
    this.#u32.fill(0, from >>> 2, to >>> 2)
  }
}
