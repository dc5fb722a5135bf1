/**
 * The allowed differences between the candidate and kernel overlayfs, with their reasons. The
 * documents in docs/ list all of them (docs/SEMANTICS.md has the table of topics).
 */

import { SEEK } from '../helpers/syscalls.js'
import type { Action } from './calls.js'
import { slotsOf } from './calls.js'
import { inUserNamespace } from './userns.js'

/** Earlier events of a run. */
export interface Before {
  /** A file was made immutable or append-only. */
  flagged: boolean
  /** A file may have got a capability. */
  capability: boolean
}

/** One difference. */
export interface Mismatch {
  /** The call that the run was making; null after the end of the run. */
  action: Action | null
  field: string
  expected: string
  got: string
  before?: Before
}

/** Results that are not compared. */
export const NOT_COMPARED: Record<string, string> = {
  'size and blocks of a directory':
    'a merged directory has no size; each file system counts in its own way',
  'blocks of a file': 'the file system allocates blocks when it writes them back',
  'st_dev, f_type, f_fsid': 'they identify the file system, which is a different one',
  ctime: 'it can not be set; its changes show in mtime and in the results',
  'the value of a time that was set to "now"': 'the two calls are made at different times',
  'the number of an inode': 'only equality is compared, across links, copy-up and remount',
  'fallocate with COLLAPSE_RANGE, INSERT_RANGE, UNSHARE_RANGE':
    "the kernel's FUSE client refuses them (EOPNOTSUPP) without a request",
  'lseek in a directory, but for its beginning and a cookie of a listing':
    'positions in a directory depend on its file system',
  'removing or replacing a directory that overlayfs refuses although it lists nothing in it':
    'an xattr whiteout, or a whiteout in a directory of the upper layer alone, counts as an entry there',
  'attributes of a removed file or directory where overlayfs says EEXIST or ENOTEMPTY':
    'it cannot copy up a file without a name; a union can',
  'mtime of a removed directory that is still open':
    'overlayfs removes its whiteouts first, which changes its mtime',
  'attributes of a removed FIFO or directory that is still open':
    'overlayfs may copy it up nevertheless, so that its name exists again',
  'renaming a file between layers with metacopy=on, where overlayfs says EXDEV':
    'a redirect to its data would be longer than 256 bytes; a full copy needs none',
  'mtime of a file whose metadata alone was copied up, when it is opened for writing':
    'overlayfs sets it to the time at which the data was copied',
  'opening a file for writing whose metadata alone was copied up, where overlayfs says EINVAL':
    'it checks the capability before the data is copied up, and the capability is invalid',
  'a mapping of a lower file that was copied up since it was opened':
    'overlayfs maps the lower file: the old data instead of that of read(2), and SIGBUS after its old end',
  '`user.overlay.opaque` with a value that hides':
    'overlayfs treats it as an ordinary xattr; tsoverlay logs a warning for it in a lower layer (docs/SECURITY.md)',
  'removing the capability of an immutable or append-only file while it is open':
    "the kernel's FUSE client sends the same request when the file is written",
  'fallocate() on an immutable file':
    "it is refused; in write-back mode the kernel's FUSE client has already changed mtime",
  'mtime after fallocate() with a mode that the file system does not know':
    "in write-back mode the kernel's FUSE client changes it before the request",
  'removing a directory with whiteouts in it that has an invalid capability (EINVAL)':
    'overlayfs first creates a directory without them, and copies the xattrs',
  'changing a file by a name whose directory overlayfs cannot copy up (EINVAL: an invalid capability)':
    'tsoverlay changes a file with other names through one of those',
  'copy_file_range() that copies nothing':
    "the kernel's FUSE client removes set-id bits and capabilities before the request",
  'a shared mapping of an append-only file':
    "overlayfs refuses it; the kernel's FUSE client does not know the flag",
  'truncate to the size that a file has, in write-back mode':
    "overlayfs sets mtime; the kernel's FUSE client keeps its own, which POSIX allows",
}

