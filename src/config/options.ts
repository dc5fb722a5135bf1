/**
 * The value of `-o`: kernel overlayfs' options and escapes, mount flags, and options for FUSE. The
 * table (table.ts) determines how a value is read; the setters here change the options. Parsing
 * accesses no file.
 *
 * An unknown or unsupported name is returned in `ignored` (see unknown-options.ts). A wrong value
 * is a MountError.
 */

import { geteuid } from 'node:process'

import { MountError } from '../errors.js'
import type { LogLevel } from '../log.js'
import type {
  OwnerOptions,
  RedirectDir,
  UnionOptions,
  WhiteoutForm,
  XattrPermissions,
} from '../overlay/options.js'
import { defaultUnionOptions } from './defaults.js'
import { addMountFlag } from './mount-flags.js'
import { noDataLayers, splitOptions } from './syntax.js'
import { rowOf, type Assert, type RowOf, type Same, type WordsOf } from './table.js'
import { defaultTuning, type Tuning } from './tuning.js'
import type { IoMode, Transport } from './types.js'
import { readValue, type ValueOf } from './values.js'

export interface ParsedOptions {
  union: UnionOptions
  io: IoMode
  /** The source in /proc/mounts. */
  fsname: string | undefined
  /** The type that /proc/mounts shows after `fuse.`. */
  subtype: string | undefined
  /** Other users than the mounter have access. `undefined`: the default of the transport. */
  allowOther: boolean | undefined
  /** MS_* bits of mount(2). */
  mountFlags: number
  /**
   * How long the kernel may cache names and attributes, in seconds. `undefined`: the default of the
   * transport.
   */
  timeout: number | undefined
  tuning: Tuning
  /** `undefined`: the command line or the default determines it. */
  logLevel: LogLevel | undefined
  logFile: string | undefined
  /** The union gets a server process of its own. */
  ownServer: boolean
  /** Unknown or unsupported options, as given. */
  ignored: string[]
  /** SELinux labels, as given. They have no effect. */
  labels: string[]
  /** Sentences for the user about options that have no effect. */
  warnings: string[]
}

/** Compile-time: the words of the table are those of the types. */
export type WordsAreThoseOfTheTypes = [
  Assert<Same<WordsOf<'redirectDir'>, RedirectDir>>,
  Assert<Same<WordsOf<'whiteout'>, WhiteoutForm>>,
  Assert<Same<WordsOf<'xattrPermissions'>, `${XattrPermissions}`>>,
  Assert<Same<WordsOf<'io'>, IoMode>>,
  Assert<Same<WordsOf<'transport'>, Transport>>,
  Assert<Same<WordsOf<'logLevel'>, LogLevel>>,
]

/** The state that the setters change. */
interface Draft {
  parsed: ParsedOptions
  union: UnionOptions
  /** The effective user id of the mounter. */
  uid: number | undefined
  squashToRoot: boolean
}

const own = ({ union }: Draft, change: OwnerOptions): void => {
  union.owners = { ...union.owners, ...change }
}
const tune = ({ parsed }: Draft, change: Partial<Tuning>): void => {
  parsed.tuning = { ...parsed.tuning, ...change }
}

type SetRow = RowOf<'set'>
type SetName = SetRow['names'][number]
type Setter<N extends SetName> = (
  draft: Draft,
  value: ValueOf<Extract<SetRow, { readonly names: readonly [N] }>['value']>,
) => void

/** One setter for each row of the table whose fate is `set`. */
const setters: { readonly [N in SetName]: Setter<N> } = {
  lowerdir: ({ union }, paths) => void (union.lower = paths),
  'lowerdir+': ({ union }, path) => void union.lower.push(path),
  upperdir: ({ union }, path) => void (union.upper = path),
  workdir: ({ union }, path) => void (union.work = path),
  redirect_dir: ({ union }, word) => void (union.redirectDir = word),
  whiteout: ({ union }, word) => void (union.whiteout = word),
  index: ({ union }, word) => void (union.index = word === 'on'),
  userxattr: ({ union }) => void (union.userxattr = true),
  volatile: ({ union }) => void (union.volatile = true),
  fsync: ({ union }, word) => {
    if (word === 'volatile') union.volatile = true
    else union.fsync = word !== '0'
  },
  uidmapping: (draft, uids) => own(draft, { uids }),
  gidmapping: (draft, gids) => own(draft, { gids }),
  squash_to_uid: (draft, squashUid) => own(draft, { squashUid }),
  squash_to_gid: (draft, squashGid) => own(draft, { squashGid }),
  squash_to_root: draft => void (draft.squashToRoot = true),
  xattr_permissions: ({ union }, word) =>
    void (union.xattrPermissions = Number(word) as XattrPermissions),
  io: ({ parsed }, word) => void (parsed.io = word),
  noopen: draft => tune(draft, { noOpen: true }),
  writeback: (draft, word) => tune(draft, { writeback: word === '1' }),
  max_write: (draft, maxWrite) => tune(draft, { maxWrite }),
  noxattrs: (draft, word) => tune(draft, { xattrs: word === '0' }),
  noacl: draft => tune(draft, { acl: false }),
  static_nlink: draft => tune(draft, { staticNlink: true }),
  fsname: ({ parsed }, text) => void (parsed.fsname = text),
  subtype: ({ parsed }, text) => void (parsed.subtype = text),
  allow_other: ({ parsed }) => void (parsed.allowOther = true),
  allow_root: ({ parsed, uid }) => {
    if (uid !== 0) throw notRoot
    parsed.allowOther = false
  },
  timeout: ({ parsed }, seconds) => void (parsed.timeout = seconds),
  own_server: ({ parsed }) => void (parsed.ownServer = true),
  log_level: ({ parsed }, level) => void (parsed.logLevel = level),
  log_file: ({ parsed }, path) => void (parsed.logFile = path),
}

