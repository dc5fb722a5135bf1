/**
 * struct statx as a reusable object: one is allocated per place that needs one, filled by the calls of
 * at.ts as often as wanted, and read through getters that allocate nothing in the usual case.
 *
 * 64-bit fields are read as two 32-bit halves: an inode number is exact always (`Ino`), sizes, block
 * counts and seconds are exact up to 2^53.
 */

import { S_IFCHR, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from './constants.js'
import { rawAddress } from './libc.js'
import type { Ino } from './types.js'

export type { Ino } from './types.js'

/** sizeof(struct statx) */
const STATX_SIZE = 256

/** A 64-bit unsigned integer: a number while it is a safe integer, else a bigint. */
export const ino64 = (lo: number, hi: number): Ino =>
  hi < 0x20_0000 ? hi * 0x1_0000_0000 + lo : (BigInt(hi) << 32n) | BigInt(lo)

export class Stat {
  /** The bytes of struct statx, as the kernel wrote them. */
  readonly buffer: Buffer
  /** Where they are: for the calls of this folder. */
  readonly address: number
  readonly #u32: Uint32Array
  readonly #i32: Int32Array

  constructor() {
    this.buffer = Buffer.allocUnsafeSlow(STATX_SIZE).fill(0)
    this.address = rawAddress(this.buffer)
    this.#u32 = new Uint32Array(this.buffer.buffer, this.buffer.byteOffset, STATX_SIZE / 4)
    this.#i32 = new Int32Array(this.buffer.buffer, this.buffer.byteOffset, STATX_SIZE / 4)
  }

  /** 32 bits at 32-bit index i. */
  #at(i: number): number {
    return this.#u32[i]!
  }

  /** 64 unsigned bits at 32-bit index i, exact up to 2^53. */
  #long(i: number): number {
    return this.#u32[i + 1]! * 0x1_0000_0000 + this.#u32[i]!
  }

  /** 64 signed bits, likewise. */
  #signed(i: number): number {
    return this.#i32[i + 1]! * 0x1_0000_0000 + this.#u32[i]!
  }

  /** STATX_* bits of the fields that were filled. */
  get mask(): number {
    return this.#at(0)
  }
  get blksize(): number {
    return this.#at(1)
  }
  /** STATX_ATTR_* bits; a number unless the kernel grows attributes beyond bit 52. */
  get attributes(): Ino {
    return ino64(this.#at(2), this.#at(3))
  }
  get nlink(): number {
    return this.#at(4)
  }
  get uid(): number {
    return this.#at(5)
  }
  get gid(): number {
    return this.#at(6)
  }
  /** File type and permission bits. */
  get mode(): number {
    return this.#at(7) & 0xffff
  }
  get ino(): Ino {
    return ino64(this.#at(8), this.#at(9))
  }
  /** Bytes. */
  get size(): number {
    return this.#long(10)
  }
  /** Units of 512 bytes. */
  get blocks(): number {
    return this.#long(12)
  }
  /** Which STATX_ATTR_* the file system knows. */
  get attributesMask(): Ino {
    return ino64(this.#at(14), this.#at(15))
  }
  /** Seconds since 1970; negative before. */
  get atimeSec(): number {
    return this.#signed(16)
  }
  /** 0 .. 999999999, to be added to the seconds also where these are negative. */
  get atimeNsec(): number {
    return this.#at(18)
  }
  /** Birth: only valid where `mask` has STATX_BTIME. */
  get btimeSec(): number {
    return this.#signed(20)
  }
  get btimeNsec(): number {
    return this.#at(22)
  }
  get ctimeSec(): number {
    return this.#signed(24)
  }
  get ctimeNsec(): number {
    return this.#at(26)
  }
  get mtimeSec(): number {
    return this.#signed(28)
  }
  get mtimeNsec(): number {
    return this.#at(30)
  }
  /** Of a character or block device; else 0. */
  get rdevMajor(): number {
    return this.#at(32)
  }
  get rdevMinor(): number {
    return this.#at(33)
  }
  get devMajor(): number {
    return this.#at(34)
  }
  get devMinor(): number {
    return this.#at(35)
  }
  /** The device as one number: different devices have different ones. The kernel's minors have 20 bits. */
  get dev(): number {
    return this.#at(34) * 0x10_0000 + this.#at(35)
  }
  /** The mount's id as in /proc/self/mountinfo; Linux 5.8 and later. */
  get mntId(): Ino {
    return ino64(this.#at(36), this.#at(37))
  }

  get isDir(): boolean {
    return (this.#at(7) & S_IFMT) === S_IFDIR
  }
  get isReg(): boolean {
    return (this.#at(7) & S_IFMT) === S_IFREG
  }
  get isLnk(): boolean {
    return (this.#at(7) & S_IFMT) === S_IFLNK
  }
  get isChr(): boolean {
    return (this.#at(7) & S_IFMT) === S_IFCHR
  }
  /** A character device 0/0: how overlayfs marks a deleted name. */
  get isWhiteout(): boolean {
    return this.isChr && this.#at(32) === 0 && this.#at(33) === 0
  }

  /** Puts other values in the place of the kernel's. `mode` has the type, too. */
  amend(uid: number, gid: number, mode: number): void {
    this.#u32[5] = uid
    this.#u32[6] = gid
    this.#u32[7] = (this.#at(7) & ~0xffff) | mode
  }
  amendDevice(major: number, minor: number): void {
    this.#u32[32] = major
    this.#u32[33] = minor
  }

  /** Makes this a copy of another. */
  copyFrom(other: Stat): void {
    this.#u32.set(other.#u32)
  }
}