/**
 * Calls that are not made on a server behind the package fuse-native (libfuse 2), because the
 * package can't express them: express.ts removes them from layers and calls.
 */
export const NOT_EXPRESSED: Record<string, string> = {
  'chown with neither owner nor group': 'libfuse does not pass it on, so set-id bits stay',
  'creating as another user than that of the server':
    'a handler does not know the caller: new files belong to the user of the server',
  ACLs: 'libfuse 2 does not negotiate them: the kernel would not enforce them',
  'one time without the other':
    'libfuse passes on both or none, unless a flag is set that the package does not support',
  'times before 1970, and parts of a millisecond': 'times are passed as unsigned milliseconds',
  'names, targets and xattr names that are not UTF-8': 'they are passed as JavaScript strings',
  'rename() with flags': 'libfuse 2 has no RENAME2: the kernel says EINVAL',
  'O_TMPFILE, linking a file without a name': 'libfuse 2 has no such request',
  'fallocate()': 'there is no handler for it',
  'copy_file_range()':
    'without such a request the kernel copies the data itself, and not always all of it',
  'inode flags': 'there is no handler for ioctl()',
  'metacopy=on on the other side': 'the comparison would have to set one time without the other',
}

/**
 * Calls that root of a user namespace can't make (`--userns`): userns.ts removes them from layers
 * and calls.
 */
export const NOT_IN_USERNS: Record<string, string> = {
  'redirect_dir=on, metacopy=on': 'overlayfs refuses them together with userxattr',
  'hard links in lower layers':
    'overlayfs has no index without CAP_DAC_READ_SEARCH and separates them at copy-up; tsoverlay keeps them',
  'links before the upper layer becomes a lower one': 'they would be hard links in a lower layer',
  'linking a file that comes from a lower layer, until the next mount':
    'overlayfs knows no origin of the copy, and treats the new name as another file with another inode number',
  'devices in layers': 'only 0/0 can be created there',
  '`trusted.` attributes in layers': 'they can not be set there',
}

interface Tolerated {
  name: string
  reason: string
  applies: (mismatch: Mismatch) => boolean
}

const lines = (text: string): string[] => (text === '' ? [] : text.split('\n'))
const within = (got: string, expected: string): boolean => {
  const allowed = new Set(lines(expected))
  return lines(got).every(line => allowed.has(line))
}

/** The results of the changes during a listing, as pairs. */
const pairs = (m: Mismatch): [string, string][] => {
  const got = m.got.split(' ')
  return m.expected.split(' ').map((result, i) => [result, got[i] ?? ''])
}
const failed = (result: string): boolean => /^(?:E|errno)/.test(result)

/** An ACL without entries: only its version. */
const EMPTY_ACL = '02000000'
const removesAcl = (action: Action): boolean =>
  'name' in action &&
  action.name.startsWith('system.posix_acl') &&
  (/^f?removexattr$/.test(action.op) ||
    ('value' in action && ['', EMPTY_ACL].includes(action.value)))

