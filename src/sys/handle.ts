/** File handles: name_to_handle_at(2), open_by_handle_at(2). */

import { AT_EMPTY_PATH, O_CLOEXEC } from './constants.js'
import { E } from './errno.js'
import { fail, nameToHandleAt, openByHandleAt, rawAddress } from './libc.js'
import { emptyName, nameA, putA, words } from './scratch.js'
import { slowFile } from './slow.js'
import type { ByteString, Result } from './types.js'

/** MAX_HANDLE_SZ: the maximum length of a handle on any filesystem. */
const MAX_HANDLE_SIZE = 128
/** The length of the type before a handle. */
export const HANDLE_TYPE_SIZE = 4
/** A buffer of this length has room for any handle and its type. */
export const HANDLE_ROOM = HANDLE_TYPE_SIZE + MAX_HANDLE_SIZE

/** struct file_handle: u32 handle_bytes, s32 handle_type, then the handle. */
const HEADER = 8
const struct = Buffer.allocUnsafeSlow(HEADER + MAX_HANDLE_SIZE).fill(0)
const structAddress = rawAddress(struct)

/**
 * name_to_handle_at(2); of a symlink, not its target. With the name '' it takes the object of
 * `dirfd`. Writes the handle's type (a signed 32-bit integer, little endian) and its bytes to
 * `out`. Returns the number of bytes without the type. -EOPNOTSUPP: the filesystem has no handles.
 * -EOVERFLOW: `out` is too short (`HANDLE_ROOM` is always enough).
 */
export const nameToHandle = (dirfd: number, name: ByteString, out: Buffer): Result => {
  const slow = slowFile(dirfd)
  if (slow === undefined) return handleInto(dirfd, name, out)
  const call = { op: 'handle', name, room: answer.length } as const
  const r = slow.ask(call, answer, () => handleInto(dirfd, name, answer))
  if (r < 0) return r
  if (HANDLE_TYPE_SIZE + r > out.length) return -E.EOVERFLOW
  answer.copy(out, 0, 0, HANDLE_TYPE_SIZE + r)
  return r
}

const answer = Buffer.allocUnsafeSlow(HANDLE_ROOM).fill(0)

/** As `nameToHandle`, on the calling thread even if the descriptor is slow. */
export const handleInto = (dirfd: number, name: ByteString, out: Buffer): Result => {
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
  if (HANDLE_TYPE_SIZE + length > out.length) return -E.EOVERFLOW
  // In the struct, too, the type precedes the handle.
  struct.copy(out, 0, HEADER - HANDLE_TYPE_SIZE, HEADER + length)
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
