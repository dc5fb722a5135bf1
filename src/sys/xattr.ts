/**
 * Extended attributes of a name in an open directory, without opening the object and without following
 * a symlink; the name '' is what the descriptor itself refers to, which may be O_PATH.
 *
 * Linux 6.13 has system calls for exactly that (getxattrat and so on). Before, the l*xattr calls on
 * "/proc/self/fd/<dirfd>/<name>" do the same: the magic link is followed to the open directory, the
 * name in it is not.
 *
 * For the name '' of a descriptor the new calls take AT_EMPTY_PATH, but refuse O_PATH descriptors. So
 * '.' is tried first, which serves every directory; for other objects (ENOTDIR) and where '.' may not be
 * searched (EACCES), the magic link in /proc itself.
 *
 * Buffer sizes: the kernel allocates and clears as much memory as the caller's buffer is long, so
 * 64 KiB "to be safe" costs microseconds. The functions that allocate ask with a small one first.
 */

import { AT_FDCWD, AT_SYMLINK_NOFOLLOW, XATTR_SIZE_MAX } from './constants.js'
import { E } from './errno.js'
import * as c from './libc.js'
import { fail, NR, syscall4, syscall5, syscall6 } from './libc.js'
import {
  addressOf,
  attrName,
  dotName,
  nameA,
  procPath,
  put64,
  putA,
  putAttr,
  putProcFd,
  u32,
  words,
} from './scratch.js'
import type { ByteString, Result } from './types.js'

export type { ByteString, Result } from './types.js'

/** Whether the kernel has getxattrat and so on, and lets us call them; asked when first needed. */
let haveAt: boolean | undefined

// Some seccomp filters refuse unknown calls with EPERM instead of ENOSYS: only EBADF is a yes.
const probe = (): boolean =>
  (haveAt = syscall5(NR.listxattrat, -1, dotName, 0, 0, 0) < 0 && fail() === -E.EBADF)

/** sizeof(struct xattr_args): u64 value, u32 size, u32 flags; at `words` */
const ARGS_SIZE = 16

const putArgs = (value: number, size: number, flags: number): void => {
  put64(0, value)
  u32[2] = size
  u32[3] = flags
}

/** Whether a call with '.' for the name '' came to nothing and is to be tried by path. */
const retryByPath = (name: ByteString, r: Result): boolean =>
  name === '' && (r === -E.ENOTDIR || r === -E.EACCES)

/**
 * For the calls by path: the address of a path to the object, or 0 where it is too long. For the name ''
 * it is a magic link, which must be followed; otherwise it must not be.
 */
const pathTo = (dirfd: number, name: ByteString): number => {
  if (dirfd === AT_FDCWD) return name === '' ? dotName : putA(name) ? nameA : 0
  return putProcFd(dirfd, name) ? procPath : 0
}

/** A magic link that does not exist means that the descriptor is not open. */
const byPath = (name: ByteString, r: Result): Result =>
  name === '' && r === -E.ENOENT ? -E.EBADF : r

/**
 * getxattrat(2): the length of the value, which is written to `buf`; with an empty `buf` the length only.
 * -ERANGE: `buf` is too short (or `attr` is empty or longer than 255). -ENODATA: no such attribute.
 */
export const getxattrat = (
  dirfd: number,
  name: ByteString,
  attr: ByteString,
  buf: Uint8Array,
): Result => {
  if (!putAttr(attr)) return -E.ERANGE
  const value = addressOf(buf)
  const size = buf.length
  let r
  if (haveAt ?? probe()) {
    if (!putA(name)) return -E.ENAMETOOLONG
    const path = name === '' ? dotName : nameA
    putArgs(value, size, 0)
    do r = syscall6(NR.getxattrat, dirfd, path, AT_SYMLINK_NOFOLLOW, attrName, words, ARGS_SIZE)
    while (r < 0 && (r = fail()) === -E.EINTR)
    if (!retryByPath(name, r)) return r
  }
  const path = pathTo(dirfd, name)
  if (path === 0) return -E.ENAMETOOLONG
  const call = name === '' ? c.getxattr : c.lgetxattr
  do r = call(path, attrName, value, size)
  while (r < 0 && (r = fail()) === -E.EINTR)
  return byPath(name, r)
}

