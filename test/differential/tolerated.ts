/**
 * Where the answers of the candidate may differ from those of kernel overlayfs. Each difference has
 * its reason here, and is listed in docs/ (docs/SEMANTICS.md has the table of topics).
 */

import { SEEK } from '../helpers/syscalls.js'
import type { Action } from './calls.js'
import { slotsOf } from './calls.js'
import { inUserNamespace } from './userns.js'

/** What has happened before in a run. */
export interface Before {
  /** A file was made immutable or append-only. */
  flagged: boolean
  /** A file may have got capabilities. */
  capability: boolean
}

/** One thing that came out differently. */
export interface Mismatch {
  /** What the run was doing; null: it was over. */
  action: Action | null
  field: string
  expected: string
  got: string
  before?: Before
}

/** What is not compared at all. */
export const NOT_COMPARED: Record<string, string> = {
  'size and blocks of a directory':
    'a merged directory has no size; each file system counts in its own way',
  'blocks of a file': 'the file system allocates late, and what is written late is counted late',
  'st_dev, f_type, f_fsid': 'they name the file system, which is another one',
  ctime: 'nobody can set it; that it moves shows in mtime and in the results',
  'the value of a time that was set to "now"': 'the two calls are made one after the other',
  'the number of an inode': 'compared are same and other, over links, copy-up and remount',
  'fallocate with COLLAPSE_RANGE, INSERT_RANGE, UNSHARE_RANGE':
    "the kernel's FUSE client refuses them (EOPNOTSUPP) before a server is asked",
  'lseek in a directory, but for its beginning and a cookie of a listing':
    'positions in a directory are whatever its file system makes of them',
  'removing or replacing a directory that overlayfs refuses although it lists nothing in it':
    'an xattr whiteout, or a whiteout in a directory of the upper layer alone, counts as an entry there',
  'attributes of a removed file or directory where overlayfs says EEXIST or ENOTEMPTY':
    'it cannot copy up what lost its name; a union can',
  'mtime of a removed directory that is still open':
    'overlayfs takes its whiteouts away first, which counts as a change of it',
  'attributes of a removed FIFO or directory that is still open':
    'overlayfs may copy it up all the same, and the name is there again',
  'renaming a file between layers with metacopy=on, where overlayfs says EXDEV':
    'a redirect to its data would be longer than 256 bytes; a whole copy needs none',
  'mtime of a file whose metadata alone was copied up, when it is opened for writing':
    'overlayfs sets it to the time at which the data was copied',
  'opening a file for writing whose metadata alone was copied up, where overlayfs says EINVAL':
    'it looks at the capability before the data is copied, and finds one that is not valid',
  'a mapping of a lower file that was copied up since it was opened':
    'overlayfs maps the lower file: old data, not what read(2) gives, and SIGBUS behind its old end',
  '`user.overlay.opaque` with a value that hides':
    'it is an ordinary attribute to overlayfs; here the log has a warning of it in a lower layer (docs/SECURITY.md)',
  'taking the capability of an immutable or append-only file away while it is open':
    "the kernel's FUSE client asks for it in the same words when the file is written",
  'fallocate() on an immutable file':
    "it is refused; in write-back mode the kernel's FUSE client has moved mtime by then",
  'mtime after fallocate() with a mode that the file system does not know':
    "in write-back mode the kernel's FUSE client has moved it before it asks",
  'removing a directory with whiteouts in it that has an invalid capability (EINVAL)':
    'overlayfs makes one without them first, and copies its attributes',
  'changing a file by a name whose directory overlayfs cannot copy up (EINVAL: an invalid capability)':
    'a file with other names is changed by one of those',
  'copy_file_range() that copies nothing':
    "the kernel's FUSE client takes set-id bits and capabilities away before it asks",
  'a shared mapping of an append-only file':
    "overlayfs refuses it; the kernel's FUSE client does not know the flag",
  'truncate to the size that a file has, in write-back mode':
    "overlayfs sets mtime; the kernel's FUSE client keeps its own, which POSIX allows",
}

/**
 * What is not asked at all of a server behind the package fuse-native (libfuse 2), because the
 * package can't express it: express.ts takes it out of layers and calls.
 */
export const NOT_EXPRESSED: Record<string, string> = {
  'chown with neither owner nor group': 'libfuse hands on none, so that set-id bits stay',
  'creating as somebody else than the server':
    'no handler is told who asks: what is new belongs to the server',
  ACLs: 'libfuse 2 does not negotiate them: the kernel would not enforce them',
  'one time without the other':
    'libfuse hands on both or nothing, unless a flag is set for which the package has no word',
  'times before 1970, and parts of a millisecond': 'times travel as milliseconds without a sign',
  'names, targets and attribute names that are not UTF-8': 'they travel as JavaScript strings',
  'rename() with flags': 'libfuse 2 has no RENAME2: the kernel says EINVAL',
  'O_TMPFILE, linking a file without a name': 'libfuse 2 has no such request',
  'fallocate()': 'there is no handler for it',
  'copy_file_range()':
    'without a request for it the kernel copies itself, and not always as much as it could',
  'inode flags': 'there is no handler for ioctl()',
  'metacopy=on beside it': 'the comparison would have to set one time without the other',
}

