/**
 * What an ordinary user owns but may not touch by its mode. A union is told to do things that the
 * mode of a real object forbids its own server: a copy-up into a directory without the write
 * permission, a mark on a file that is read-only. Root has CAP_DAC_OVERRIDE for that; an owner can
 * lend himself the right.
 *
 * Each loan of an object of the upper layer is recorded before (owner-access-records.ts): a server
 * that is ended meanwhile leaves the record, and the next mount puts the mode back.
 */

import { fchmod, fchmodat, fstatx, openat, renameat2, statxat } from '../../sys/at.js'
import {
  O_ACCMODE,
  O_DIRECTORY,
  O_PATH,
  O_RDONLY,
  O_WRONLY,
  RENAME_EXCHANGE,
  S_IFLNK,
  S_IFMT,
} from '../../sys/constants.js'
import { E } from '../../sys/errno.js'
import { close } from '../../sys/io.js'
import { geteuid } from '../../sys/proc.js'
import { Stat } from '../../sys/stat.js'
import {
  removeRecord,
  recordMode,
  type AccessRecord,
  type NamedObject,
} from './owner-access-records.js'
import type { ByteString, Result } from '../ops.js'

const st = new Stat()

/** Bits of a mode, the owner's. */
export const OWNER_READ = 0o400
export const OWNER_WRITE = 0o200
export const OWNER_SEARCH = 0o100
export const OWNER_LIST = OWNER_READ | OWNER_SEARCH

/**
 * After a step that failed with EACCES: runs it again with these bits in the object's mode, if the
 * object (fd, name) is this process's own. The mode is put back afterwards. For objects of the
 * upper layer and the work directory only.
 *
 * @param name '' for what `fd` itself refers to
 * @param again the step. It is made only here, since few need the loan and a function for each call
 *   costs all of them
 * @returns what the step returned, or -errno: -EACCES where there is nothing to lend
 */
export function withOwnerAccess(
  fd: number,
  name: ByteString,
  bits: number,
  again: () => Result,
): Result {
  const stated = name === '' ? fstatx(fd, st) : statxat(fd, name, st)
  const mode = st.mode & 0o7777
  if (stated < 0 || (st.mode & S_IFMT) === S_IFLNK) return -E.EACCES
  if (st.uid !== geteuid() || (mode & bits) === bits) return -E.EACCES
  const record = recordMode([{ fd, name }], st.ino, mode, mode | bits)
  if (typeof record === 'number') return record
  if (setMode(fd, name, mode | bits) < 0) {
    removeRecord(record, 0)
    return -E.EACCES
  }
  const result = again()
  restoreMode(record, fd, name, mode)
  return result
}

const setMode = (fd: number, name: ByteString, mode: number): Result =>
  name === '' ? fchmod(fd, mode) : fchmodat(fd, name, mode)

/** Tried twice; a record that is left has the next mount do it. */
function restoreMode(record: AccessRecord, fd: number, name: ByteString, mode: number): void {
  let result = setMode(fd, name, mode)
  if (result < 0) result = setMode(fd, name, mode)
  removeRecord(record, result)
}

/** Bits that opening with these flags (O_ACCMODE) asks for. */
export const accessToOpen = (flags: number): number => {
  const mode = flags & O_ACCMODE
  return mode === O_RDONLY ? OWNER_READ : mode === O_WRONLY ? OWNER_WRITE : OWNER_READ | OWNER_WRITE
}

/**
 * renameat2(2) of what may be a directory without the write permission: one that gets another
 * parent is written to, since its `..` changes. Its owner lends himself that right.
 */
export function renameWithOwnerAccess(
  fromFd: number,
  from: ByteString,
  toFd: number,
  to: ByteString,
  flags: number,
): Result {
  const first = renameat2(fromFd, from, toFd, to, flags)
  if (first !== -E.EACCES) return first
  const places = [
    { fd: fromFd, name: from },
    { fd: toFd, name: to },
  ]
  const changed = [makeWritable(fromFd, from, places)]
  if ((flags & RENAME_EXCHANGE) !== 0) changed.push(makeWritable(toFd, to, places))
  const result = changed.some(directory => directory !== null)
    ? renameat2(fromFd, from, toFd, to, flags)
    : first
  for (const directory of changed) {
    if (directory === null) continue
    restoreMode(directory.record, directory.fd, '', directory.mode)
    close(directory.fd)
  }
  return result
}

interface WritableDirectory {
  record: AccessRecord
  fd: number
  mode: number
}

/**
 * Makes an own directory writable; what is needed to undo that, or null where nothing was done.
 *
 * @param places where it may be afterwards
 */
function makeWritable(
  dirfd: number,
  name: ByteString,
  places: NamedObject[],
): WritableDirectory | null {
  const fd = openat(dirfd, name, O_PATH | O_DIRECTORY)
  if (fd < 0) return null
  const mode = fstatx(fd, st) < 0 || st.uid !== geteuid() ? OWNER_WRITE : st.mode & 0o7777
  if ((mode & OWNER_WRITE) === 0) {
    const record = recordMode(places, st.ino, mode, mode | OWNER_WRITE)
    if (typeof record !== 'number') {
      if (fchmod(fd, mode | OWNER_WRITE) >= 0) return { record, fd, mode }
      removeRecord(record, 0)
    }
  }
  close(fd)
  return null
}
