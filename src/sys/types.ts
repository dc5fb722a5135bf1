/** Parameter and result types of src/sys. */

/**
 * The result of a system call: >= 0 is success, with the call's own value; < 0 is -errno
 * (`-E.ENOENT`). A function that returns a Result does not throw if the call fails.
 */
export type Result = number

/**
 * Bytes as a string, one char (0..255, latin1) per byte, without NUL. File names are bytes: if they
 * were decoded as UTF-8, names that are not valid UTF-8 would be unreachable.
 */
export type ByteString = string

/**
 * A 64-bit unsigned number of the kernel (inode number, directory cookie, mount id): a number if it
 * is a safe integer, else a bigint. It is always exact.
 */
export type Ino = number | bigint

/** A file offset or size: a number if it is a safe integer, else a bigint below 2^63. */
export type Off = number | bigint

/** The offset `n` bytes behind `off`. */
export const offPlus = (off: Off, n: number): Off => {
  if (typeof off === 'number' && off + n <= Number.MAX_SAFE_INTEGER) return off + n
  return BigInt(off) + BigInt(n)
}

/** The distance from one offset to a later one, rounded above 2^53. */
export const offDistance = (from: Off, to: Off): number =>
  typeof from === 'number' && typeof to === 'number' ? to - from : Number(BigInt(to) - BigInt(from))