/** The kernel gives access either to the mounter alone or to all users. */
const notRoot = new MountError(
  'allow_root: only root can mount so; leave it out, or write allow_other to let everybody in',
  { option: 'allow_root', code: 'EINVAL' },
)

/** @param item one option, as given */
const apply = (draft: Draft, item: string, cwd: string): void => {
  const { parsed, union } = draft
  const equals = item.indexOf('=')
  const name = equals === -1 ? item : item.slice(0, equals)
  const raw = equals === -1 ? undefined : item.slice(equals + 1)
  const row = rowOf(name)
  switch (row?.fate) {
    case 'set': {
      const set = setters[name as SetName] as (draft: Draft, value: unknown) => void
      set(draft, readValue(row.value, name, raw, cwd))
      return
    }
    case 'checked':
      readValue(row.value, name, raw, cwd)
      return
    case 'wrong':
      throw noDataLayers(item)
    case 'flag':
      if (raw === undefined) {
        const flag = row.names.find(word => word === name) ?? 'rw'
        parsed.mountFlags = addMountFlag(parsed.mountFlags, flag)
        if (flag === 'ro' || flag === 'rw') union.readOnly = flag === 'ro'
      } else parsed.ignored.push(item)
      return
    case 'fstab':
      for (const flag of 'implies' in row ? row.implies : [])
        parsed.mountFlags = addMountFlag(parsed.mountFlags, flag)
      return
    case 'label':
      parsed.labels.push(item)
      return
    case 'hint':
      return
    case 'no effect':
      if (raw !== '0' && raw !== '') parsed.warnings.push(`${item} has no effect: ${row.why}`)
      return
    case 'not offered':
      if (!row.allowed.some(word => word === raw)) parsed.ignored.push(item)
      return
    case 'remount':
    case 'library': // has no names
    case undefined:
      if (!isForMount8(name)) parsed.ignored.push(item)
  }
}

/** Words of fstab lines for mount(8) and systemd that are not in the table. */
const isForMount8 = (name: string): boolean => name.startsWith('x-') || name.startsWith('X-')

/**
 * @param lists the values of `-o`, in order; they are concatenated, and the last value of a name
 *   wins
 * @param cwd the base of relative paths
 * @param uid the effective user id of the mounter
 * @throws {MountError} for a wrong value; checks that need the filesystem happen later
 */
export const parseMountOptions = (
  lists: readonly string[],
  cwd: string,
  uid = geteuid?.(),
): ParsedOptions => {
  const union: UnionOptions = { ...defaultUnionOptions, lower: [] }
  const parsed: ParsedOptions = {
    union,
    io: 'auto',
    fsname: undefined,
    subtype: undefined,
    allowOther: undefined,
    mountFlags: 0,
    timeout: undefined,
    tuning: defaultTuning,
    logLevel: undefined,
    logFile: undefined,
    ownServer: false,
    ignored: [],
    labels: [],
    warnings: [],
  }
  const draft: Draft = { parsed, union, uid, squashToRoot: false }
  for (const item of lists.flatMap(splitOptions)) apply(draft, item, cwd)

  // squash_to_uid and squash_to_gid override squash_to_root in any order.
  if (draft.squashToRoot) union.owners = { squashUid: 0, squashGid: 0, ...union.owners }
  if (union.upper === undefined && union.work !== undefined) {
    parsed.warnings.push(
      `workdir=${union.work} is ignored: a union without upperdir is read-only and needs none`,
    )
    delete union.work
  }
  return parsed
}
