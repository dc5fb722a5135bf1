/**
 * The vocabulary of src/sys: what its functions take and return.
 */

/**
 * What a system call gave: >= 0 is success (the value is the call's own), < 0 is -errno
 * (`-E.ENOENT`). Functions returning a Result never throw for a failing call.
 */
export type Result = number

/**
 * Bytes as a string, one char (0..255, latin1) per byte, without NUL. File names are bytes: decoding
 * them as UTF-8 would make names which are not UTF-8 unreachable.
 */
export type ByteString = string

/**
 * A 64-bit unsigned number as the kernel gave it (inode number, directory cookie, mount id): a
 * number while it is a safe integer, else a bigint. Exact in both cases.
 */
export type Ino = number | bigint
