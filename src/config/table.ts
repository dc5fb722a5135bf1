/**
 * The table of options. The parser of `-o` (options.ts), the checks of the library's keys
 * (check-options.ts), `tsoverlay mount --help`, docs/OPTIONS.md, the man pages and the shell
 * completions all come from it. After a change run `npm run generate`.
 */

import { logLevels } from '../log.js'
import {
  MS_DIRSYNC,
  MS_LAZYTIME,
  MS_NOATIME,
  MS_NODEV,
  MS_NODIRATIME,
  MS_NOEXEC,
  MS_NOSUID,
  MS_NOSYMFOLLOW,
  MS_RDONLY,
  MS_RELATIME,
  MS_STRICTATIME,
  MS_SYNCHRONOUS,
} from '../sys/constants.js'
import { defaultUnionOptions } from './defaults.js'
import { defaultTuning } from './tuning.js'
import type { MountFlag } from './types.js'

/** How the value after `=` is read. A list of words: one of them. */
export type ValueKind =
  | 'none'
  | 'path'
  /** Several paths, separated by colons. */
  | 'paths'
  | 'text'
  /** DISK:SHOWN:LENGTH, several joined by colons. */
  | 'ranges'
  | 'id'
  | 'seconds'
  | 'bytes'
  /** Any value is accepted. */
  | 'any'
  /** Of keys that only the library has. */
  | 'flags'
  | 'logger'
  | readonly string[]

export interface Row {
  /**
   * The names of the mount option; several names share one explanation. Empty: only the library has
   * this option.
   */
  readonly names: readonly string[]
  readonly value: ValueKind
  /** Represents the value in usage lines; not needed for words. */
  readonly placeholder?: string
  /** As the documents show it. */
  readonly default?: string
  /** The key of MountOptions. */
  readonly key?: string
  /** The line of `tsoverlay mount --help`. Without it the option is not listed there. */
  readonly help?: string
  /** Sentences for docs/OPTIONS.md and the man pages; code is between backticks. */
  readonly text: string
  /** The names in kernel overlayfs or mount(2). `same`: those of this row. */
  readonly kernel?: string
  /** The names in fuse-overlayfs or libfuse. `same`: those of this row. */
  readonly fuseOverlayfs?: string
}

/** parseMountOptions has a setter for it (options.ts). */
interface SetRow extends Row {
  readonly fate: 'set'
}
/** The value is checked but has no effect, because it requests the fixed behaviour. */
interface CheckedRow extends Row {
  readonly fate: 'checked'
  readonly value: 'none' | readonly string[]
}
/** Always an error, with any value. */
interface WrongRow extends Row {
  readonly fate: 'wrong'
}
/** Mount flags. */
interface FlagRow extends Row {
  readonly fate: 'flag'
  readonly names: readonly MountFlag[]
  readonly value: 'none'
  /** For each name the MS_* bits that it sets, and those that it clears. */
  readonly bits: readonly (readonly [set: number, clear: number])[]
}
/** Words for mount(8), accepted without effect, apart from the flags that they imply. */
interface FstabRow extends Row {
  readonly fate: 'fstab'
  readonly implies?: readonly ('nosuid' | 'nodev' | 'noexec')[]
}
/** SELinux labels: accepted on the command line of fuse-overlayfs, without effect. */
interface LabelRow extends Row {
  readonly fate: 'label'
}
/** Accepted without a message, and without an effect. */
interface HintRow extends Row {
  readonly fate: 'hint'
}
/** Accepted; a message gives the reason why it has no effect. */
interface NoEffectRow extends Row {
  readonly fate: 'no effect'
  readonly why: string
}
/** Refused, or ignored with a message, except for values that request the fixed behaviour. */
interface NotOfferedRow extends Row {
  readonly fate: 'not offered'
  readonly allowed: readonly string[]
  readonly why: string
}
/** `remount`: the command line handles it before the options are parsed. */
interface RemountRow extends Row {
  readonly fate: 'remount'
}
/** A key of the library that is not a mount option. */
interface LibraryRow extends Row {
  readonly fate: 'library'
  readonly names: readonly []
  readonly key: string
}

