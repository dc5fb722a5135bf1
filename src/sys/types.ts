/** The vocabulary of src/sys: what its functions take and return. */

/**
 * What a system call gave: >= 0 is success (the value is the call's own), < 0 is -errno
 * (`-E.ENOENT`). Functions returning a Result never throw for a failing call.
 */
export type Result = number

/**
 * Bytes as a string, one char (0..255, latin1) per byte, without NUL. File names are bytes:
 * decoding them as UTF-8 would make names which are not UTF-8 unreachable.
 */
export type ByteString = string

/**
 * A 64-bit unsigned number as the kernel gave it (inode number, directory cookie, mount id): a
 * number while it is a safe integer, else a bigint. Exact in both cases.
 */
export type Ino = number | bigint

/**
 * An offset in a file, or its size: a number while it is a safe integer, else a bigint, below 2^63.
 */
export type Off = number | bigint

/** The offset `n` bytes behind another one. */
export const offPlus = (off: Off, n: number): Off => {
  if (typeof off === 'number' && off + n <= Number.MAX_SAFE_INTEGER) return off + n
  return BigInt(off) + BigInt(n)
}

/** How far it is from one offset to a later one, rounded beyond 2^53. */
export const offDistance = (from: Off, to: Off): number =>
  typeof from === 'number' && typeof to === 'number' ? to - from : Number(BigInt(to) - BigInt(from))
