/**
 * Extended attributes of a name in an open directory, without opening the object and without
 * following a symlink. The name '' is the descriptor's own object, possibly O_PATH.
 *
 * Linux 6.13 has system calls for exactly that (getxattrat and so on). On older kernels the l*xattr
 * calls with "/proc/self/fd/<dirfd>/<name>" do the same: the kernel follows the magic link to the
 * open directory, but not the name in it.
 *
 * For the name '', the new calls accept AT_EMPTY_PATH, but then refuse O_PATH descriptors. So '.'
 * is tried first, which works for every directory. AT_EMPTY_PATH is next, for other objects
 * (ENOTDIR) and if '.' may not be searched (EACCES). For O_PATH (EBADF) the magic link in /proc is
 * the last resort.
 *
 * The kernel allocates and clears memory of the size of the caller's buffer, which is slow for 64
 * KiB. So the functions that allocate try a small buffer first. docs/measurements.md has the costs.
 */

import { AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW, XATTR_SIZE_MAX } from './constants.js'
import { E } from './errno.js'
import { features, probeXattrat } from './features.js'
import * as c from './libc.js'
import { fail, NR, syscall4, syscall5, syscall6 } from './libc.js'
import {
  addressOf,
  attrName,
  dotName,
  emptyName,
  nameA,
  procPath,
  put64,
  putA,
  putAttr,
  putProcFd,
  putProcName,
  u32,
  words,
} from './scratch.js'
import { slowFile } from './slow.js'
import type { ByteString, Result } from './types.js'

export type { ByteString, Result } from './types.js'

/** sizeof(struct xattr_args) */
const ARGS_SIZE = 16

/**
 * Stores the arguments apart from the object and the xattr's name, which is at `attrName`. `words`
 * has them as struct xattr_args {u64 value; u32 size; u32 flags}.
 */
const putArgs = (buf: Uint8Array, flags: number): void => {
  put64(0, addressOf(buf))
  u32[2] = buf.length
  u32[3] = flags
}

const value = (): number => u32[1]! * 0x1_0000_0000 + u32[0]!
const size = (): number => u32[2]!

/** A call in its three forms. */
interface Call {
  at(dirfd: number, path: number, atFlags: number): number
  follow(path: number): number
  nofollow(path: number): number
}

const GET: Call = {
  at: (dirfd, path, atFlags) =>
    syscall6(NR.getxattrat, dirfd, path, atFlags, attrName, words, ARGS_SIZE),
  follow: path => c.getxattr(path, attrName, value(), size()),
  nofollow: path => c.lgetxattr(path, attrName, value(), size()),
}

const SET: Call = {
  at: (dirfd, path, atFlags) =>
    syscall6(NR.setxattrat, dirfd, path, atFlags, attrName, words, ARGS_SIZE),
  follow: path => c.setxattr(path, attrName, value(), size(), u32[3]!),
  nofollow: path => c.lsetxattr(path, attrName, value(), size(), u32[3]!),
}

const LIST: Call = {
  at: (dirfd, path, atFlags) => syscall5(NR.listxattrat, dirfd, path, atFlags, value(), size()),
  follow: path => c.listxattr(path, value(), size()),
  nofollow: path => c.llistxattr(path, value(), size()),
}

const REMOVE: Call = {
  at: (dirfd, path, atFlags) => syscall4(NR.removexattrat, dirfd, path, atFlags, attrName),
  follow: path => c.removexattr(path, attrName),
  nofollow: path => c.lremovexattr(path, attrName),
}

const callAt = (call: Call, dirfd: number, path: number, atFlags: number): Result => {
  let r
  do r = call.at(dirfd, path, atFlags)
  while (r < 0 && (r = fail()) === -E.EINTR)
  return r
}

/** Whether a call for the name '' failed because of the form of the address. */
const wrongWay = (r: Result): boolean => r === -E.ENOTDIR || r === -E.EACCES || r === -E.EBADF

const callByPath = (call: Call, dirfd: number, name: ByteString): Result => {
  let path = procPath
  if (dirfd === AT_FDCWD) {
    if (!putA(name)) return -E.ENAMETOOLONG
    path = name === '' ? dotName : nameA
  } else if (name === '') putProcFd(dirfd)
  else if (!putProcName(dirfd, name)) return -E.ENAMETOOLONG
  let r
  do r = name === '' ? call.follow(path) : call.nofollow(path)
  while (r < 0 && (r = fail()) === -E.EINTR)
  // The magic link does not exist: the descriptor is not open.
  return name === '' && r === -E.ENOENT ? -E.EBADF : r
}

