/**
 * File names: the *at family of system calls. An object is addressed by an open directory and one
 * name in it, or by a descriptor, never by a path. A symlink at that name is never followed. So a
 * concurrent rename cannot lead a call elsewhere. The name '' stands for the object that the
 * descriptor refers to, in calls on attributes and in `linkat`. The exceptions are `openPath` and
 * `statPath`, for paths that the administrator gave.
 *
 * Every function mirrors the system call of its name and returns the result or -errno (`Result`).
 * EINTR is retried. A name that is longer than a path may be gives -ENAMETOOLONG.
 */

import {
  AT_EMPTY_PATH,
  AT_FDCWD,
  AT_NO_AUTOMOUNT,
  AT_REMOVEDIR,
  AT_SYMLINK_FOLLOW,
  AT_SYMLINK_NOFOLLOW,
  O_CLOEXEC,
  O_CREAT,
  O_DIRECTORY,
  O_NOFOLLOW,
  O_TMPFILE,
  STATX_BASIC_STATS,
  STATX_BTIME,
} from './constants.js'
import { E } from './errno.js'
import * as c from './libc.js'
import { fail, NR, syscall4, syscall5 } from './libc.js'
import {
  addressOf,
  emptyName,
  nameA,
  nameB,
  procPath,
  put64,
  putA,
  putB,
  putProcFd,
  words,
} from './scratch.js'
import { changed, slowFile, type SlowFile } from './slow.js'
import type { Stat } from './stat.js'
import type { ByteString, Result } from './types.js'

export { Dirents, getdents64 } from './dirents.js'
export { HANDLE_ROOM, HANDLE_TYPE_SIZE, nameToHandle, openByHandle } from './handle.js'
export { fchmod, fchmodat, fchown, fchownat, futimens, utimensat } from './setattr.js'
export { StatFs, statfs } from './statfs.js'
export type { ByteString, Ino, Result } from './types.js'

/** A path that leads to the object of descriptor `fd`. */
export const fdPath = (fd: number): string => `/proc/self/fd/${fd}`

/** The maximum length in bytes of a path that the kernel returns. */
const PATH_MAX = 4096

/** The path of a descriptor's object, or '' if it is not known. A rename may have made it stale. */
export const pathOf = (fd: number): ByteString => {
  const text = Buffer.allocUnsafeSlow(PATH_MAX)
  return text.latin1Slice(0, Math.max(0, readText(AT_FDCWD, fdPath(fd), text)))
}

/** The bytes of a string in UTF-8, as this directory passes names. */
export const toByteString = (s: string): ByteString => Buffer.from(s, 'utf8').latin1Slice()

/** Flags with which openat(2) creates a file. */
const MAKES = O_CREAT | (O_TMPFILE & ~O_DIRECTORY)

const open = (dirfd: number, name: ByteString, flags: number, mode: number): Result => {
  if (!putA(name)) return -E.ENAMETOOLONG
  let r
  do r = c.openat(dirfd, nameA, flags, mode)
  while (r < 0 && (r = fail()) === -E.EINTR)
  return r
}

/**
 * openat(2) with O_CLOEXEC and O_NOFOLLOW added: a symlink gives -ELOOP, or with O_PATH a
 * descriptor of the symlink itself. `mode` is subject to the umask.
 */
export const openat = (dirfd: number, name: ByteString, flags: number, mode = 0): Result => {
  const all = flags | O_CLOEXEC | O_NOFOLLOW
  const slow = slowFile(dirfd)
  if (slow !== undefined)
    return slow.open({ op: 'openat', name, flags: all }, () => open(dirfd, name, all, mode))
  const result = open(dirfd, name, all, mode)
  return (flags & MAKES) === 0 ? result : changed(result)
}

/**
 * open(2) of a path that the administrator gave, in UTF-8. Symlinks are followed. O_CLOEXEC is
 * added.
 */
export const openPath = (path: string, flags: number, mode = 0): Result =>
  open(AT_FDCWD, toByteString(path), flags | O_CLOEXEC, mode)

/** readlink(2) of a descriptor's link in /proc: the object's path. It opens nothing. */
export const readFdPath = (fd: number, buf: Buffer): Result => readlinkat(AT_FDCWD, fdPath(fd), buf)