/**
 * setxattrat(2) with XATTR_CREATE (-EEXIST), XATTR_REPLACE (-ENODATA) or 0. -EOPNOTSUPP: the file system
 * does not take this namespace. -EPERM: `user.` on something that is neither file nor directory.
 */
export const setxattrat = (
  dirfd: number,
  name: ByteString,
  attr: ByteString,
  value: Uint8Array,
  flags: number,
): Result => {
  if (!putAttr(attr)) return -E.ERANGE
  const address = addressOf(value)
  const size = value.length
  let r
  if (haveAt ?? probe()) {
    if (!putA(name)) return -E.ENAMETOOLONG
    const path = name === '' ? dotName : nameA
    putArgs(address, size, flags)
    do r = syscall6(NR.setxattrat, dirfd, path, AT_SYMLINK_NOFOLLOW, attrName, words, ARGS_SIZE)
    while (r < 0 && (r = fail()) === -E.EINTR)
    if (!retryByPath(name, r)) return r
  }
  const path = pathTo(dirfd, name)
  if (path === 0) return -E.ENAMETOOLONG
  const call = name === '' ? c.setxattr : c.lsetxattr
  do r = call(path, attrName, address, size, flags)
  while (r < 0 && (r = fail()) === -E.EINTR)
  return byPath(name, r)
}

/**
 * listxattrat(2): writes the names, each followed by NUL, to `buf`; the number of bytes. With an empty
 * `buf` the number only. -ERANGE: `buf` is too short.
 */
export const listxattrat = (dirfd: number, name: ByteString, buf: Uint8Array): Result => {
  const address = addressOf(buf)
  const size = buf.length
  let r
  if (haveAt ?? probe()) {
    if (!putA(name)) return -E.ENAMETOOLONG
    const path = name === '' ? dotName : nameA
    do r = syscall5(NR.listxattrat, dirfd, path, AT_SYMLINK_NOFOLLOW, address, size)
    while (r < 0 && (r = fail()) === -E.EINTR)
    if (!retryByPath(name, r)) return r
  }
  const path = pathTo(dirfd, name)
  if (path === 0) return -E.ENAMETOOLONG
  const call = name === '' ? c.listxattr : c.llistxattr
  do r = call(path, address, size)
  while (r < 0 && (r = fail()) === -E.EINTR)
  return byPath(name, r)
}

/** removexattrat(2). -ENODATA: no such attribute. */
export const removexattrat = (dirfd: number, name: ByteString, attr: ByteString): Result => {
  if (!putAttr(attr)) return -E.ERANGE
  let r
  if (haveAt ?? probe()) {
    if (!putA(name)) return -E.ENAMETOOLONG
    const path = name === '' ? dotName : nameA
    do r = syscall4(NR.removexattrat, dirfd, path, AT_SYMLINK_NOFOLLOW, attrName)
    while (r < 0 && (r = fail()) === -E.EINTR)
    if (!retryByPath(name, r)) return r
  }
  const path = pathTo(dirfd, name)
  if (path === 0) return -E.ENAMETOOLONG
  const call = name === '' ? c.removexattr : c.lremovexattr
  do r = call(path, attrName)
  while (r < 0 && (r = fail()) === -E.EINTR)
  return byPath(name, r)
}

/** Enough for almost every value or list; and for all of them, since the kernel allows no more. */
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
  // A name which is too long gives ERANGE again.
  if (n === -E.ERANGE) n = getxattrat(dirfd, name, attr, (buf = large))
  return n < 0 ? n : Buffer.from(buf.subarray(0, n))
}

/** `listxattrat` as an array of names; or -errno. */
export const listxattrNames = (dirfd: number, name: ByteString): ByteString[] | number => {
  let buf = small
  let n = listxattrat(dirfd, name, buf)
  if (n === -E.ERANGE) n = listxattrat(dirfd, name, (buf = large))
  if (n < 0) return n
  return n === 0 ? [] : buf.latin1Slice(0, n - 1).split('\0')
}
