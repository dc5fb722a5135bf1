/**
 * The value of `-o`: kernel overlayfs' options and escapes, mount flags, and what FUSE adds. Parsing
 * touches no file; paths come out absolute but otherwise as they were given (no `..` is folded, since
 * the component before it may be a symlink).
 *
 * A name that is not known is returned in `ignored`; a value that can't be is a MountError.
 */

import { MountError } from '../errors.js'
import { addMountFlag, isMountFlag } from '../mount-flags.js'
import type { IoMode } from '../mount.js'
import {
  defaultUnionOptions,
  type RedirectDir,
  type UnionOptions,
  type WhiteoutForm,
} from '../overlay/options.js'

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
  /** How long the kernel may keep names and attributes, in seconds. `undefined`: the transport's own. */
  timeout: number | undefined
  /** Options nobody here knows, as they were given. */
  ignored: string[]
  /** Sentences for the user about options that have no effect. */
  warnings: string[]
}

const redirectDirs: readonly RedirectDir[] = ['on', 'off', 'follow', 'nofollow']
const whiteouts: readonly WhiteoutForm[] = ['auto', 'char', 'xattr', 'wh']
const ioModes: readonly IoMode[] = ['auto', 'passthrough', 'cached']
const onOff = ['on', 'off'] as const

/** Words of fstab lines: they speak to mount(8), not to a file system. */
const fstabWords = new Set([
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
])

/** Splits at each `,` that has no backslash before it. Backslashes stay; empty items vanish. */
export const splitOptions = (text: string): string[] => split(text, ',').filter(item => item !== '')

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
    throw new MountError(
      `lowerdir=${value}: data-only layers (::) are not supported; separate layers by one colon`,
      { option: 'lowerdir', code: 'EINVAL' },
    )
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
 * @throws {MountError} for a value that can't be; what needs a look at the disk is not checked here
 */
export const parseMountOptions = (lists: readonly string[], cwd: string): ParsedOptions => {
  const union: UnionOptions = { ...defaultUnionOptions, lower: [] }
  const parsed: ParsedOptions = {
    union,
    io: 'auto',
    fsname: undefined,
    subtype: undefined,
    allowOther: undefined,
    mountFlags: 0,
    timeout: undefined,
    ignored: [],
    warnings: [],
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
      case 'allow_other':
        noValue(name, raw)
        parsed.allowOther = true
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
      default:
        if (raw === undefined && isMountFlag(name)) {
          parsed.mountFlags = addMountFlag(parsed.mountFlags, name)
          if (name === 'ro') union.readOnly = true
          else if (name === 'rw') union.readOnly = false
        } else if (!isForMount8(name)) {
          parsed.ignored.push(item)
        }
    }
  }

  if (union.upper === undefined && union.work !== undefined) {
    parsed.warnings.push(
      `workdir=${union.work} is ignored: a union without upperdir is read-only and needs none`,
    )
    delete union.work
  }
  return parsed
}

const isForMount8 = (name: string): boolean =>
  fstabWords.has(name) || name.startsWith('x-') || name.startsWith('X-') || name === 'comment'

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
