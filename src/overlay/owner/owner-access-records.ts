/**
 * Records of temporarily changed modes (owner-access.ts). A record is a symlink in `workdir/work`,
 * created in a single step. Its target describes the object and its original mode:
 *
 *     OCTAL-MODE OCTAL-TEMPORARY-MODE INODE PATH[//PATH]
 *
 * The paths are relative to the upper layer. The object is, or will be, at one of them. With the
 * prefix `index ` the path is a name in `workdir/index`. The server removes the record after it has
 * restored the mode. If the server ended before, the next mount restores the mode.
 *
 * Every user with write access to the workdir can create a record, and the next mount may run as
 * root. So a record can do no more than its owner could: the object must belong to the owner of the
 * record, and gets no permission bit that it does not have. The record of a move must belong to the
 * server's own user.
 */

import {
  fchmod,
  fstatx,
  openat2,
  readFdPath,
  readlinkat,
  statxat,
  symlinkat,
  unlinkat,
} from '../../sys/at.js'
import {
  O_NOFOLLOW,
  O_PATH,
  RESOLVE_BENEATH,
  RESOLVE_NO_MAGICLINKS,
  RESOLVE_NO_SYMLINKS,
  RESOLVE_NO_XDEV,
  S_IFLNK,
  S_IFMT,
} from '../../sys/constants.js'
import { E } from '../../sys/errno.js'
import { close } from '../../sys/io.js'
import { geteuid } from '../../sys/proc.js'
import { Stat, type Ino } from '../../sys/stat.js'
import type { Logger } from '../../log.js'
import type { ByteString, Result } from '../ops.js'
import { removeTree } from '../../sys/real-dir.js'

/** The prefix of a record's name. Part of the on-disk format. */
export const RECORD_PREFIX = '#lent.'

/**
 * Open directories of a union that changes modes temporarily: the directory given as `workdir`
 * (`base`), the upper layer, and `workdir/work`.
 */
export interface RecordDirs {
  readonly base: number
  readonly upperFd: number
  readonly workFd: number
  readonly log: Logger
}

/** A name in an open directory. '' means the object that `fd` refers to. */
export interface NamedObject {
  fd: number
  name: ByteString
}

/**
 * A record of a temporarily changed mode or of an unfinished move. `dirs` is null if no record was
 * needed.
 */
export interface AccessRecord {
  dirs: RecordDirs | null
  name: ByteString
}

const UNRECORDED: AccessRecord = { dirs: null, name: '' }

/**
 * The unions of this thread. The union of an object is found by its path: records are rare, and
 * passing the union through all calls would cost more.
 */
const registered: RecordDirs[] = []
let counter = 0

export function registerRecordDirs(dirs: RecordDirs): void {
  registered.push(dirs)
}

/**
 * Unregisters the unions whose `workdir/work` is among these descriptors, which are about to be
 * closed.
 */
export function unregisterRecordDirs(descriptors: readonly number[]): void {
  for (let i = registered.length - 1; i >= 0; i--) {
    if (descriptors.includes((registered[i] as RecordDirs).workFd)) registered.splice(i, 1)
  }
}

const pathBuffer = Buffer.allocUnsafeSlow(4096)

/** The path of the object in /proc, or '' if it has none or it does not fit the buffer. */
function pathOf({ fd, name }: NamedObject): ByteString {
  const length = readFdPath(fd, pathBuffer)
  if (length <= 0 || length === pathBuffer.length) return ''
  const path = pathBuffer.latin1Slice(0, length)
  return name === '' ? path : `${path}/${name}`
}

/** The path relative to a directory, or null if it is not below it. */
function below(directory: ByteString, path: ByteString): ByteString | null {
  if (directory === '' || path === '') return null
  if (path === directory) return '.'
  const prefix = directory.endsWith('/') ? directory : `${directory}/`
  return path.startsWith(prefix) ? path.slice(prefix.length) : null
}

/**
 * Records that the mode of an object is about to change. An object that exists only in the workdir
 * needs no record, because the next mount empties it. Neither does an object without a name.
 *
 * @param places where the object is, or may be after the operation
 * @param ino the inode number of the object
 * @param added the temporary mode
 * @returns the record; -EACCES if the object is in no writable union; or -errno
 */
export function recordMode(
  places: NamedObject[],
  ino: Ino,
  mode: number,
  added: number,
): AccessRecord | Result {
  const paths = places.map(pathOf)
  for (const dirs of registered) {
    const upper = pathOf({ fd: dirs.upperFd, name: '' })
    const work = pathOf({ fd: dirs.workFd, name: '' })
    const inUpper = paths.map(path => below(upper, path)).filter(path => path !== null)
    if (inUpper.length === 0) {
      if (paths.some(path => below(work, path) !== null)) return UNRECORDED
      const index = `${pathOf({ fd: dirs.base, name: '' })}/index`
      const key = paths.map(path => below(index, path)).find(path => path !== null)
      if (key === undefined) continue
      return writeRecord(dirs, `index ${mode.toString(8)} ${added.toString(8)} ${ino} ${key}`)
    }
    return writeRecord(
      dirs,
      `${mode.toString(8)} ${added.toString(8)} ${ino} ${inUpper.join('//')}`,
    )
  }
  return paths.every(path => path.endsWith(' (deleted)')) ? UNRECORDED : -E.EACCES
}