type AnyRow =
  | SetRow
  | CheckedRow
  | WrongRow
  | FlagRow
  | FstabRow
  | LabelRow
  | HintRow
  | NoEffectRow
  | NotOfferedRow
  | RemountRow
  | LibraryRow

/** The words of `--transport`. */
export const transports = ['kernel', 'fuse-native'] as const
const onOff = ['on', 'off'] as const
const bit = ['0', '1'] as const

export const table = [
  {
    title: 'Layers',
    rows: [
      {
        fate: 'set',
        names: ['lowerdir'],
        value: 'paths',
        placeholder: 'A:B:C',
        default: 'required',
        key: 'lower',
        help: 'read-only layers, the top one first (required)',
        text: 'The read-only layers, the top one first.',
        kernel: 'same',
        fuseOverlayfs: 'same',
      },
      {
        fate: 'set',
        names: ['lowerdir+'],
        value: 'path',
        placeholder: 'DIR',
        help: 'one more layer, below the others',
        text: 'One more layer, below the others.',
        kernel: 'same',
      },
      {
        fate: 'wrong',
        names: ['datadir+'],
        value: 'path',
        placeholder: 'DIR',
        text: 'Refused, as is `::` in `lowerdir`: data-only layers are not supported.',
        kernel: 'same',
      },
      {
        fate: 'set',
        names: ['upperdir'],
        value: 'path',
        placeholder: 'DIR',
        default: 'none',
        key: 'upper',
        help: 'the writable layer; without it the union is read-only',
        text: 'The writable layer. Without it the union is read-only.',
        kernel: 'same',
        fuseOverlayfs: 'same',
      },
      {
        fate: 'set',
        names: ['workdir'],
        value: 'path',
        placeholder: 'DIR',
        default: 'none',
        key: 'work',
        help: 'an empty directory on the file system of upperdir',
        text: 'An empty directory on the file system of `upperdir`; required with it.',
        kernel: 'same',
        fuseOverlayfs: 'same',
      },
      {
        fate: 'library',
        names: [],
        value: 'path',
        default: 'required',
        key: 'mountpoint',
        text: 'The directory to mount on; an argument of `tsoverlay mount`.',
      },
      {
        fate: 'library',
        names: [],
        value: 'none',
        default: 'false',
        key: 'readOnly',
        text: 'As the mount flag `ro`.',
      },
    ],
  },
  {
    title: 'Format on disk',
    rows: [
      {
        fate: 'set',
        names: ['redirect_dir'],
        value: ['on', 'off', 'follow', 'nofollow'],
        placeholder: 'MODE',
        default: defaultUnionOptions.redirectDir,
        key: 'redirectDir',
        help: 'on, off, follow, nofollow: renames of lower directories (off)',
        text: 'Renames of directories from lower layers. `off` answers EXDEV, as the kernel does, and still follows redirects in the layers.',
        kernel: 'same',
        fuseOverlayfs: 'same (`off` only)',
      },
      {
        fate: 'set',
        names: ['whiteout'],
        value: ['auto', 'char', 'xattr', 'wh'],
        placeholder: 'FORM',
        default: defaultUnionOptions.whiteout,
        key: 'whiteout',
        help: 'auto, char, xattr, wh: how deletions are recorded (auto)',
        text: 'How a deletion is written: a character device 0/0 (`char`), a file with an xattr, or a file `.wh.NAME`. All forms are read. `auto` writes the device if it can be made.',
        fuseOverlayfs: '`FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT` (a variable) is `whiteout=wh`',
      },
      {
        fate: 'set',
        names: ['index'],
        value: onOff,
        default: defaultUnionOptions.index ? 'on' : 'off',
        key: 'index',
        help: 'keep hard links across copy-up (on)',
        text: 'Hard links stay whole over copy-up and remount.',
        kernel: 'same',
      },
      {
        fate: 'set',
        names: ['userxattr'],
        value: 'none',
        default: 'auto',
        key: 'userxattr',
        help: 'user.overlay.* attributes instead of trusted.overlay.*',
        text: 'Use xattrs `user.overlay.*` instead of `trusted.overlay.*`. This is the default if those cannot be written. Root then follows no redirects.',
        kernel: 'same',
      },
      {
        fate: 'set',
        names: ['volatile'],
        value: 'none',
        default: 'off',
        key: 'volatile',
        help: 'never sync; a crash makes the upper layer unusable',
        text: 'Never sync: after a crash the upper layer is unusable. A directory in the workdir forbids the next mount until it is removed.',
        kernel: 'same',
        fuseOverlayfs: 'same',
      },
      {
        fate: 'set',
        names: ['fsync'],
        value: ['1', '0', 'auto', 'volatile'],
        placeholder: '0|1',
        default: defaultUnionOptions.fsync ? '1' : '0',
        help: '0: never sync, and do not record that (1)',
        text: '`0`: never sync, and leave no mark. `auto` is `1`; `volatile` is the option `volatile`.',
        kernel: 'same (`auto`, `volatile`)',
        fuseOverlayfs: 'same (`0`, `1`)',
      },
    ],
  },
  {
    title: 'Owners and permissions',
    rows: [
      {
        fate: 'set',
        names: ['uidmapping'],
        value: 'ranges',
        placeholder: 'RANGES',
        default: 'none',
        key: 'uidMapping',
        help: 'map user ids; RANGES is DISK:SHOWN:LENGTH, several joined by colons',
        text: 'User ids of the layers as they are shown, and back: `DISK:SHOWN:LENGTH`, several joined by colons. To set or create an owner without a mapping fails with EOVERFLOW.',
        fuseOverlayfs: 'same',
      },
      {
        fate: 'set',
        names: ['gidmapping'],
        value: 'ranges',
        placeholder: 'RANGES',
        default: 'none',
        key: 'gidMapping',
        help: 'map group ids',
        text: 'Group ids, as `uidmapping`.',
        fuseOverlayfs: 'same',
      },
      {
        fate: 'set',
        names: ['squash_to_uid'],
        value: 'id',
        placeholder: 'UID',
        default: 'off',
        key: 'squashToUid',
        help: 'show this user as the owner of everything',
        text: 'Everything is shown as belonging to this user.',
        fuseOverlayfs: 'same',
      },
      {
        fate: 'set',
        names: ['squash_to_gid'],
        value: 'id',
        placeholder: 'GID',
        default: 'off',
        key: 'squashToGid',
        help: 'show this group as the owner of everything',
        text: 'Everything is shown as belonging to this group.',
        fuseOverlayfs: 'same',
      },
      {
        fate: 'set',
        names: ['squash_to_root'],
        value: 'none',
        default: 'off',
        key: 'squashToRoot',
        help: 'squash_to_uid=0 and squash_to_gid=0, unless they are given',
        text: '`squash_to_uid=0` and `squash_to_gid=0`, unless they are given.',
        fuseOverlayfs: 'same',
      },
      {
        fate: 'set',
        names: ['xattr_permissions'],
        value: ['0', '1', '2'],
        placeholder: 'N',
        default: String(defaultUnionOptions.xattrPermissions),
        key: 'xattrPermissions',
        help: '0, 1, 2: keep owner, mode and type in an attribute, 1 for root, 2 for any user (0)',
        text: 'Owner, mode and type are kept in an xattr: `1` `security.fuseoverlayfs.override_stat`, which takes CAP_SYS_ADMIN; `2` `user.containers.override_stat`.',
        fuseOverlayfs: 'same',
      },
      {
        fate: 'checked',
        names: ['default_permissions'],
        value: 'none',
        text: 'Accepted: the kernel always checks permissions.',
        kernel: 'same',
        fuseOverlayfs: 'same',
      },
    ],
  },
  {
    title: 'Data and caches',
    rows: [
      {
        fate: 'set',
        names: ['io'],
        value: ['auto', 'passthrough', 'cached'],
        placeholder: 'MODE',
        default: 'auto',
        key: 'io',
        help: 'auto, passthrough, cached: the data mode (auto)',
        text: 'The data mode: see docs/DATA-MODES.md.',
      },
      {
        fate: 'set',
        names: ['noopen'],
        value: 'none',
        default: 'off',
        key: 'noOpen',
        help: 'open and close files without a request, in io=cached',
        text: 'In `io=cached`, no request to open or close a file. Some errors are then reported later: see docs/IO-MODES.md.',
      },
      {
        fate: 'set',
        names: ['writeback'],
        value: bit,
        default: defaultTuning.writeback ? '1' : '0',
        help: '0: write data to the layer at once, in io=cached (1)',
        text: '`0`: in `io=cached`, written data goes to the layer at once.',
        fuseOverlayfs: 'same',
      },
      {
        fate: 'set',
        names: ['max_write'],
        value: 'bytes',
        placeholder: 'BYTES',
        default: String(defaultTuning.maxWrite),
        help: 'maximum data in one write request',
        text: 'Data in one write request, at most. The kernel takes 4096 for a smaller number.',
        fuseOverlayfs: 'same',
      },
      {
        fate: 'set',
        names: ['noxattrs'],
        value: bit,
        default: defaultTuning.xattrs ? '0' : '1',
        help: '1: hide and refuse extended attributes (0)',
        text: '`1`: no extended attributes are shown or accepted (EOPNOTSUPP).',
        fuseOverlayfs: 'same',
      },
      {
        fate: 'set',
        names: ['noacl'],
        value: 'none',
        default: 'off',
        help: 'hide, refuse and do not enforce POSIX ACLs',
        text: 'No POSIX ACLs are shown, accepted or enforced. Those in the layers stay, and are inherited.',
        fuseOverlayfs: 'same',
      },
      {
        fate: 'set',
        names: ['static_nlink'],
        value: 'none',
        default: 'off',
        help: 'show a link count of 1 for every directory',
        text: 'Every directory shows one link.',
        fuseOverlayfs: 'same',
      },
      {
        fate: 'checked',
        names: ['threaded'],
        value: bit,
        text: 'Accepted: one thread serves the union, and requests that may wait run beside it.',
        fuseOverlayfs: 'same',
      },
      {
        fate: 'checked',
        names: ['xino'],
        value: ['off', 'auto', 'on'],
        text: 'Accepted: inode numbers are always unique over the file systems of the layers.',
        kernel: 'same',
        fuseOverlayfs: 'same',
      },
      {
        fate: 'library',
        names: [],
        value: transports,
        default: 'kernel',
        key: 'transport',
        text: 'The way to the kernel; `--transport` of `tsoverlay mount`.',
      },
    ],
  },
  {
    title: 'The mount and its server',
    rows: [
      {
        fate: 'set',
        names: ['fsname'],
        value: 'text',
        placeholder: 'NAME',
        default: 'tsoverlay',
        key: 'fsname',
        help: 'the source shown in /proc/mounts',
        text: 'The source that /proc/mounts shows.',
        kernel: 'the source of mount(2)',
        fuseOverlayfs: 'same',
      },
      {
        fate: 'set',
        names: ['subtype'],
        value: 'text',
        placeholder: 'NAME',
        default: 'tsoverlay',
        key: 'subtype',
        help: 'the type shown in /proc/mounts, after "fuse."',
        text: 'The type after `fuse.` in /proc/mounts.',
        fuseOverlayfs: 'same',
      },
      {
        fate: 'set',
        names: ['allow_other'],
        value: 'none',
        default: 'on for root',
        key: 'allowOther',
        help: 'allow access by other users (default for root)',
        text: 'Users other than the mounter may enter.',
        kernel: 'always so',
        fuseOverlayfs: 'same',
      },
      {
        fate: 'set',
        names: ['allow_root'],
        value: 'none',
        default: 'off',
        help: 'as root: allow access by root only',
        text: 'Only for root: no other user may enter.',
        fuseOverlayfs: 'same',
      },
      {
        fate: 'library',
        names: [],
        value: 'flags',
        default: 'none',
        key: 'flags',
        text: 'A list of mount flags; see below.',
      },
      {
        fate: 'set',
        names: ['timeout'],
        value: 'seconds',
        placeholder: 'SECONDS',
        default: 'long',
        key: 'timeout',
        help: 'how long the kernel may cache names and attributes',
        text: 'How long the kernel may keep names and attributes. With `0` changes in the layers show at once.',
        fuseOverlayfs: 'same',
      },
      {
        fate: 'set',
        names: ['own_server'],
        value: 'none',
        default: 'off',
        help: 'as --own-server, for fstab',
        text: 'As `--own-server`, for fstab: a process that serves nothing else.',
      },
      {
        fate: 'library',
        names: [],
        value: 'logger',
        default: 'none',
        key: 'logger',
        text: "Receives the server's log (pino's shape).",
      },
      {
        fate: 'set',
        names: ['log_level'],
        value: logLevels,
        placeholder: 'LEVEL',
        default: 'info',
        key: 'logLevel',
        help: 'as --log-level, for fstab',
        text: "As `--log-level`, for fstab; the command line comes first. To the system's log `warn` is the default; in the library `silent`, unless it has a logger.",
      },
      {
        fate: 'set',
        names: ['log_file'],
        value: 'path',
        placeholder: 'FILE',
        default: 'none',
        help: 'as --log-file, for fstab',
        text: 'As `--log-file`, for fstab; the command line comes first.',
      },
      {
        fate: 'remount',
        names: ['remount'],
        value: 'none',
        help: 'change the flags (ro, rw, nosuid, ...) of an existing mount',
        text: 'Change the flags of an existing mount. Options of the union stay as they are.',
        kernel: 'same',
      },
    ],
  },
  {
    title: 'Mount flags',
    rows: [
      {
        fate: 'flag',
        names: ['ro', 'rw'],
        value: 'none',
        bits: [
          [MS_RDONLY, 0],
          [0, MS_RDONLY],
        ],
        text: 'Refuse all writing, although there is an `upperdir`.',
        kernel: 'same',
        fuseOverlayfs: 'same',
      },
      {
        fate: 'flag',
        names: ['nosuid', 'suid'],
        value: 'none',
        bits: [
          [MS_NOSUID, 0],
          [0, MS_NOSUID],
        ],
        text: 'Ignore set-user-id bits and file capabilities.',
        kernel: 'same',
        fuseOverlayfs: 'same',
      },
      {
        fate: 'flag',
        names: ['nodev', 'dev'],
        value: 'none',
        bits: [
          [MS_NODEV, 0],
          [0, MS_NODEV],
        ],
        text: 'Devices cannot be opened.',
        kernel: 'same',
        fuseOverlayfs: 'same',
      },
      {
        fate: 'flag',
        names: ['noexec', 'exec'],
        value: 'none',
        bits: [
          [MS_NOEXEC, 0],
          [0, MS_NOEXEC],
        ],
        text: 'Programs cannot be run.',
        kernel: 'same',
        fuseOverlayfs: 'same',
      },
      {
        fate: 'flag',
        names: ['noatime', 'atime'],
        value: 'none',
        bits: [
          [MS_NOATIME, MS_RELATIME | MS_STRICTATIME],
          [0, MS_NOATIME],
        ],
        text: 'Reading moves no access time.',
        kernel: 'same',
        fuseOverlayfs: 'same',
      },
      {
        fate: 'flag',
        names: ['nodiratime', 'diratime'],
        value: 'none',
        bits: [
          [MS_NODIRATIME, 0],
          [0, MS_NODIRATIME],
        ],
        text: 'Reading a directory moves no access time.',
        kernel: 'same',
        fuseOverlayfs: 'same',
      },
      {
        fate: 'flag',
        names: ['relatime', 'norelatime'],
        value: 'none',
        bits: [
          [MS_RELATIME, MS_NOATIME | MS_STRICTATIME],
          [0, MS_RELATIME],
        ],
        text: 'Reading moves an access time that is older than the last change, or than a day (default).',
        kernel: 'same',
        fuseOverlayfs: '`norelatime`',
      },
      {
        fate: 'flag',
        names: ['strictatime', 'nostrictatime'],
        value: 'none',
        bits: [
          [MS_STRICTATIME, MS_NOATIME | MS_RELATIME],
          [0, MS_STRICTATIME],
        ],
        text: 'Reading always moves the access time. A writable union needs `io=passthrough` for it.',
        kernel: 'same',
        fuseOverlayfs: '`nostrictatime`',
      },
      {
        fate: 'flag',
        names: ['lazytime', 'nolazytime'],
        value: 'none',
        bits: [
          [MS_LAZYTIME, 0],
          [0, MS_LAZYTIME],
        ],
        text: 'Times may be written later.',
        kernel: 'same',
      },
      {
        fate: 'flag',
        names: ['sync', 'async'],
        value: 'none',
        bits: [
          [MS_SYNCHRONOUS, 0],
          [0, MS_SYNCHRONOUS],
        ],
        text: 'Every write is synchronous.',
        kernel: 'same',
        fuseOverlayfs: 'same',
      },
      {
        fate: 'flag',
        names: ['dirsync'],
        value: 'none',
        bits: [[MS_DIRSYNC, 0]],
        text: 'Every change of a directory is synchronous.',
        kernel: 'same',
        fuseOverlayfs: 'same',
      },
      {
        fate: 'flag',
        names: ['nosymfollow', 'symfollow'],
        value: 'none',
        bits: [
          [MS_NOSYMFOLLOW, 0],
          [0, MS_NOSYMFOLLOW],
        ],
        text: 'Symlinks are not followed.',
        kernel: 'same',
        fuseOverlayfs: 'same',
      },
    ],
  },
  {
    title: 'Accepted words',
    rows: [
      {
        fate: 'fstab',
        names: ['defaults', 'auto', 'noauto', 'nofail', '_netdev'],
        value: 'any',
        text: 'For mount(8) and systemd, as is every name that begins with `x-` or `X-`.',
      },
      {
        fate: 'fstab',
        names: ['user', 'users'],
        value: 'any',
        implies: ['nosuid', 'nodev', 'noexec'],
        text: 'For mount(8). They imply `nosuid`, `nodev` and `noexec`, unless a later word says otherwise.',
      },
      {
        fate: 'fstab',
        names: ['nouser'],
        value: 'any',
        text: 'For mount(8).',
      },
      {
        fate: 'fstab',
        names: ['owner', 'group'],
        value: 'any',
        implies: ['nosuid', 'nodev'],
        text: 'For mount(8). They imply `nosuid` and `nodev`, unless a later word says otherwise.',
      },
      {
        fate: 'fstab',
        names: [
          'noowner',
          'nogroup',
          'nousers',
          'pamconsole',
          'silent',
          'loud',
          'mand',
          'nomand',
          'iversion',
          'noiversion',
          'comment',
        ],
        value: 'any',
        text: 'For mount(8).',
      },
      {
        fate: 'label',
        names: ['context', 'fscontext', 'defcontext', 'rootcontext'],
        value: 'any',
        placeholder: 'LABEL',
        text: 'SELinux labels: accepted on the command line of fuse-overlayfs, without effect; refused by `tsoverlay mount`.',
        kernel: 'same',
        fuseOverlayfs: '`context`',
      },
      {
        fate: 'hint',
        names: ['override_creds', 'nooverride_creds'],
        value: 'any',
        text: 'The server always acts with the credentials of the mounter.',
        kernel: 'same',
      },
      {
        fate: 'hint',
        names: [
          'splice_read',
          'no_splice_read',
          'splice_write',
          'no_splice_write',
          'splice_move',
          'no_splice_move',
          'kernel_cache',
        ],
        value: 'any',
        text: '`io` decides how data travels.',
        fuseOverlayfs: 'same',
      },
      {
        fate: 'no effect',
        names: ['fast_ino', 'fast_ino_check'],
        value: 'any',
        why: 'a listing shows the numbers that stat shows, always',
        text: 'A message says that it has no effect: a listing always shows the numbers that stat shows.',
        fuseOverlayfs: 'same',
      },
      {
        fate: 'no effect',
        names: ['ino32_t'],
        value: 'any',
        why: 'two files of different layers could have one number then',
        text: 'A message says that it has no effect: two files could have the same number.',
        fuseOverlayfs: 'same',
      },
      {
        fate: 'no effect',
        names: ['plugins'],
        value: 'any',
        why: 'there are no plugins',
        text: 'A message says that it has no effect: there are no plugins.',
        fuseOverlayfs: 'same',
      },
    ],
  },
  {
    title: 'Not offered',
    rows: [
      {
        fate: 'not offered',
        names: ['metacopy'],
        value: 'any',
        allowed: ['off'],
        why: 'a copy-up copies the data, too; leave it out',
        text: 'Only `off`: a copy-up always copies the data. Metacopy files in the layers are followed.',
        kernel: 'same',
      },
      {
        fate: 'not offered',
        names: ['nfs_export'],
        value: 'any',
        allowed: ['off'],
        why: 'no file handles lead into a union',
        text: 'Only `off`: a union has no file handles.',
        kernel: 'same',
      },
      {
        fate: 'not offered',
        names: ['verity'],
        value: 'any',
        allowed: ['off'],
        why: 'the digests of lower files are not checked',
        text: 'Only `off`: the digests of lower files are not checked.',
        kernel: 'same',
      },
      {
        fate: 'not offered',
        names: ['uuid'],
        value: 'any',
        allowed: ['auto', 'null'],
        why: 'a union has no UUID; write auto or null',
        text: 'Only `auto` and `null`: a union has no UUID.',
        kernel: 'same',
      },
      {
        fate: 'not offered',
        names: [
          'private',
          'rprivate',
          'shared',
          'rshared',
          'slave',
          'rslave',
          'unbindable',
          'runbindable',
        ],
        value: 'any',
        allowed: [],
        why: 'set it when the union is mounted, as in: mount --make-private MOUNTPOINT',
        text: 'Set the propagation after mounting, as in `mount --make-private MOUNTPOINT`.',
        kernel: 'same',
      },
    ],
  },
] as const satisfies readonly { readonly title: string; readonly rows: readonly AnyRow[] }[]

export type TableRow = (typeof table)[number]['rows'][number]

/** The rows in the order of the table. */
export const rows: readonly TableRow[] = table.flatMap(({ rows: of }): readonly TableRow[] => of)

export type RowOf<F extends AnyRow['fate']> = Extract<TableRow, { readonly fate: F }>

const byName: ReadonlyMap<string, TableRow> = new Map(
  rows.flatMap(row => row.names.map(name => [name, row] as const)),
)

/** The row of a mount option. */
export const rowOf = (name: string): TableRow | undefined => byName.get(name)

/** The keys of MountOptions that the table has. server/mount.ts checks that it has all. */
export type LibraryKey = Extract<TableRow, { readonly key: string }>['key']

/** For compile-time checks: whether two unions of words are the same. */
export type Same<A, B> = [A] extends [B] ? ([B] extends [A] ? true : false) : false
/** A type error unless its argument is `true`. */
export type Assert<T extends true> = T

/** The words of the option that sets a key. */
export type WordsOf<K extends LibraryKey> = Extract<
  TableRow,
  { readonly key: K }
>['value'] extends readonly (infer W)[]
  ? W
  : never
