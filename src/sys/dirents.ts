/** Reads directories: getdents64(2) and an iterator over its result. */

import { E } from './errno.js'
import { fail, NR, syscall3 } from './libc.js'
import { addressOf } from './scratch.js'
import { slowFile } from './slow.js'
import { ino64 } from './stat.js'
import type { ByteString, Ino, Result } from './types.js'

/**
 * getdents64(2): fills `buf` with struct linux_dirent64 records from the descriptor's position on.
 * Returns the number of bytes; 0 at the end; -EINVAL if `buf` is too small for a record.
 */
export const getdents64 = (fd: number, buf: Uint8Array): Result => {
  const slow = slowFile(fd)
  return slow === undefined
    ? getdents(fd, buf)
    : slow.ask({ op: 'getdents', room: buf.length }, buf, () => getdents(fd, buf))
}

const getdents = (fd: number, buf: Uint8Array): Result => {
  const address = addressOf(buf)
  let r
  do r = syscall3(NR.getdents64, fd, address, buf.length)
  while (r < 0 && (r = fail()) === -E.EINTR)
  return r
}

// struct linux_dirent64
const OFF = 8
const RECLEN = 16
const TYPE = 18
const NAME = 19

/**
 * Iterates over the records of a getdents64 buffer. An object can be reused for many buffers:
 *
 *     const d = new Dirents(Buffer.allocUnsafeSlow(32768))
 *     while ((n = d.fill(fd)) > 0) while (d.next()) use(d.name, d.type)
 */
export class Dirents {
  readonly buffer: Buffer
  #end: number
  /** Offsets of the current record and of the next one. */
  #at = 0
  #next = 0
  #name: ByteString | undefined

  /** @param length the number of bytes in the buffer that are filled already */
  constructor(buffer: Buffer, length = 0) {
    this.buffer = buffer
    this.#end = length
  }

  /** Reads the next records of `fd` into the buffer. Returns the result of `getdents64`. */
  fill(fd: number): Result {
    const n = getdents64(fd, this.buffer)
    this.reset(n > 0 ? n : 0)
    return n
  }

  /** Restarts with the first `length` bytes of the buffer. */
  reset(length: number): void {
    this.#end = length
    this.#at = 0
    this.#next = 0
    this.#name = undefined
  }

  /** Moves to the next record; false at the end. The getters below are valid after true. */
  next(): boolean {
    const at = this.#next
    if (at >= this.#end) return false
    this.#at = at
    this.#next = at + this.buffer[at + RECLEN]! + this.buffer[at + RECLEN + 1]! * 256
    this.#name = undefined
    return true
  }

  /** Includes "." and "..". */
  get name(): ByteString {
    return (this.#name ??= this.buffer.latin1Slice(this.#at + NAME, this.#nameEnd()))
  }

  /** Whether the name is "." or "..". It does not create the name's string. */
  get isDots(): boolean {
    const { buffer } = this
    const at = this.#at + NAME
    if (buffer[at] !== 0x2e) return false
    return buffer[at + 1] === 0 || (buffer[at + 1] === 0x2e && buffer[at + 2] === 0)
  }

  get ino(): Ino {
    return this.#long(0)
  }

  /** The cookie behind this entry, for `seekdir`. It is opaque; ext4 uses all 63 bits. */
  get off(): Ino {
    return this.#long(OFF)
  }

  /** DT_*; DT_UNKNOWN if the filesystem does not report it. */
  get type(): number {
    return this.buffer[this.#at + TYPE]!
  }

  /**
   * The offset of the NUL behind the name. It is in the record's last 8 bytes; the bytes behind it
   * are undefined padding.
   */
  #nameEnd(): number {
    const { buffer } = this
    let i = Math.max(this.#at + NAME, this.#next - 8)
    while (buffer[i] !== 0) i++
    return i
  }

  #long(at: number): Ino {
    const b = this.buffer
    return ino64(b.readUInt32LE(this.#at + at), b.readUInt32LE(this.#at + at + 4))
  }
}
