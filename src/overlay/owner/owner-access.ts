/**
 * Adds missing permission bits of the owner for a single operation. An unprivileged server owns
 * objects that their mode does not allow it to change: a copy-up into a directory without write
 * permission, or an overlay xattr on a read-only file. Root has CAP_DAC_OVERRIDE for that. An owner
 * can add the permission bits and restore the mode afterwards.
 *
 * Every such change in the upper layer is recorded first (owner-access-records.ts). If the server
 * ends in between, the record remains, and the next mount restores the mode.
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

/** Permission bits of the owner. */
export const OWNER_READ = 0o400
export const OWNER_WRITE = 0o200
export const OWNER_SEARCH = 0o100
export const OWNER_LIST = OWNER_READ | OWNER_SEARCH

/**
 * Repeats a step that failed with EACCES, with these bits added to the mode of the object (fd,
 * name). The object must belong to this process's user. The mode is restored afterwards. Only for
 * objects of the upper layer and the workdir.
 *
 * @param name '' for the object that `fd` refers to
 * @param again the step. Create the closure only after the first EACCES: few calls need it
 * @returns the result of the step, or -errno: -EACCES if the bits can't be added
 */
export function withOwnerAccess(
  fd: number,
  name: ByteString,
  bits: number,
  again: () => Result,
): Result {
  const stated = statxat(fd, name, st)
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

const setMode = (fd: number, name: ByteString, mode: number): Result => fchmodat(fd, name, mode)

/** Tries twice. If both fail, the record remains, and the next mount restores the mode. */
function restoreMode(record: AccessRecord, fd: number, name: ByteString, mode: number): void {
  let result = setMode(fd, name, mode)
  if (result < 0) result = setMode(fd, name, mode)
  removeRecord(record, result)
}

/** The permission bits that an open with these flags (O_ACCMODE) requires. */
export const accessToOpen = (flags: number): number => {
  const mode = flags & O_ACCMODE
  return mode === O_RDONLY ? OWNER_READ : mode === O_WRONLY ? OWNER_WRITE : OWNER_READ | OWNER_WRITE
}

/**
 * renameat2(2) of objects that may be directories without write permission. Moving a directory to
 * another parent requires write permission on it, because its `..` changes. The server adds that
 * permission temporarily.
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
 * Makes a directory of this process's user writable. Returns the data to undo that, or null if
 * nothing was changed.
 *
 * @param places where the directory may be after the operation
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
