/**
 * The value of `-o`: kernel overlayfs' options and escapes, mount flags, and what FUSE adds.
 * Parsing touches no file; paths come out absolute but otherwise as they were given (no `..` is
 * folded, since the component before it may be a symlink).
 *
 * A name that is not known or not offered is returned in `ignored` (see unknown-options.ts); a
 * value that can't be is a MountError.
 */

import { geteuid } from 'node:process'

import { MountError } from '../errors.js'
import { defaultTuning, type Tuning } from './tuning.js'
import { logLevels, type LogLevel } from '../log.js'
import { addMountFlag, isMountFlag } from './mount-flags.js'
import type { IoMode } from '../server/mount.js'
import {
  defaultUnionOptions,
  type OwnerOptions,
  type RedirectDir,
  type UnionOptions,
  type WhiteoutForm,
  type XattrPermissions,
} from '../overlay/options.js'
import {
  hints,
  impliedFlags,
  isForMount8,
  labels,
  notOffered,
  withoutEffect,
} from './option-words.js'
import { parseId, parseRanges } from './owner-options.js'

export interface ParsedOptions {
  union: UnionOptions
  io: IoMode
  /** What /proc/mounts shows as the source. */
  fsname: string | undefined
  /** What /proc/mounts shows after `fuse.`. */
  subtype: string | undefined
  /** Users other than the mounter may enter. `undefined`: as the transport thinks right. */
  allowOther: boolean | undefined
  /** MS_* bits of mount(2). */
  mountFlags: number
  /**
   * How long the kernel may keep names and attributes, in seconds. `undefined`: the transport's
   * own.
   */
  timeout: number | undefined
  tuning: Tuning
  /** `undefined`: as the command line says, or by default. */
  logLevel: LogLevel | undefined
  logFile: string | undefined
  /** The union gets a process of its own. */
  ownServer: boolean
  /** Options nobody here knows or offers, as they were given. */
  ignored: string[]
  /** SELinux labels, as they were given: they go no further. */
  labels: string[]
  /** Sentences for the user about options that have no effect. */
  warnings: string[]
}

const redirectDirs: readonly RedirectDir[] = ['on', 'off', 'follow', 'nofollow']
const whiteouts: readonly WhiteoutForm[] = ['auto', 'char', 'xattr', 'wh']
const ioModes: readonly IoMode[] = ['auto', 'passthrough', 'cached']
const onOff = ['on', 'off'] as const
const bits = ['0', '1'] as const
const levels = ['0', '1', '2'] as const
const xinos = ['off', 'auto', 'on'] as const
const fsyncs = ['1', '0', 'auto', 'volatile'] as const

/** Splits at each `,` that has no backslash before it. Backslashes stay; empty items vanish. */
export const splitOptions = (text: string): string[] =>
  joinLabels(split(text, ',')).filter(item => item !== '')

/** The value of a label may hold commas, between double quotes: `context="u:r:t:s0:c1,c2"`. */
const joinLabels = (items: string[]): string[] => {
  const joined: string[] = []
  for (let i = 0; i < items.length; i++) {
    const item = items[i] ?? ''
    const [name = '', value = ''] = item.split('=', 2)
    let last = i
    if (labels.has(name) && value.startsWith('"') && !/".*"$/s.test(value)) {
      const end = items.findIndex((part, at) => at > i && part.endsWith('"'))
      if (end > i) last = end
    }
    joined.push(items.slice(i, last + 1).join(','))
    i = last
  }
  return joined
}

/** Drops the backslash of every escape, as ovl_unescape() does (`\x` is `x`, whatever x is). */
export const unescapeOption = (text: string): string => text.replaceAll(/\\(.?)/gs, '$1')

/**
 * The layers of a `lowerdir` value, top first, unescaped.
 * @throws {MountError} for an empty path and for `::` (data-only layers)
 */
export const splitLowerdir = (value: string): string[] => {
  if (value === '') throw missingValue('lowerdir')
  const parts = split(value, ':')
  if (parts.some((part, i) => part === '' && i > 0 && i < parts.length - 1)) {
    throw noDataLayers(`lowerdir=${value}`)
  }
  if (parts.includes('')) {
    throw new MountError(
      `lowerdir=${value}: a colon stands at the beginning or the end; remove it, or write \\: where it belongs to a name`,
      { option: 'lowerdir', code: 'EINVAL' },
    )
  }
  return parts.map(unescapeOption)
}

