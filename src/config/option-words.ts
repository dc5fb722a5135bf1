/**
 * Names of mount options that have no value of their own here: what each means, and which are known
 * at all.
 */

import { mountFlagWords } from './mount-flags.js'

/** Words of fstab lines: they speak to mount(8), not to a file system. */
const fstabWords: ReadonlySet<string> = new Set([
  'defaults',
  'auto',
  'noauto',
  'nofail',
  '_netdev',
  'user',
  'users',
  'nouser',
  'owner',
  'group',
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
])

export const isForMount8 = (name: string): boolean =>
  fstabWords.has(name) || name.startsWith('x-') || name.startsWith('X-')

/** What else these words of mount(8) say, which a later word may take back. */
export const impliedFlags: ReadonlyMap<string, readonly ('nosuid' | 'nodev' | 'noexec')[]> =
  new Map([
    ['user', ['nosuid', 'nodev', 'noexec']],
    ['users', ['nosuid', 'nodev', 'noexec']],
    ['owner', ['nosuid', 'nodev']],
    ['group', ['nosuid', 'nodev']],
  ])

/**
 * SELinux labels. As fuse-overlayfs does, they are accepted where programs call it, and go no
 * further.
 */
export const labels: ReadonlySet<string> = new Set([
  'context',
  'fscontext',
  'defcontext',
  'rootcontext',
])

/** Options that ask for what is always so, or say how data travels, which `io` does here. */
export const hints: ReadonlySet<string> = new Set([
  'override_creds',
  'nooverride_creds',
  'splice_read',
  'no_splice_read',
  'splice_write',
  'no_splice_write',
  'splice_move',
  'no_splice_move',
  'kernel_cache',
])

/** Options of fuse-overlayfs that there is nothing to do for, and why. */
export const withoutEffect: ReadonlyMap<string, string> = new Map([
  ['fast_ino', 'a listing shows the numbers that stat shows, always'],
  ['fast_ino_check', 'a listing shows the numbers that stat shows, always'],
  ['ino32_t', 'two files of different layers could have one number then'],
  ['plugins', 'there are no plugins'],
])

interface NotOffered {
  /** Values that ask for nothing else than what is done. */
  allowed: readonly string[]
  why: string
}

const propagation: NotOffered = {
  allowed: [],
  why: 'set it when the union is mounted, as in: mount --make-private MOUNTPOINT',
}

/** Options of kernel overlayfs and mount(8) that are not offered. */
export const notOffered: ReadonlyMap<string, NotOffered> = new Map([
  [
    'metacopy',
    {
      allowed: ['off'],
      why: 'a copy-up copies the data, too; leave it out',
    },
  ],
  ['nfs_export', { allowed: ['off'], why: 'no file handles lead into a union' }],
  ['verity', { allowed: ['off'], why: 'the digests of lower files are not checked' }],
  ['uuid', { allowed: ['auto', 'null'], why: 'a union has no UUID; write auto or null' }],
  ['private', propagation],
  ['rprivate', propagation],
  ['shared', propagation],
  ['rshared', propagation],
  ['slave', propagation],
  ['rslave', propagation],
  ['unbindable', propagation],
  ['runbindable', propagation],
])

/** Options that parseMountOptions reads itself. */
export const ownNames = [
  'lowerdir',
  'lowerdir+',
  'datadir+',
  'upperdir',
  'workdir',
  'redirect_dir',
  'whiteout',
  'index',
  'userxattr',
  'volatile',
  'io',
  'fsync',
  'writeback',
  'noxattrs',
  'noacl',
  'noopen',
  'static_nlink',
  'uidmapping',
  'gidmapping',
  'squash_to_root',
  'squash_to_uid',
  'squash_to_gid',
  'xattr_permissions',
  'max_write',
  'threaded',
  'xino',
  'allow_other',
  'allow_root',
  'default_permissions',
  'fsname',
  'subtype',
  'timeout',
  'own_server',
  'log_level',
  'log_file',
] as const

/** Every name that means something here, other than x-*. */
export const knownNames = (): string[] => [
  ...ownNames,
  ...mountFlagWords,
  ...fstabWords,
  ...labels,
  ...hints,
  ...withoutEffect.keys(),
  ...notOffered.keys(),
]
