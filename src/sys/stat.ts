/**
 * struct statx as a reusable object. A caller allocates it once, the calls of at.ts fill it
 * repeatedly, and its getters usually allocate nothing. To pass it on completely, copy its words.
 *
 * 64-bit fields are read as two 32-bit halves. Inode numbers (`Ino`) are always exact; sizes, block
 * counts and seconds are exact up to 2^53.
 */

import { S_IFCHR, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from './constants.js'
import { rawAddress } from './libc.js'
import type { Ino, Off } from './types.js'

export type { Ino } from './types.js'

/** sizeof(struct statx) */
const STATX_SIZE = 256
export const STATX_WORDS = STATX_SIZE / 4

/** A 64-bit unsigned integer: a number if it is a safe integer, else a bigint. */
export const ino64 = (lo: number, hi: number): Ino =>
  hi < 0x20_0000 ? hi * 0x1_0000_0000 + lo : (BigInt(hi) << 32n) | BigInt(lo)

/** The words of a struct statx with accessors. */
export class Statx {
  /** 32 bits each, in the order of linux/stat.h. */
  readonly words: Uint32Array

  /** @param words the whole struct */
  constructor(words: Uint32Array) {
    this.words = words
  }

  /** 64 unsigned bits at word i, exact up to 2^53. */
  #long(i: number): number {
    return this.words[i + 1]! * 0x1_0000_0000 + this.words[i]!
  }

  /** 64 signed bits at word i, exact up to 2^53. */
  #signed(i: number): number {
    return (this.words[i + 1]! | 0) * 0x1_0000_0000 + this.words[i]!
  }

  #set64(i: number, n: Ino): void {
    const { words } = this
    if (typeof n === 'number') {
      words[i] = n
      words[i + 1] = Math.floor(n / 0x1_0000_0000)
    } else {
      words[i] = Number(n & 0xffff_ffffn)
      words[i + 1] = Number((n >> 32n) & 0xffff_ffffn)
    }
  }

  /** STATX_* bits of the fields that were filled. */
  get mask(): number {
    return this.words[0]!
  }
  set mask(n) {
    this.words[0] = n
  }
  get blksize(): number {
    return this.words[1]!
  }
  set blksize(n) {
    this.words[1] = n
  }
  /** STATX_ATTR_* bits; a number unless the kernel defines attributes beyond bit 52. */
  get attributes(): Ino {
    return ino64(this.words[2]!, this.words[3]!)
  }
  set attributes(n) {
    this.#set64(2, n)
  }
  get nlink(): number {
    return this.words[4]!
  }
  set nlink(n) {
    this.words[4] = n
  }
  get uid(): number {
    return this.words[5]!
  }
  set uid(n) {
    this.words[5] = n
  }
  get gid(): number {
    return this.words[6]!
  }
  set gid(n) {
    this.words[6] = n
  }
  /** File type and permission bits. */
  get mode(): number {
    return this.words[7]! & 0xffff
  }
  set mode(n) {
    this.words[7] = n
  }
  get ino(): Ino {
    return ino64(this.words[8]!, this.words[9]!)
  }
  set ino(n) {
    this.#set64(8, n)
  }
  /** Bytes, rounded above 2^53. */
  get size(): number {
    return this.#long(10)
  }
  set size(n) {
    this.#set64(10, n)
  }
  /** Bytes, exact. */
  get size64(): Off {
    return ino64(this.words[10]!, this.words[11]!)
  }
  /** Units of 512 bytes. */
  get blocks(): number {
    return this.#long(12)
  }
  set blocks(n) {
    this.#set64(12, n)
  }
  /** The STATX_ATTR_* that the filesystem supports. */
  get attributesMask(): Ino {
    return ino64(this.words[14]!, this.words[15]!)
  }
  set attributesMask(n) {
    this.#set64(14, n)
  }
  /** Seconds since 1970; negative for earlier times. */
  get atimeSec(): number {
    return this.#signed(16)
  }
  set atimeSec(n) {
    this.#set64(16, n)
  }
  /** 0 .. 999999999, added to the seconds even if these are negative. */
  get atimeNsec(): number {
    return this.words[18]!
  }
  set atimeNsec(n) {
    this.words[18] = n
  }
  /** Birth time: only valid if `mask` has STATX_BTIME. */
  get btimeSec(): number {
    return this.#signed(20)
  }
  set btimeSec(n) {
    this.#set64(20, n)
  }
  get btimeNsec(): number {
    return this.words[22]!
  }
  set btimeNsec(n) {
    this.words[22] = n
  }
  get ctimeSec(): number {
    return this.#signed(24)
  }
  set ctimeSec(n) {
    this.#set64(24, n)
  }
  get ctimeNsec(): number {
    return this.words[26]!
  }
  set ctimeNsec(n) {
    this.words[26] = n
  }
  get mtimeSec(): number {
    return this.#signed(28)
  }
  set mtimeSec(n) {
    this.#set64(28, n)
  }
  get mtimeNsec(): number {
    return this.words[30]!
  }
  set mtimeNsec(n) {
    this.words[30] = n
  }
  /** The number of a character or block device; else 0. */
  get rdevMajor(): number {
    return this.words[32]!
  }
  set rdevMajor(n) {
    this.words[32] = n
  }
  get rdevMinor(): number {
    return this.words[33]!
  }
  set rdevMinor(n) {
    this.words[33] = n
  }

  /** Copies all words of another. */
  copyFrom(other: Statx): void {
    this.words.set(other.words)
  }
}

/** The object that the calls of this directory fill. */
export class Stat extends Statx {
  /** The bytes of struct statx, as the kernel wrote them. */
  readonly buffer: Buffer
  /** Their address, for the calls of this directory. */
  readonly address: number

  constructor() {
    const buffer = Buffer.allocUnsafeSlow(STATX_SIZE).fill(0)
    super(new Uint32Array(buffer.buffer, buffer.byteOffset, STATX_WORDS))
    this.buffer = buffer
    this.address = rawAddress(buffer)
  }

  get devMajor(): number {
    return this.words[34]!
  }
  get devMinor(): number {
    return this.words[35]!
  }
  /** The device as one number, unique per device. The kernel's minor numbers have 20 bits. */
  get dev(): number {
    return this.words[34]! * 0x10_0000 + this.words[35]!
  }
  /** The mount's id as in /proc/self/mountinfo; Linux 5.8 and later. */
  get mntId(): Ino {
    return ino64(this.words[36]!, this.words[37]!)
  }

  get isDir(): boolean {
    return (this.words[7]! & S_IFMT) === S_IFDIR
  }
  get isReg(): boolean {
    return (this.words[7]! & S_IFMT) === S_IFREG
  }
  get isLnk(): boolean {
    return (this.words[7]! & S_IFMT) === S_IFLNK
  }
  get isChr(): boolean {
    return (this.words[7]! & S_IFMT) === S_IFCHR
  }
  /** A character device 0/0: a whiteout of overlayfs. */
  get isWhiteout(): boolean {
    return this.isChr && this.words[32] === 0 && this.words[33] === 0
  }

  /** Replaces values of the kernel. `mode` includes the type. */
  amend(uid: number, gid: number, mode: number): void {
    this.uid = uid
    this.gid = gid
    this.mode = mode
  }
  amendDevice(major: number, minor: number): void {
    this.rdevMajor = major
    this.rdevMinor = minor
  }
}
