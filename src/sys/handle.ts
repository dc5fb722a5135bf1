/** File handles: name_to_handle_at(2), open_by_handle_at(2). */

import { AT_EMPTY_PATH, O_CLOEXEC } from './constants.js'
import { E } from './errno.js'
import { fail, nameToHandleAt, openByHandleAt, rawAddress } from './libc.js'
import { emptyName, nameA, putA, words } from './scratch.js'
import { slowFile } from './slow.js'
import type { ByteString, Result } from './types.js'

/** MAX_HANDLE_SZ: the maximum length of a handle on any filesystem. */
export const MAX_HANDLE_SIZE = 128

/** struct file_handle: u32 handle_bytes, s32 handle_type, then the handle. */
const HEADER = 8
const struct = Buffer.allocUnsafeSlow(HEADER + MAX_HANDLE_SIZE).fill(0)
const structAddress = rawAddress(struct)

/** The type of the handle that `nameToHandle` returned last. */
export let lastHandleType = 0

/**
 * name_to_handle_at(2); of a symlink, not its target. With the name '' it takes the object of
 * `dirfd`. Writes the handle's bytes to `buf` and its type to `lastHandleType`. Returns the
 * handle's length. -EOPNOTSUPP: the filesystem has no handles. -EOVERFLOW: `buf` is too short (128
 * bytes are always enough).
 */
export const nameToHandle = (dirfd: number, name: ByteString, buf: Buffer): Result => {
  const slow = slowFile(dirfd)
  if (slow === undefined) return handleOf(dirfd, name, buf)
  const call = { op: 'handle', name, room: answer.length } as const
  const r = slow.ask(call, answer, () => handleInto(dirfd, name, answer))
  if (r < 0) return r
  if (r > buf.length) return -E.EOVERFLOW
  lastHandleType = answer.readInt32LE(0)
  answer.copy(buf, 0, 4, 4 + r)
  return r
}

/** Four bytes for the type, then a handle. */
const answer = Buffer.allocUnsafeSlow(4 + MAX_HANDLE_SIZE).fill(0)

/** Like `nameToHandle`, but `out` has the type before the handle. For another thread. */
export const handleInto = (dirfd: number, name: ByteString, out: Buffer): Result => {
  const r = handleOf(dirfd, name, out.subarray(4))
  if (r >= 0) out.writeInt32LE(lastHandleType, 0)
  return r
}

const handleOf = (dirfd: number, name: ByteString, buf: Buffer): Result => {
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
 * open_by_handle_at(2) with O_CLOEXEC: opens the object of a handle. `mountFd` is an open file or
 * directory on the same filesystem (O_PATH gives -EBADF). `flags` are O_*; with O_PATH a symlink
 * can be opened, too. Needs CAP_DAC_READ_SEARCH. -ESTALE: the object no longer exists.
 */
export const openByHandle = (
  mountFd: number,
  type: number,
  handle: Uint8Array,
  flags: number,
): Result => {
  if (handle.length > MAX_HANDLE_SIZE) return -E.EINVAL
  const slow = slowFile(mountFd)
  if (slow === undefined) return openHandle(mountFd, type, handle, flags)
  const bytes = Buffer.from(handle).latin1Slice()
  const call = { op: 'openhandle', type, handle: bytes, flags } as const
  return slow.open(call, () => openHandle(mountFd, type, handle, flags))
}

const openHandle = (mountFd: number, type: number, handle: Uint8Array, flags: number): Result => {
  struct.writeUInt32LE(handle.length, 0)
  struct.writeInt32LE(type, 4)
  struct.set(handle, HEADER)
  let r
  do r = openByHandleAt(mountFd, structAddress, flags | O_CLOEXEC)
  while (r < 0 && (r = fail()) === -E.EINTR)
  return r
}