/**
 * What is not there for root of a user namespace (`--userns`): userns.ts takes it out of layers and
 * calls.
 */
export const NOT_IN_USERNS: Record<string, string> = {
  'redirect_dir=on, metacopy=on': 'overlayfs refuses them beside userxattr',
  'hard links in lower layers':
    'overlayfs has no index without CAP_DAC_READ_SEARCH: they part at copy-up; here they are kept',
  'links before the upper layer becomes a lower one': 'they would be hard links in a lower layer',
  'linking a file that comes from a lower layer, until the next mount':
    'overlayfs knows no origin of the copy, and takes the new name for another file with another number',
  'devices in layers': 'nobody makes any but 0/0 there',
  '`trusted.` attributes in layers': 'nobody can set any there',
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

/** The results of the changes during a listing, side by side. */
const pairs = (m: Mismatch): [string, string][] => {
  const got = m.got.split(' ')
  return m.expected.split(' ').map((result, i) => [result, got[i] ?? ''])
}
const failed = (result: string): boolean => /^(?:E|errno)/.test(result)

/** What is in an ACL of no entries: its version. */
const EMPTY_ACL = '02000000'
const removesAcl = (action: Action): boolean =>
  'name' in action &&
  action.name.startsWith('system.posix_acl') &&
  (/^f?removexattr$/.test(action.op) ||
    ('value' in action && ['', EMPTY_ACL].includes(action.value)))

export const TOLERATED: Tolerated[] = [
  {
    name: 'the room that a list of attributes wants',
    reason:
      "overlayfs counts its own hidden attributes when it is asked for a size, or finds too small what isn't; here only what is listed counts",
    applies: m =>
      (m.action?.op === 'listxattr' || m.action?.op === 'flistxattr') &&
      m.action.room < 4096 &&
      (m.action.room > 0
        ? m.field !== 'result' || [m.expected, m.got].toSorted().join() === '0,ERANGE'
        : m.field === 'value'),
  },
  {
    name: 'removing an ACL that is not there',
    reason:
      'an error for an object of a lower layer, none for one in the upper; what has been copied up beside a hard link is not the same',
    applies: m =>
      m.field === 'result' &&
      m.action !== null &&
      removesAcl(m.action) &&
      [m.expected, m.got].toSorted().join() === '0,ENODATA',
  },
  {
    name: 'which of two errors an immutable or append-only file gives',
    reason:
      "the kernel's FUSE client does not know the flag, and finds the other reason to refuse before a server is asked",
    applies: m =>
      m.before?.flagged === true &&
      (m.field === 'changes'
        ? pairs(m).every(([a, b]) => a === b || (a === '-1' && b.startsWith('-')))
        : m.field === 'result' && m.expected === 'EPERM' && failed(m.got)),
  },
  {
    name: 'read() of a directory at the end of its listing',
    reason: "the position there is the real file system's, and may be too far for any read",
    applies: m =>
      m.action?.op === 'read' &&
      m.field === 'result' &&
      m.expected === 'EINVAL' &&
      m.got === 'EISDIR',
  },
  {
    name: 'where SEEK_DATA and SEEK_HOLE see holes',
    reason:
      'overlayfs fills smaller holes at copy-up; what is passed off as a hole must be one on either side',
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
    reason:
      'overlayfs lists a whiteout that lies in a directory of a single layer; a union may well hide it',
    applies: m => m.field === 'ghosts' && within(m.got, m.expected),
  },
  {
    name: 'a d_ino that is right',
    reason:
      'overlayfs gives the number of the real entry where it missed that a directory holds foreign ones',
    applies: m =>
      m.field === 'd_ino wrong'
        ? within(m.got, m.expected)
        : m.field.startsWith('d_ino == st_ino') && m.expected === 'false',
  },
  {
    name: 'whether a directory that holds a hard link of a lower file counts as merged (nlink 1)',
    reason:
      'a FUSE server is told which inode is opened, not by which of its names: the copy may get its place in the directory of another one',
    applies: m =>
      m.field.startsWith('nlink of a directory') && (/^1\b/.test(m.expected) || /^1\b/.test(m.got)),
  },
  {
    name: 'the link count of an open file or directory of a lower layer that was removed',
    reason: 'overlayfs still gives that of the real one; what has no name any more has 0',
    applies: m =>
      /^nlink .*(open file|stat|path's directory)$/.test(m.field) &&
      m.expected !== '0' &&
      m.got === '0',
  },
  {
    name: 'EPERM for a call on an immutable file that would change nothing',
    reason:
      "the kernel's FUSE client, which does not know the flag, sees that there is nothing to do and does not ask",
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
    name: 'a listing that keeps its promise where overlayfs does not',
    reason: 'a name is lost or twice in a listing that runs over changes: no program wants that',
    applies: m => m.field === 'violations' && m.got === '',
  },
]

const MS = 1_000_000n
/** A time as `showTime` shows it, in nanoseconds. */
const timeOf = (shown: string): bigint | undefined => {
  const match = /^(-?\d+)s\+(\d+)ns/.exec(shown)
  return match === null ? undefined : BigInt(match[1]!) * 1000n * MS + BigInt(match[2]!)
}
const asTold = (time: bigint): bigint => (time < 0n ? 0n : time - (time % MS))

/** For the transport fuse-native alone. */
export const TOLERATED_NATIVE: Tolerated[] = [
  {
    name: 'set-id bits that a change by root leaves on a file with a capability',
    reason:
      "without write-back the kernel's FUSE client asks for both to go, or for nothing but the capability's end, in the same words",
    applies: m =>
      m.before?.capability === true &&
      m.field.startsWith('mode') &&
      ((Number.parseInt(m.expected, 8) ^ Number.parseInt(m.got, 8)) & ~0o6000) === 0,
  },
  {
    name: 'what is left of a time that travels as milliseconds without a sign',
    reason: 'the package has no other way to tell it; on the disk it is what it was',
    applies: m => {
      if (!/^[am]time\b/.test(m.field)) return false
      const [a, b] = [timeOf(m.expected), timeOf(m.got)]
      // After a remount by the other it is the other way round.
      return a !== undefined && b !== undefined && (asTold(a) === b || asTold(b) === a)
    },
  },
  {
    name: 'a removed directory that is still open, and an open file whose directory is removed, too',
    reason: 'libfuse asks by path, and there is none any more: ENOENT',
    applies: m =>
      m.action !== null &&
      slotsOf(m.action).length > 0 &&
      (m.got === 'ENOENT' || m.got === 'errno 2' || m.got === '(nothing)'),
  },
  {
    name: 'names of trusted attributes in a list for an ordinary user',
    reason: 'no handler is told who asks; the values are for root alone all the same',
    applies: m =>
      /^f?listxattr$/.test(m.action?.op ?? '') &&
      (m.field === 'value' || m.field === 'result') &&
      m.got.length >= m.expected.length,
  },
  {
    name: 'that there is a birth time',
    reason: 'libfuse 2 has no STATX: struct stat has none',
    applies: m => m.field.startsWith('has birth time'),
  },
]

/** Attributes without the capability that can't be read, and without the path behind them. */
const withoutEmptyCapability = (shown: string): string =>
  shown
    .replace(/ \(".*"\)$/, '')
    .replace('security.capability=errno 22', '')
    .trim()

/** Where both are mounted by root of a user namespace. */
export const TOLERATED_IN_USERNS: Tolerated[] = [
  {
    name: 'a number after a remount that is another',
    reason: 'the number of the origin takes CAP_DAC_READ_SEARCH to find: it is that of the copy',
    applies: m => m.field === 'inode number after a remount',
  },
  {
    name: 'the number of a copy in a listing that is read again through a descriptor from before',
    reason:
      "the kernel's FUSE client keeps the listing until the directory is opened again; the number is another once the kernel has forgotten the file",
    applies: m => m.action?.op === 'flist' && m.field === 'd_ino wrong' && m.expected === '',
  },
  {
    name: 'an empty capability of a file with set-id bits, which a write takes away',
    reason:
      "root of a user namespace does not keep the bits, and the kernel's FUSE client asks for their end and the capability's in the same words",
    applies: m =>
      m.before?.capability === true &&
      m.field.startsWith('xattrs') &&
      withoutEmptyCapability(m.got) === withoutEmptyCapability(m.expected),
  },
]
if (inUserNamespace) TOLERATED.push(...TOLERATED_IN_USERNS)

/** From now on this is about the package fuse-native. */
export const throughPackage = (): void => void TOLERATED.push(...TOLERATED_NATIVE)

/** What makes two failures the same failure. */
export const signature = (mismatch: Mismatch): string =>
  `${mismatch.action?.op ?? 'end'}: ${mismatch.field.replaceAll(/\/\S+/g, '')}`

let ignored: RegExp | null = null
/** For a candidate with known defects: signatures to pass over, to find what else there is. */
export const ignore = (pattern: RegExp): void => {
  ignored = pattern
}

export const tolerated = (mismatch: Mismatch): boolean =>
  TOLERATED.some(rule => rule.applies(mismatch)) || ignored?.test(signature(mismatch)) === true
