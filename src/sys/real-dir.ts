/** Whole-directory helpers on real directories: listing, and removing what is below. */

import { Dirents, fchmodat, getdents64, openat, rmdirat, unlinkat } from './at.js'
import { O_DIRECTORY, O_NOATIME, O_RDONLY } from './constants.js'
import { E } from './errno.js'
import { close } from './io.js'
import { geteuid } from './proc.js'
import type { Ino } from './stat.js'
import type { ByteString, Result } from './types.js'

const CHUNK = 65536

/**
 * What the last listing has left; to make a new one takes longer than to list a small directory.
 */
let spare: Dirents | null = null

/**
 * Opens for reading without touching the access time, where that is allowed (owner or root).
 *
 * @param noAtime 0: the mount is to say whether reading moves it
 */
export function openRead(fd: number, name: ByteString, flags = 0, noAtime = O_NOATIME): Result {
  const result = openat(fd, name, O_RDONLY | noAtime | flags)
  return result === -E.EPERM ? openat(fd, name, O_RDONLY | flags) : result
}

/**
 * Takes the entries of a real directory one after the other, until it returns false. An object that
 * does so often is of a class: a function that is made for each directory loses what the engine has
 * compiled for it, for that goes with the last one there is.
 */
export interface EntryVisitor {
  visit(name: ByteString, ino: Ino, type: number): boolean
}

/**
 * Calls `each` for every entry of the real directory but `.` and `..`, until it returns false.
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

/** The same for a directory that was just opened for reading. */
export function listOpened(dir: number, visitor: EntryVisitor): Result {
  let result
  do result = listChunk(dir, visitor)
  while (result > 0)
  return result
}

/** Some thousands of its entries. Above 0: there may be more. */
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

/** Removes (fd, name), and everything below if it is a directory. ENOENT counts as done. */
export function removeTree(fd: number, name: ByteString): Result {
  let result = unlinkat(fd, name)
  if (result === -E.ENOENT) return 0
  if (result !== -E.EISDIR && result !== -E.EPERM) return result
  result = rmdirat(fd, name)
  if (result !== -E.ENOTEMPTY && result !== -E.EEXIST) return result
  // Its owner may have taken the rights from himself. Where that fails, opening it does.
  if (geteuid() !== 0) void fchmodat(fd, name, 0o700)
  const names: ByteString[] = []
  const listed = listReal(fd, name, entry => names.push(entry) > 0)
  if (listed < 0) return listed
  const dir = openat(fd, name, O_RDONLY | O_DIRECTORY)
  if (dir < 0) return dir
  // What stays has the directory stay, which is told.
  for (const entry of names) void removeTree(dir, entry)
  close(dir)
  return rmdirat(fd, name)
}