export const TOLERATED: Tolerated[] = [
  {
    name: 'the buffer size that a list of xattrs needs',
    reason:
      'overlayfs includes its hidden xattrs in the size, or refuses a buffer that is large enough; tsoverlay counts only the listed ones',
    applies: m =>
      (m.action?.op === 'listxattr' || m.action?.op === 'flistxattr') &&
      m.action.room < 4096 &&
      (m.action.room > 0
        ? m.field !== 'result' || [m.expected, m.got].toSorted().join() === '0,ERANGE'
        : m.field === 'value'),
  },
  {
    name: 'removing an ACL that does not exist',
    reason:
      'it is an error for an object of a lower layer, and none for one of the upper layer; with hard links different objects may have been copied up',
    applies: m =>
      m.field === 'result' &&
      m.action !== null &&
      removesAcl(m.action) &&
      [m.expected, m.got].toSorted().join() === '0,ENODATA',
  },
  {
    name: 'which of two errors an immutable or append-only file gives',
    reason:
      "the kernel's FUSE client does not know the flag, and reports the other error without a request",
    applies: m =>
      m.before?.flagged === true &&
      (m.field === 'changes'
        ? pairs(m).every(([a, b]) => a === b || (a === '-1' && b.startsWith('-')))
        : m.field === 'result' && m.expected === 'EPERM' && failed(m.got)),
  },
  {
    name: 'read() of a directory at the end of its listing',
    reason: 'the position is that of the real file system, and may be too large for a read',
    applies: m =>
      m.action?.op === 'read' &&
      m.field === 'result' &&
      m.expected === 'EINVAL' &&
      m.got === 'EISDIR',
  },
  {
    name: 'the holes that SEEK_DATA and SEEK_HOLE report',
    reason: 'overlayfs fills smaller holes at copy-up; a reported hole must be one on both sides',
    applies: m =>
      m.action?.op === 'lseek' &&
      (m.action.whence === SEEK.DATA || m.action.whence === SEEK.HOLE) &&
      m.field === 'result' &&
      [m.expected, m.got].every(result => result === 'ENXIO' || !failed(result)),
  },
  {
    name: 'access() with W_OK on an immutable file',
    reason:
      "the kernel's FUSE client answers it from mode, owner and ACL; the write itself is refused",
    applies: m =>
      m.action?.op === 'access' && m.field === 'result' && m.expected === 'EPERM' && m.got === '0',
  },
  {
    name: 'names that are listed but not found',
    reason: 'overlayfs lists a whiteout in a directory of a single layer; a union may hide it',
    applies: m => m.field === 'ghosts' && within(m.got, m.expected),
  },
  {
    name: 'a correct d_ino',
    reason:
      'overlayfs returns the real inode number if it did not notice that a directory contains entries of other layers',
    applies: m =>
      m.field === 'd_ino wrong'
        ? within(m.got, m.expected)
        : m.field.startsWith('d_ino == st_ino') && m.expected === 'false',
  },
  {
    name: 'whether a directory that holds a hard link of a lower file counts as merged (nlink 1)',
    reason:
      'a FUSE server knows the opened inode, but not its name: the file may be copied up into the directory of another name',
    applies: m =>
      m.field.startsWith('nlink of a directory') && (/^1\b/.test(m.expected) || /^1\b/.test(m.got)),
  },
  {
    name: 'the link count of an open file or directory of a lower layer that was removed',
    reason:
      'overlayfs returns that of the real file; tsoverlay returns 0 for a file without a name',
    applies: m =>
      /^nlink .*(open file|stat|path's directory)$/.test(m.field) &&
      m.expected !== '0' &&
      m.got === '0',
  },
  {
    name: 'EPERM for a call on an immutable file that would change nothing',
    reason:
      "the kernel's FUSE client does not know the flag, finds that nothing changes and sends no request",
    applies: m =>
      m.before?.flagged === true &&
      m.field === 'result' &&
      m.expected === 'EPERM' &&
      m.got === '0' &&
      (m.action?.op === 'copy' ||
        (m.action !== null &&
          'name' in m.action &&
          /(?:set|remove)xattr$/.test(m.action.op) &&
          m.action.name.startsWith('system.posix_acl'))),
  },
  {
    name: 'a correct listing where that of overlayfs is wrong',
    reason:
      'overlayfs loses or repeats a name in a listing with changes in between, which is an error',
    applies: m => m.field === 'violations' && m.got === '',
  },
]

const MS = 1_000_000n
/** A time in the format of `showTime`, in nanoseconds. */
const timeOf = (shown: string): bigint | undefined => {
  const match = /^(-?\d+)s\+(\d+)ns/.exec(shown)
  return match === null ? undefined : BigInt(match[1]!) * 1000n * MS + BigInt(match[2]!)
}
const asTold = (time: bigint): bigint => (time < 0n ? 0n : time - (time % MS))

/** For the transport fuse-native only. */
export const TOLERATED_NATIVE: Tolerated[] = [
  {
    name: 'set-id bits that remain after a change by root of a file with a capability',
    reason:
      "without write-back the kernel's FUSE client sends the same request to remove both, or only the capability",
    applies: m =>
      m.before?.capability === true &&
      m.field.startsWith('mode') &&
      ((Number.parseInt(m.expected, 8) ^ Number.parseInt(m.got, 8)) & ~0o6000) === 0,
  },
  {
    name: 'a time that is passed as unsigned milliseconds',
    reason: 'the package can not pass it in another way; on disk it is correct',
    applies: m => {
      if (!/^[am]time\b/.test(m.field)) return false
      const [a, b] = [timeOf(m.expected), timeOf(m.got)]
      // After a remount with swapped layers the sides are exchanged.
      return a !== undefined && b !== undefined && (asTold(a) === b || asTold(b) === a)
    },
  },
  {
    name: 'an open directory that was removed, and an open file whose directory was removed, too',
    reason: 'libfuse requests it by its path, which does not exist any more: ENOENT',
    applies: m =>
      m.action !== null &&
      slotsOf(m.action).length > 0 &&
      (m.got === 'ENOENT' || m.got === 'errno 2' || m.got === '(nothing)'),
  },
  {
    name: 'names of trusted xattrs in a list for an ordinary user',
    reason: 'a handler does not know the caller; only root can read the values nevertheless',
    applies: m =>
      /^f?listxattr$/.test(m.action?.op ?? '') &&
      (m.field === 'value' || m.field === 'result') &&
      m.got.length >= m.expected.length,
  },
  {
    name: 'the presence of a birth time',
    reason: 'libfuse 2 has no STATX: struct stat has none',
    applies: m => m.field.startsWith('has birth time'),
  },
]

/** Xattrs without the unreadable capability, and without the path at the end. */
const withoutEmptyCapability = (shown: string): string =>
  shown
    .replace(/ \(".*"\)$/, '')
    .replace('security.capability=errno 22', '')
    .trim()

/** For mounts by root of a user namespace. */
export const TOLERATED_IN_USERNS: Tolerated[] = [
  {
    name: 'a different inode number after a remount',
    reason:
      'finding the inode number of the origin needs CAP_DAC_READ_SEARCH, so it is that of the copy',
    applies: m => m.field === 'inode number after a remount',
  },
  {
    name: 'the inode number of a copy in a listing that is read again through an old descriptor',
    reason:
      "the kernel's FUSE client keeps the listing until the directory is opened again; the inode number changes when the kernel has forgotten the file",
    applies: m => m.action?.op === 'flist' && m.field === 'd_ino wrong' && m.expected === '',
  },
  {
    name: 'an empty capability of a file with set-id bits, which a write removes',
    reason:
      "root of a user namespace does not keep the bits, and the kernel's FUSE client sends the same request to remove them and the capability",
    applies: m =>
      m.before?.capability === true &&
      m.field.startsWith('xattrs') &&
      withoutEmptyCapability(m.got) === withoutEmptyCapability(m.expected),
  },
]
if (inUserNamespace) TOLERATED.push(...TOLERATED_IN_USERNS)

/** Adds the differences that are allowed for the package fuse-native. */
export const throughPackage = (): void => void TOLERATED.push(...TOLERATED_NATIVE)

/** Identifies a failure, so that equal failures can be recognized. */
export const signature = (mismatch: Mismatch): string =>
  `${mismatch.action?.op ?? 'end'}: ${mismatch.field.replaceAll(/\/\S+/g, '')}`

let ignored: RegExp | null = null
/**
 * For a candidate with known defects: failures with these signatures are ignored, so that others
 * are found.
 */
export const ignore = (pattern: RegExp): void => {
  ignored = pattern
}

export const tolerated = (mismatch: Mismatch): boolean =>
  TOLERATED.some(rule => rule.applies(mismatch)) || ignored?.test(signature(mismatch)) === true