/**
 * @param lists the values of `-o`, in order; they add up, and the last value of a name wins
 * @param cwd what relative paths start from
 * @param uid who mounts
 * @throws {MountError} for a value that can't be; what needs a look at the disk is not checked here
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

  let squashToRoot = false
  const own = (change: OwnerOptions): void => {
    union.owners = { ...union.owners, ...change }
  }
  const tune = (change: Partial<Tuning>): void => {
    parsed.tuning = { ...parsed.tuning, ...change }
  }

  for (const item of lists.flatMap(splitOptions)) {
    const equals = item.indexOf('=')
    const name = equals === -1 ? item : item.slice(0, equals)
    const raw = equals === -1 ? undefined : item.slice(equals + 1)

    switch (name) {
      case 'lowerdir':
        union.lower = splitLowerdir(needValue(name, raw)).map(path => absolute(path, cwd))
        break
      case 'lowerdir+':
        union.lower.push(absolute(unescapeOption(needValue(name, raw)), cwd))
        break
      case 'datadir+':
        throw noDataLayers(item)
      case 'upperdir':
        union.upper = absolute(unescapeOption(needValue(name, raw)), cwd)
        break
      case 'workdir':
        union.work = absolute(unescapeOption(needValue(name, raw)), cwd)
        break
      case 'redirect_dir':
        union.redirectDir = oneOf(name, raw, redirectDirs)
        break
      case 'whiteout':
        union.whiteout = oneOf(name, raw, whiteouts)
        break
      case 'index':
        union.index = oneOf(name, raw, onOff) === 'on'
        break
      case 'userxattr':
        noValue(name, raw)
        union.userxattr = true
        break
      case 'volatile':
        noValue(name, raw)
        union.volatile = true
        break
      case 'io':
        parsed.io = oneOf(name, raw, ioModes)
        break
      case 'fsync':
        switch (oneOf(name, raw, fsyncs)) {
          case '1':
          case 'auto':
            union.fsync = true
            break
          case '0':
            union.fsync = false
            break
          case 'volatile':
            union.volatile = true
        }
        break
      case 'writeback':
        tune({ writeback: oneOf(name, raw, bits) === '1' })
        break
      case 'noxattrs':
        tune({ xattrs: oneOf(name, raw, bits) === '0' })
        break
      case 'noacl':
        noValue(name, raw)
        tune({ acl: false })
        break
      case 'noopen':
        noValue(name, raw)
        tune({ noOpen: true })
        break
      case 'static_nlink':
        noValue(name, raw)
        tune({ staticNlink: true })
        break
      case 'uidmapping':
        own({ uids: parseRanges(name, needValue(name, raw)) })
        break
      case 'gidmapping':
        own({ gids: parseRanges(name, needValue(name, raw)) })
        break
      case 'squash_to_root':
        noValue(name, raw)
        squashToRoot = true
        break
      case 'squash_to_uid':
        own({ squashUid: parseId(name, needValue(name, raw)) })
        break
      case 'squash_to_gid':
        own({ squashGid: parseId(name, needValue(name, raw)) })
        break
      case 'xattr_permissions':
        union.xattrPermissions = Number(oneOf(name, raw, levels)) as XattrPermissions
        break
      case 'max_write':
        tune({ maxWrite: bytes(name, raw) })
        break
      case 'threaded':
        oneOf(name, raw, bits) // what may wait does so beside the others, always
        break
      case 'xino':
        oneOf(name, raw, xinos) // numbers are unique over the layers' file systems, always
        break
      case 'allow_other':
        noValue(name, raw)
        parsed.allowOther = true
        break
      case 'allow_root':
        noValue(name, raw)
        if (uid !== 0) throw notRoot
        parsed.allowOther = false
        break
      case 'default_permissions':
        noValue(name, raw) // always so
        break
      case 'fsname':
        parsed.fsname = unescapeOption(needValue(name, raw))
        break
      case 'subtype':
        parsed.subtype = unescapeOption(needValue(name, raw))
        break
      case 'timeout':
        parsed.timeout = seconds(name, raw)
        break
      case 'own_server':
        noValue(name, raw)
        parsed.ownServer = true
        break
      case 'log_level':
        parsed.logLevel = oneOf(name, raw, logLevels)
        break
      case 'log_file':
        parsed.logFile = absolute(unescapeOption(needValue(name, raw)), cwd)
        break
      default:
        if (raw === undefined && isMountFlag(name)) {
          parsed.mountFlags = addMountFlag(parsed.mountFlags, name)
          if (name === 'ro') union.readOnly = true
          else if (name === 'rw') union.readOnly = false
        } else if (withoutEffect.has(name)) {
          if (raw !== '0' && raw !== '') {
            parsed.warnings.push(`${item} has no effect: ${withoutEffect.get(name)}`)
          }
        } else if (labels.has(name)) {
          parsed.labels.push(item)
        } else if (isForMount8(name)) {
          for (const flag of impliedFlags.get(name) ?? []) {
            parsed.mountFlags = addMountFlag(parsed.mountFlags, flag)
          }
        } else if (!hints.has(name) && notOffered.get(name)?.allowed.includes(raw ?? '') !== true) {
          parsed.ignored.push(item)
        }
    }
  }

  // One of them alone comes before it, wherever it stands.
  if (squashToRoot) union.owners = { squashUid: 0, squashGid: 0, ...union.owners }
  if (union.upper === undefined && union.work !== undefined) {
    parsed.warnings.push(
      `workdir=${union.work} is ignored: a union without upperdir is read-only and needs none`,
    )
    delete union.work
  }
  return parsed
}

/** An absolute path; nothing but the start is changed. */
export const absolute = (path: string, cwd: string): string =>
  path.startsWith('/') ? path : `${cwd === '/' ? '' : cwd}/${path}`