/**
 * openat2(2) with O_CLOEXEC added. `flags` and `resolve` (RESOLVE_*) determine the treatment of
 * symlinks. Unlike `openat`, it refuses unknown flags, and a mode other than 0 without O_CREAT or
 * O_TMPFILE. -EAGAIN: the path has `..` under RESOLVE_BENEATH or RESOLVE_IN_ROOT, and a mount or
 * rename anywhere on the machine happened during each of OPEN_TRIES attempts.
 */
export const openat2 = (
  dirfd: number,
  path: ByteString,
  flags: number,
  mode: number,
  resolve: number,
): Result => {
  const slow = slowFile(dirfd)
  if (slow === undefined) return open2(dirfd, path, flags, mode, resolve)
  const call = { op: 'openat2', name: path, flags, resolve } as const
  return slow.open(call, () => open2(dirfd, path, flags, mode, resolve))
}

/** For a path whose resolution concurrent mounts and renames disturb. */
const OPEN_TRIES = 64

const open2 = (
  dirfd: number,
  path: ByteString,
  flags: number,
  mode: number,
  resolve: number,
): Result => {
  if (!putA(path)) return -E.ENAMETOOLONG
  put64(0, (flags | O_CLOEXEC) >>> 0)
  put64(2, mode)
  put64(4, resolve)
  let r
  let tries = resolve === 0 ? OPEN_TRIES : 0
  do r = syscall4(NR.openat2, dirfd, nameA, words, 24)
  while (r < 0 && ((r = fail()) === -E.EINTR || (r === -E.EAGAIN && ++tries < OPEN_TRIES)))
  return r
}

const STATX_MASK = STATX_BASIC_STATS | STATX_BTIME
const NOFOLLOW = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT

const statx = (dirfd: number, name: number, flags: number, st: Stat): Result => {
  let r
  do r = syscall5(NR.statx, dirfd, name, flags, STATX_MASK, st.address)
  while (r < 0 && (r = fail()) === -E.EINTR)
  return r
}

/**
 * statx(2) of a name; of a symlink, not its target. It triggers no automount. It requests the basic
 * fields and btime.
 */
export const statxat = (dirfd: number, name: ByteString, st: Stat): Result => {
  if (name === '') return fstatx(dirfd, st)
  const slow = slowFile(dirfd)
  return slow === undefined ? statName(dirfd, name, st) : statSlow(slow, dirfd, name, st)
}

const statName = (dirfd: number, name: ByteString, st: Stat): Result =>
  putA(name) ? statx(dirfd, nameA, NOFOLLOW, st) : -E.ENAMETOOLONG

/** @param name '' for the descriptor's object */
const statSlow = (slow: SlowFile, fd: number, name: ByteString, st: Stat): Result => {
  const call = { op: 'statx', name, room: st.buffer.length } as const
  return slow.ask(call, st.buffer, () =>
    name === '' ? statx(fd, emptyName, AT_EMPTY_PATH, st) : statName(fd, name, st),
  )
}

/** statx(2) of a descriptor, possibly O_PATH. */
export const fstatx = (fd: number, st: Stat): Result => {
  const slow = slowFile(fd)
  return slow === undefined ? statx(fd, emptyName, AT_EMPTY_PATH, st) : statSlow(slow, fd, '', st)
}

/** statx(2) of a path that the administrator gave, in UTF-8. Symlinks are followed. */
export const statPath = (path: string, st: Stat): Result =>
  putA(toByteString(path)) ? statx(AT_FDCWD, nameA, 0, st) : -E.ENAMETOOLONG

/** mkdirat(2). `mode` is subject to the umask. */
export const mkdirat = (dirfd: number, name: ByteString, mode: number): Result => {
  if (!putA(name)) return -E.ENAMETOOLONG
  let r
  do r = c.mkdirat(dirfd, nameA, mode)
  while (r < 0 && (r = fail()) === -E.EINTR)
  return changed(r)
}

/**
 * mknodat(2): creates a file, fifo, socket or device according to the S_IFMT bits of `mode`. The
 * permission bits are subject to the umask. -EINVAL: the device number exceeds the kernel's 12 and
 * 20 bits. A whiteout (S_IFCHR, 0, 0) needs no privilege since Linux 5.8.
 */
