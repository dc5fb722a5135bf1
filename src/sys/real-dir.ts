/** Operations on whole real directories: listing, and removal of a tree. */

import { Dirents, fchmodat, getdents64, openat, rmdirat, unlinkat } from './at.js'
import { O_DIRECTORY, O_NOATIME, O_RDONLY } from './constants.js'
import { E } from './errno.js'
import { close } from './io.js'
import { geteuid } from './proc.js'
import type { Ino } from './stat.js'
import type { ByteString, Result } from './types.js'

const CHUNK = 65536

/**
 * The buffer of the last listing. Creating a buffer takes longer than listing a small directory.
 */
let spare: Dirents | null = null

/**
 * Opens for reading. Does not update the access time if this process may suppress it (owner or
 * root).
 *
 * @param noAtime 0 if the mount decides about the access time
 */
export function openRead(fd: number, name: ByteString, flags = 0, noAtime = O_NOATIME): Result {
  const result = openat(fd, name, O_RDONLY | noAtime | flags)
  return result === -E.EPERM ? openat(fd, name, O_RDONLY | flags) : result
}

/**
 * Receives the entries of a real directory, until `visit` returns false. Frequent callers use a
 * class: the engine drops the compiled code of a closure together with its last instance, and would
 * recompile it for each directory.
 */
export interface EntryVisitor {
  visit(name: ByteString, ino: Ino, type: number): boolean
}

/**
 * Calls `each` for every entry of the real directory except `.` and `..`, until it returns false.
 *
 * @param fd an O_PATH descriptor is enough
 */
export function listReal(
  fd: number,
  name: ByteString,
  each: (name: ByteString, ino: Ino, type: number) => boolean,
): Result {
  const dir = openRead(fd, name === '' ? '.' : name, O_DIRECTORY)
  if (dir < 0) return dir
  const result = listOpened(dir, { visit: each })
  close(dir)
  return result
}

/** As `listReal`, for a directory that was just opened for reading. */
export function listOpened(dir: number, visitor: EntryVisitor): Result {
  let result
  do result = listChunk(dir, visitor)
  while (result > 0)
  return result
}

/** Visits some thousands of entries. A result above 0 means that there may be more. */
export function listChunk(dir: number, visitor: EntryVisitor): Result {
  const dirents = spare ?? new Dirents(Buffer.allocUnsafeSlow(CHUNK))
  spare = null
  let result = getdents64(dir, dirents.buffer)
  if (result > 0) {
    dirents.reset(result)
    while (dirents.next()) {
      const entry = dirents.name
      if (entry === '.' || entry === '..') continue
      if (visitor.visit(entry, dirents.ino, dirents.type)) continue
      result = 0
      break
    }
  }
  spare = dirents
  return result
}

/** Removes (fd, name), and its contents if it is a directory. ENOENT is a success. */
export function removeTree(fd: number, name: ByteString): Result {
  let result = unlinkat(fd, name)
  if (result === -E.ENOENT) return 0
  if (result !== -E.EISDIR && result !== -E.EPERM) return result
  result = rmdirat(fd, name)
  if (result !== -E.ENOTEMPTY && result !== -E.EEXIST) return result
  // The owner may have removed their own permissions. If this fails, the open below reports it.
  if (geteuid() !== 0) void fchmodat(fd, name, 0o700)
  const names: ByteString[] = []
  const listed = listReal(fd, name, entry => names.push(entry) > 0)
  if (listed < 0) return listed
  const dir = openat(fd, name, O_RDONLY | O_DIRECTORY)
  if (dir < 0) return dir
  // An entry that can't be removed makes the final rmdir fail, and that error is returned.
  for (const entry of names) void removeTree(dir, entry)
  close(dir)
  return rmdirat(fd, name)
}