/**
 * Records that an object is about to move away from a name of the upper layer, and that the name
 * must become a whiteout. The text is
 *
 *     hide INODE PATH
 *
 * @param ino the inode number of the object that has the name temporarily; 0: none
 */
export function recordMove(workFd: number, object: NamedObject, ino: Ino): AccessRecord | Result {
  const dirs = registered.find(other => other.workFd === workFd)
  if (dirs === undefined) return -E.EROFS
  const path = below(pathOf({ fd: dirs.upperFd, name: '' }), pathOf(object))
  return path === null ? UNRECORDED : writeRecord(dirs, `hide ${ino} ${path}`)
}

function writeRecord(dirs: RecordDirs, target: ByteString): AccessRecord | Result {
  for (;;) {
    const name = `${RECORD_PREFIX}${(++counter).toString(16)}`
    const made = symlinkat(target, dirs.workFd, name)
    if (made >= 0) return { dirs, name }
    // A file system may limit the length of a symlink below PATH_MAX: 1024 bytes on XFS. The
    // operation continues without a record.
    if (made === -E.ENAMETOOLONG) {
      dirs.log.debug({ target }, 'a path is too long for a record')
      return UNRECORDED
    }
    if (made !== -E.EEXIST) return made
  }
}

/**
 * @param restored the result of restoring the mode; after an error the record stays for the next
 *   mount
 */
export function removeRecord({ dirs, name }: AccessRecord, restored: Result): void {
  if (dirs === null) return
  if (restored < 0) {
    dirs.log.warn(
      { errno: -restored, record: name },
      "a mode can't be restored: the next mount tries again",
    )
    return
  }
  const result = unlinkat(dirs.workFd, name)
  if (result < 0)
    dirs.log.warn({ errno: -result, record: name }, "a record can't be removed from the workdir")
}

const found = new Stat()

/**
 * Flags for the resolution of a path in a record: it must stay within the upper layer and its file
 * system.
 */
export const RESOLVE_RECORD =
  RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV

/** Errors that mean that a path leads to no object of the upper layer. */
export const isDangling = (result: Result): boolean =>
  result === -E.ENOENT || result === -E.ENOTDIR || result === -E.ELOOP || result === -E.EXDEV

/** An unfinished move in a record: the name must become a whiteout. */
export interface UnfinishedMove {
  directory: ByteString
  name: ByteString
  /** The object that has the name if the move happened but the whiteout is missing; 0: none. */
  ino: string
  record: ByteString
}

/**
 * Restores the mode in a record of an earlier mount, and removes the record.
 *
 * @param unfinished receives the records of moves; these records stay
 * @returns 0, or -errno; the record stays after an error
 */
export function replayRecord(
  base: number,
  workFd: number,
  upperFd: number,
  record: ByteString,
  unfinished: UnfinishedMove[],
): Result {
  const stated = statxat(workFd, record, found)
  if (stated < 0) return stated
  const owner = found.uid
  const length = readlinkat(workFd, record, pathBuffer)
  // It is not a symlink, and so not a record.
  if (length === -E.EINVAL) return removeTree(workFd, record)
  if (length < 0) return length
  const target = pathBuffer.latin1Slice(0, length)
  const moved = /^hide (\d+) ((?:.+\/)?)([^/]+)$/s.exec(target)
  if (moved !== null && owner === geteuid()) {
    const [, ino = '', directory = '', name = ''] = moved
    if (name !== '.' && name !== '..') {
      unfinished.push({ directory: directory === '' ? '.' : directory, name, ino, record })
      return 0
    }
  }
  const changed = /^(index )?([0-7]+) ([0-7]+) (\d+) (.+)$/s.exec(target)
  if (changed !== null) {
    const [, inIndex, before = '', during = '', ino = '', paths = ''] = changed
    const [mode, added] = [Number.parseInt(before, 8), Number.parseInt(during, 8)]
    // A record may at most remove permission bits of the owner.
    const isValid = (added & ~mode & ~0o700) === 0 && (mode & ~added) === 0
    for (const path of isValid ? paths.split('//') : []) {
      if (path === '') continue
      const result =
        inIndex === undefined
          ? restoreMode(upperFd, path, owner, ino, added, mode)
          : restoreMode(base, `index/${path}`, owner, ino, added, mode)
      if (result < 0) return result
    }
  }
  return unlinkat(workFd, record)
}

function restoreMode(
  fromFd: number,
  path: ByteString,
  owner: number,
  ino: string,
  added: number,
  mode: number,
): Result {
  const fd = openat2(fromFd, path, O_PATH | O_NOFOLLOW, 0, RESOLVE_RECORD)
  if (fd < 0) return isDangling(fd) ? 0 : fd
  let result = fstatx(fd, found)
  // Another process may have changed the object or its mode since.
  const same =
    String(found.ino) === ino &&
    found.uid === owner &&
    (found.mode & 0o7777) === added &&
    (found.mode & S_IFMT) !== S_IFLNK
  if (result >= 0 && same) result = fchmod(fd, mode)
  close(fd)
  return result
}
