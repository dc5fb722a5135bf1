/**
 * Memory for arguments: buffers for names and small structures during a system call, and the
 * addresses of callers' buffers. Private to src/sys.
 *
 * Each thread has one block, allocated when the module is loaded (modules are instantiated per
 * worker thread). Calls are synchronous and have no callbacks, so the slots are free again when a
 * call returns. `Buffer.allocUnsafeSlow` of this size is outside the JS heap and never moves.
 */

import { rawAddress } from './libc.js'
import type { ByteString, Off } from './types.js'

/** The kernel's PATH_MAX, including the NUL. A system call does not accept a longer path. */
export const PATH_MAX = 4096

// Offsets of the slots in the block.
const NAME_A = 0
const NAME_B = PATH_MAX
const ATTR = 2 * PATH_MAX
const PROC = 3 * PATH_MAX
const EMPTY = 5 * PATH_MAX
const WORDS = EMPTY + 64
const SIZE = WORDS + 512

const block = Buffer.allocUnsafeSlow(SIZE).fill(0)
const base = rawAddress(block)

/** Addresses of the slots. */
export const nameA = base + NAME_A
export const nameB = base + NAME_B
export const attrName = base + ATTR
export const procPath = base + PROC
/** "" */
export const emptyName = base + EMPTY
/** "." */
export const dotName = base + EMPTY + 8
block.latin1Write('.', EMPTY + 8)

/** 512 bytes for small structures, and their address. */
export const words = base + WORDS
export const bytes = block.subarray(WORDS, WORDS + 512)
export const u32 = new Uint32Array(block.buffer, block.byteOffset + WORDS, 128)
export const i32 = new Int32Array(block.buffer, block.byteOffset + WORDS, 128)
export const u64 = new BigUint64Array(block.buffer, block.byteOffset + WORDS, 64)

/**
 * Up to this length a loop over the characters is faster than Buffer.latin1Write, which has a
 * constant cost.
 */
const LOOP_MAX = 22

const put = (s: ByteString, at: number): boolean => {
  const n = s.length
  if (n <= LOOP_MAX) {
    for (let i = 0; i < n; i++) block[at + i] = s.charCodeAt(i)
  } else {
    if (n >= PATH_MAX) return false
    block.latin1Write(s, at)
  }
  block[at + n] = 0
  return true
}

/** Writes a NUL-terminated name or path to `nameA`; false if it is too long. */
export const putA = (s: ByteString): boolean => put(s, NAME_A)
/** Writes it to `nameB`. */
export const putB = (s: ByteString): boolean => put(s, NAME_B)

/** The contents of `attrName`. Callers often request the same xattr of many files. */
let lastAttr: ByteString = ''

/** Writes it to `attrName`. */
export const putAttr = (s: ByteString): boolean => {
  if (s === lastAttr) return true
  if (!put(s, ATTR)) return false
  lastAttr = s
  return true
}

const PROC_PREFIX = '/proc/self/fd/'
block.latin1Write(PROC_PREFIX, PROC)

/**
 * Writes "/proc/self/fd/<fd>" to `procPath`: a magic link to the descriptor's object, whatever its
 * current names. Following it is safe even if the object is a symlink, because the kernel does not
 * follow that in turn.
 */
export const putProcFd = (fd: number): void => {
  const at = PROC + PROC_PREFIX.length
  block[at + block.latin1Write(String(fd), at)] = 0
}

/**
 * Writes "/proc/self/fd/<fd>/<name>" to `procPath`. Only for calls that do not follow the last
 * component, such as lgetxattr(2); `scripts/lint-paths.mjs` checks that. False if the name is too
 * long.
 */
export const putProcName = (fd: number, name: ByteString): boolean => {
  let at = PROC + PROC_PREFIX.length
  at += block.latin1Write(String(fd), at)
  block[at++] = 0x2f
  return put(name, at)
}

/** Writes a safe integer, possibly negative, as 64 bits at 32-bit index `i` of `words`. */
export const put64 = (i: number, n: number): void => {
  u32[i] = n >>> 0
  i32[i + 1] = Math.floor(n / 0x1_0000_0000)
}

/** The same for an offset, which may be a bigint. */
export const putOff = (i: number, off: Off): void => {
  if (typeof off === 'number') return put64(i, off)
  u32[i] = Number(off & 0xffff_ffffn)
  i32[i + 1] = Number(off >> 32n)
}

/** Base addresses of known ArrayBuffers, which makes short-lived views of one buffer cheap. */
const bases = new WeakMap<ArrayBufferLike, number>()

// The two views that were used last, most recent first: a read loop alternates between few views.
let view1: Uint8Array | undefined
let address1 = 0
let view2: Uint8Array | undefined
let address2 = 0

/**
 * The address of a view's first byte; meaningless for an empty view.
 *
 * It is valid as long as the memory is. V8 never moves an ArrayBuffer's memory. V8 keeps small
 * typed arrays inside its moving heap, but gives them such a buffer when `.buffer` is first read,
 * as it is here. The caller holds the view during its call, so the memory is not freed. A detached
 * buffer has length 0: callers compare with the view's length before each call (`inBounds`).
 *
 * An unknown buffer is expensive, so callers should keep buffers, or take them from a pool
 * (Buffer.allocUnsafe).
 */
export const addressOf = (view: Uint8Array): number => {
  if (view === view1) return address1
  if (view === view2) return address2
  const { buffer } = view
  let start = bases.get(buffer)
  if (start === undefined) {
    if (view.length === 0) return 0
    // The address of a view, because koffi does not accept a SharedArrayBuffer.
    start = rawAddress(view) - view.byteOffset
    bases.set(buffer, start)
  }
  view2 = view1
  address2 = address1
  view1 = view
  address1 = start + view.byteOffset
  return address1
}

/** Whether `length` bytes from `offset` are inside the view. Also false for NaN. */
export const inBounds = (view: Uint8Array, offset: number, length: number): boolean =>
  offset >= 0 && length >= 0 && offset + length <= view.length