const run = (call: Call, dirfd: number, name: ByteString): Result => {
  if (features.xattrat ?? probeXattrat()) {
    if (name !== '') {
      return putA(name) ? callAt(call, dirfd, nameA, AT_SYMLINK_NOFOLLOW) : -E.ENAMETOOLONG
    }
    let r = callAt(call, dirfd, dotName, AT_SYMLINK_NOFOLLOW)
    if (!wrongWay(r)) return r
    r = callAt(call, dirfd, emptyName, AT_EMPTY_PATH)
    if (!wrongWay(r)) return r
  }
  return callByPath(call, dirfd, name)
}

/**
 * getxattrat(2): writes the value to `buf` and returns its length. With an empty `buf` it only
 * returns the length. -ERANGE: `buf` is too short (or `attr` is empty or longer than 255).
 * -ENODATA: no such xattr.
 */
export const getxattrat = (
  dirfd: number,
  name: ByteString,
  attr: ByteString,
  buf: Uint8Array,
): Result => {
  const slow = slowFile(dirfd)
  if (slow === undefined) return getValue(dirfd, name, attr, buf)
  const call = { op: 'getxattr', name, attr, room: buf.length } as const
  return slow.ask(call, buf, () => getValue(dirfd, name, attr, buf))
}

const getValue = (dirfd: number, name: ByteString, attr: ByteString, buf: Uint8Array): Result => {
  if (!putAttr(attr)) return -E.ERANGE
  putArgs(buf, 0)
  return run(GET, dirfd, name)
}

/**
 * setxattrat(2) with XATTR_CREATE (-EEXIST), XATTR_REPLACE (-ENODATA) or 0. -EOPNOTSUPP: the
 * filesystem does not support this namespace. -EPERM: `user.` on an object that is neither file nor
 * directory.
 */
export const setxattrat = (
  dirfd: number,
  name: ByteString,
  attr: ByteString,
  data: Uint8Array,
  flags: number,
): Result => {
  if (!putAttr(attr)) return -E.ERANGE
  putArgs(data, flags)
  return run(SET, dirfd, name)
}

/** fsetxattr(2), for a descriptor that is not O_PATH; otherwise like `setxattrat`. */
export const fsetxattr = (
  fd: number,
  attr: ByteString,
  data: Uint8Array,
  flags: number,
): Result => {
  if (!putAttr(attr)) return -E.ERANGE
  let r
  do r = c.fsetxattr(fd, attrName, addressOf(data), data.length, flags)
  while (r < 0 && (r = fail()) === -E.EINTR)
  return r
}

/**
 * listxattrat(2): writes the names, each followed by a NUL, to `buf` and returns the number of
 * bytes. With an empty `buf` it only returns the number. -ERANGE: `buf` is too short.
 */
export const listxattrat = (dirfd: number, name: ByteString, buf: Uint8Array): Result => {
  const slow = slowFile(dirfd)
  if (slow === undefined) return listAttributes(dirfd, name, buf)
  const call = { op: 'listxattr', name, room: buf.length } as const
  return slow.ask(call, buf, () => listAttributes(dirfd, name, buf))
}

const listAttributes = (dirfd: number, name: ByteString, buf: Uint8Array): Result => {
  putArgs(buf, 0)
  return run(LIST, dirfd, name)
}

/** removexattrat(2). -ENODATA: no such xattr. */
export const removexattrat = (dirfd: number, name: ByteString, attr: ByteString): Result =>
  putAttr(attr) ? run(REMOVE, dirfd, name) : -E.ERANGE

/**
 * `small` is enough for almost every value or list, and `large` for all, because it has the
 * kernel's maximum size.
 */
const small = Buffer.allocUnsafeSlow(512)
const large = Buffer.allocUnsafeSlow(XATTR_SIZE_MAX)

/** `getxattrat` into a new Buffer of the right size; or -errno. */
export const getxattrValue = (
  dirfd: number,
  name: ByteString,
  attr: ByteString,
): Buffer | number => {
  let buf = small
  let n = getxattrat(dirfd, name, attr, buf)
  // A name that is too long gives ERANGE again.
  if (n === -E.ERANGE) n = getxattrat(dirfd, name, attr, (buf = large))
  if (n < 0) return n
  const out = Buffer.allocUnsafe(n)
  buf.copy(out, 0, 0, n)
  return out
}

/** `listxattrat` as an array of names; or -errno. */
export const listxattrNames = (dirfd: number, name: ByteString): ByteString[] | number => {
  let buf = small
  let n = listxattrat(dirfd, name, buf)
  if (n === -E.ERANGE) n = listxattrat(dirfd, name, (buf = large))
  if (n < 0) return n
  return n === 0 ? [] : buf.latin1Slice(0, n - 1).split('\0')
}