const split = (text: string, separator: string): string[] => {
  const parts: string[] = []
  let from = 0
  for (let i = 0; i < text.length; i++) {
    if (text[i] === '\\') i++
    else if (text[i] === separator) {
      parts.push(text.slice(from, i))
      from = i + 1
    }
  }
  parts.push(text.slice(from))
  return parts
}

/** The kernel lets in the mounter, or everybody. */
const notRoot = new MountError(
  'allow_root: only root can mount so; leave it out, or write allow_other to let everybody in',
  { option: 'allow_root', code: 'EINVAL' },
)

const noDataLayers = (item: string): MountError =>
  new MountError(
    `${item}: data-only layers (:: and datadir+) are not supported; separate layers by one colon`,
    { option: item.split('=', 1)[0] ?? '', code: 'EINVAL' },
  )

const missingValue = (option: string): MountError =>
  new MountError(`${option}: the value is missing; write ${option}=...`, {
    option,
    code: 'EINVAL',
  })

const needValue = (option: string, value: string | undefined): string => {
  if (value === undefined || value === '') throw missingValue(option)
  return value
}

const noValue = (option: string, value: string | undefined): void => {
  if (value === undefined) return
  throw new MountError(`${option}=${value}: this option takes no value; write ${option}`, {
    option,
    code: 'EINVAL',
  })
}

const oneOf = <T extends string>(
  option: string,
  value: string | undefined,
  allowed: readonly T[],
): T => {
  const found = allowed.find(word => word === value)
  if (found !== undefined) return found
  throw new MountError(
    `${option}=${value ?? ''}: not a value of this option; choose one of ${allowed.join(', ')}`,
    { option, code: 'EINVAL' },
  )
}

const seconds = (option: string, value: string | undefined): number => {
  const number = Number(value)
  if (value !== undefined && value !== '' && Number.isFinite(number) && number >= 0) return number
  throw new MountError(
    `${option}=${value ?? ''}: not a number of seconds; write 0 or more, as in ${option}=60`,
    { option, code: 'EINVAL' },
  )
}

const bytes = (option: string, value: string | undefined): number => {
  if (value !== undefined && /^\d{1,10}$/.test(value)) return Number(value)
  throw new MountError(
    `${option}=${value ?? ''}: not a number of bytes; write one, as in ${option}=131072`,
    { option, code: 'EINVAL' },
  )
}