export const mknodat = (
  dirfd: number,
  name: ByteString,
  mode: number,
  major: number,
  minor: number,
): Result => {
  if (!putA(name)) return -E.ENAMETOOLONG
  if (!(major >= 0 && major < 0x1000 && minor >= 0 && minor < 0x10_0000)) return -E.EINVAL
  // new_encode_dev() of linux/kdev_t.h
  const dev = ((minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12)) >>> 0
  let r
  do r = syscall4(NR.mknodat, dirfd, nameA, mode, dev)
  while (r < 0 && (r = fail()) === -E.EINTR)
  return changed(r)
}

/** symlinkat(2): creates a symlink `name` to `target`. */
export const symlinkat = (target: ByteString, dirfd: number, name: ByteString): Result => {
  if (!putA(name) || !putB(target)) return -E.ENAMETOOLONG
  let r
  do r = c.symlinkat(nameB, dirfd, nameA)
  while (r < 0 && (r = fail()) === -E.EINTR)
  return changed(r)
}

/** linkat(2) of a name; of a symlink, not its target. */
export const linkat = (
  olddirfd: number,
  oldname: ByteString,
  newdirfd: number,
  newname: ByteString,
): Result => {
  if (oldname === '') return linkFd(olddirfd, newdirfd, newname)
  if (!putA(oldname) || !putB(newname)) return -E.ENAMETOOLONG
  let r
  do r = c.linkat(olddirfd, nameA, newdirfd, nameB, 0)
  while (r < 0 && (r = fail()) === -E.EINTR)
  return changed(r)
}

/**
 * linkat(2) of a descriptor's object; O_PATH and O_TMPFILE are possible. It tries AT_EMPTY_PATH
 * first, which needs CAP_DAC_READ_SEARCH and fails with ENOENT without it. Then it links through
 * /proc/self/fd.
 */
export const linkFd = (fd: number, newdirfd: number, newname: ByteString): Result => {
  if (!putB(newname)) return -E.ENAMETOOLONG
  let r
  do r = c.linkat(fd, emptyName, newdirfd, nameB, AT_EMPTY_PATH)
  while (r < 0 && (r = fail()) === -E.EINTR)
  if (r !== -E.ENOENT) return changed(r)
  putProcFd(fd)
  do r = c.linkat(AT_FDCWD, procPath, newdirfd, nameB, AT_SYMLINK_FOLLOW)
  while (r < 0 && (r = fail()) === -E.EINTR)
  return changed(r)
}

const unlink = (dirfd: number, name: ByteString, flags: number): Result => {
  if (!putA(name)) return -E.ENAMETOOLONG
  let r
  do r = c.unlinkat(dirfd, nameA, flags)
  while (r < 0 && (r = fail()) === -E.EINTR)
  return changed(r)
}

/** unlinkat(2) of any object except a directory. */
export const unlinkat = (dirfd: number, name: ByteString): Result => unlink(dirfd, name, 0)

/** unlinkat(2) of an empty directory. */
export const rmdirat = (dirfd: number, name: ByteString): Result =>
  unlink(dirfd, name, AT_REMOVEDIR)

/** renameat2(2) with RENAME_* flags. -EINVAL: the filesystem does not support a flag. */
export const renameat2 = (
  olddirfd: number,
  oldname: ByteString,
  newdirfd: number,
  newname: ByteString,
  flags: number,
): Result => {
  if (!putA(oldname) || !putB(newname)) return -E.ENAMETOOLONG
  let r
  do r = syscall5(NR.renameat2, olddirfd, nameA, newdirfd, nameB, flags)
  while (r < 0 && (r = fail()) === -E.EINTR)
  return changed(r)
}

/**
 * readlinkat(2): writes a symlink's target to `buf` without NUL and returns its length. If the
 * result equals `buf.length`, the target may be truncated. With the name '' it reads the symlink of
 * a descriptor (O_PATH and O_NOFOLLOW). -EINVAL: not a symlink (-ENOENT with the name '').
 */
export const readlinkat = (dirfd: number, name: ByteString, buf: Uint8Array): Result => {
  const slow = slowFile(dirfd)
  if (slow === undefined) return readText(dirfd, name, buf)
  const call = { op: 'readlink', name, room: buf.length } as const
  return slow.ask(call, buf, () => readText(dirfd, name, buf))
}

const readText = (dirfd: number, name: ByteString, buf: Uint8Array): Result => {
  if (!putA(name)) return -E.ENAMETOOLONG
  const address = addressOf(buf)
  let r
  do r = c.readlinkat(dirfd, nameA, address, buf.length)
  while (r < 0 && (r = fail()) === -E.EINTR)
  return r
}
