/**
 * File handles: name_to_handle_at(2), open_by_handle_at(2).
 */

import { AT_EMPTY_PATH, O_CLOEXEC } from './constants.js'
import { E } from './errno.js'
import { fail, nameToHandleAt, openByHandleAt, rawAddress } from './libc.js'
import { emptyName, nameA, putA, words } from './scratch.js'
import type { ByteString, Result } from './types.js'

/** MAX_HANDLE_SZ: the longest handle of any file system. */
export const MAX_HANDLE_SIZE = 128

/** struct file_handle: u32 handle_bytes, s32 handle_type, then the handle. */
const HEADER = 8
const struct = Buffer.allocUnsafeSlow(HEADER + MAX_HANDLE_SIZE).fill(0)
const structAddress = rawAddress(struct)

/** The type that belongs to the handle `nameToHandle` gave last. */
export let lastHandleType = 0

/**
 * name_to_handle_at(2), of the object itself where `name` is a symlink; '' is what `dirfd` refers to.
 * Writes the handle's bytes to `buf` and its type to `lastHandleType`. The handle's length.
 * -EOPNOTSUPP: the file system has no handles. -EOVERFLOW: `buf` is too short (128 is always enough).
 */
export const nameToHandle = (dirfd: number, name: ByteString, buf: Buffer): Result => {
  if (!putA(name)) return -E.ENAMETOOLONG
  struct.writeUInt32LE(MAX_HANDLE_SIZE, 0)
  let r
  do
    r = nameToHandleAt(
      dirfd,
      name === '' ? emptyName : nameA,
      structAddress,
      words,
      name === '' ? AT_EMPTY_PATH : 0,
    )
  while (r < 0 && (r = fail()) === -E.EINTR)
  if (r < 0) return r
  const length = struct.readUInt32LE(0)
  if (length > buf.length) return -E.EOVERFLOW
  struct.copy(buf, 0, HEADER, HEADER + length)
  lastHandleType = struct.readInt32LE(4)
  return length
}

/**
 * open_by_handle_at(2) with O_CLOEXEC: a descriptor of the object a handle stands for, on the file
 * system that `mountFd` lies on (an open file or folder; O_PATH gives -EBADF). `flags` are O_*: with
 * O_PATH also a symlink can be opened. Needs CAP_DAC_READ_SEARCH. -ESTALE: the object is gone.
 */
export const openByHandle = (
  mountFd: number,
  type: number,
  handle: Uint8Array,
  flags: number,
): Result => {
  if (handle.length > MAX_HANDLE_SIZE) return -E.EINVAL
  struct.writeUInt32LE(handle.length, 0)
  struct.writeInt32LE(type, 4)
  struct.set(handle, HEADER)
  let r
  do r = openByHandleAt(mountFd, structAddress, flags | O_CLOEXEC)
  while (r < 0 && (r = fail()) === -E.EINTR)
  return r
}
