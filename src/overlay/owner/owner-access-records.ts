/**
 * Records of modes that are changed for a moment (owner-access.ts). A record is a symlink in
 * `workdir/work`, made in one step, whose text says which object it is about and what mode it had:
 *
 *     OCTAL-MODE OCTAL-LENT-MODE INODE PATH[//PATH]
 *
 * with paths in the upper layer, where the object is, or will be; after `index ` it is a name in
 * `workdir/index`. It goes when the mode is put back; where the server was ended before, the next
 * mount does that.
 *
 * Whoever can write to the workdir can write a record, and the next mount may be root's. So a
 * record does no more than its owner could: the object must be the owner's own, and gets no bit
 * that it does not have. A record of a move must be the server's own.
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

/** What a record's name begins with. */
export const RECORD_PREFIX = '#lent.'

/** The directories of a union that may lend: upper layer, workdir and `workdir/work`, open. */
export interface RecordDirs {
  readonly base: number
  readonly upperFd: number
  readonly workFd: number
  readonly log: Logger
}

/** A name in an open directory; '' for the object itself. */
export interface NamedObject {
  fd: number
  name: ByteString
}

/** What was during, or is half moved. Null `dirs`: nothing need be recorded. */
export interface AccessRecord {
  dirs: RecordDirs | null
  name: ByteString
}

const UNRECORDED: AccessRecord = { dirs: null, name: '' }

/**
 * The unions of this thread. A loan is told apart by where the object lies: few are made, and all
 * calls would have to pass one on.
 */
const registered: RecordDirs[] = []
let counter = 0

export function registerRecordDirs(dirs: RecordDirs): void {
  registered.push(dirs)
}

/** Those whose `workdir/work` is one of these descriptors, which are about to be closed. */
export function unregisterRecordDirs(descriptors: readonly number[]): void {
  for (let i = registered.length - 1; i >= 0; i--) {
    if (descriptors.includes((registered[i] as RecordDirs).workFd)) registered.splice(i, 1)
  }
}

const text = Buffer.allocUnsafeSlow(4096)

/** The path of what a descriptor refers to, as /proc has it; or '' where it has none that fits. */
function pathOf({ fd, name }: NamedObject): ByteString {
  const length = readFdPath(fd, text)
  if (length <= 0 || length === text.length) return ''
  const path = text.latin1Slice(0, length)
  return name === '' ? path : `${path}/${name}`
}

/** A path below a directory, relative to it; or null. */
function below(directory: ByteString, path: ByteString): ByteString | null {
  if (directory === '' || path === '') return null
  if (path === directory) return '.'
  const prefix = directory.endsWith('/') ? directory : `${directory}/`
  return path.startsWith(prefix) ? path.slice(prefix.length) : null
}

/**
 * Records that an object is about to get another mode. What is in the work directory alone needs no
 * record: the next mount empties it; nor what has no name any more.
 *
 * @param places where the object is, or may be afterwards
 * @param ino the object
 * @returns -EACCES where the object is in no union that writes, or -errno
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
 * Records that an object moves away from a name of the upper layer, which a whiteout has to take
 * then. The text is
 *
 *     hide INODE PATH
 *
 * @param ino what has the name then, for a moment; 0: nothing
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
    // A file system may take less than a path is long: 1024 bytes on XFS. The call itself does
    // without.
    if (made === -E.ENAMETOOLONG) {
      dirs.log.debug({ target }, 'a path is too long for a record')
      return UNRECORDED
    }
    if (made !== -E.EEXIST) return made
  }
}

/**
 * @param restored how putting the mode back went; where it did not, the record stays for the next
 *   mount
 */
export function removeRecord({ dirs, name }: AccessRecord, restored: Result): void {
  if (dirs === null) return
  if (restored < 0) {
    dirs.log.warn(
      { errno: -restored, record: name },
      "a mode can't be put back: the next mount tries again",
    )
    return
  }
  const result = unlinkat(dirs.workFd, name)
  if (result < 0) dirs.log.warn({ errno: -result, record: name }, 'cannot remove from the workdir')
}

const found = new Stat()

/** How a path of a record is resolved: within the upper layer and its file system. */
export const RESOLVE_RECORD =
  RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV

/** Errors of a path that leads to nothing in the upper layer. */
export const isDangling = (result: Result): boolean =>
  result === -E.ENOENT || result === -E.ENOTDIR || result === -E.ELOOP || result === -E.EXDEV

/**
 * What a record tells of a move that was not ended: the name that a whiteout is to take; or null.
 */
export interface UnfinishedMove {
  directory: ByteString
  name: ByteString
  /** What has the name if the object has moved and the whiteout was not put there; 0: nothing. */
  ino: string
  record: ByteString
}

/**
 * Puts the mode back that a record of an earlier mount tells of, and takes the record away.
 *
 * @param unfinished is added the records of moves, which stay
 * @returns 0, or -errno: the record stays
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
  const length = readlinkat(workFd, record, text)
  // It is no symlink, and so no record.
  if (length === -E.EINVAL) return removeTree(workFd, record)
  if (length < 0) return length
  const said = text.latin1Slice(0, length)
  const moved = /^hide (\d+) ((?:.+\/)?)([^/]+)$/s.exec(said)
  if (moved !== null && owner === geteuid()) {
    const [, ino = '', directory = '', name = ''] = moved
    if (name !== '.' && name !== '..') {
      unfinished.push({ directory: directory === '' ? '.' : directory, name, ino, record })
      return 0
    }
  }
  const changed = /^(index )?([0-7]+) ([0-7]+) (\d+) (.+)$/s.exec(said)
  if (changed !== null) {
    const [, inIndex, before = '', during = '', ino = '', paths = ''] = changed
    const [mode, added] = [Number.parseInt(before, 8), Number.parseInt(during, 8)]
    // No more than taking away rights of the owner.
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
  // Somebody else may have changed it since.
  const same =
    String(found.ino) === ino &&
    found.uid === owner &&
    (found.mode & 0o7777) === added &&
    (found.mode & S_IFMT) !== S_IFLNK
  if (result >= 0 && same) result = fchmod(fd, mode)
  close(fd)
  return result
}
