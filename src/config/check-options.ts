/**
 * What a caller of the library may have passed that its types do not allow: a key that is not
 * known, a wrong type.
 */

import { MountError } from '../errors.js'
import { logLevels } from '../log.js'
import { isMountFlag } from './mount-flags.js'
import type { MountOptions } from '../server/mount.js'

type Check = (value: unknown) => boolean
/** What a value has to be, in words, and whether it is that. */
type Rule = readonly [what: string, check: Check]

const isString: Check = value => typeof value === 'string'
const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
const isList =
  (check: Check): Check =>
  value =>
    Array.isArray(value) && value.every(check)
const oneOf = (...words: readonly unknown[]): Rule => [
  `one of ${words.map(String).join(', ')}`,
  value => words.includes(value),
]

const path: Rule = [
  'the path of a directory, a string that is not empty',
  value => typeof value === 'string' && value !== '' && !value.includes('\0'),
]
const yesOrNo: Rule = ['true or false', value => typeof value === 'boolean']
const name: Rule = ['a string that is not empty', value => isString(value) && value !== '']
/** Their numbers are looked at where they are used (overlay/owner/idmap.ts). */
const ranges: Rule = [
  'a list of { disk, shown, length }',
  isList(
    value =>
      isObject(value) &&
      Object.keys(value).toSorted().join() === 'disk,length,shown' &&
      Object.values(value).every(number => typeof number === 'number'),
  ),
]
const id: Rule = ['an id, a number', value => typeof value === 'number']

/** One rule for each key of MountOptions. */
const rules: { readonly [K in keyof Required<MountOptions>]: Rule } = {
  // None at all is said by who looks at the layers (host/validate.ts).
  lower: [
    'the path of a directory, or a list of paths',
    value => (Array.isArray(value) ? value.every(path[1]) : path[1](value)),
  ],
  upper: path,
  work: path,
  mountpoint: path,
  readOnly: yesOrNo,
  redirectDir: oneOf('on', 'off', 'follow', 'nofollow'),
  whiteout: oneOf('auto', 'char', 'xattr', 'wh'),
  index: yesOrNo,
  userxattr: yesOrNo,
  volatile: yesOrNo,
  uidMapping: ranges,
  gidMapping: ranges,
  squashToUid: id,
  squashToGid: id,
  squashToRoot: yesOrNo,
  xattrPermissions: oneOf(0, 1, 2),
  io: oneOf('auto', 'passthrough', 'cached'),
  noOpen: yesOrNo,
  transport: oneOf('kernel', 'fuse-native'),
  fsname: name,
  subtype: name,
  allowOther: yesOrNo,
  flags: [
    'a list of mount flags (MountFlag)',
    isList(value => typeof value === 'string' && isMountFlag(value)),
  ],
  timeout: [
    'a number of seconds, 0 or more',
    value => typeof value === 'number' && Number.isFinite(value) && value >= 0,
  ],
  logger: [
    'an object with debug, info, warn, error and isLevelEnabled',
    value =>
      isObject(value) &&
      ['debug', 'info', 'warn', 'error', 'isLevelEnabled'].every(
        method => typeof value[method] === 'function',
      ),
  ],
  logLevel: oneOf(...logLevels),
}

const required = ['lower', 'mountpoint'] as const

const wrong = (option: string, message: string): MountError =>
  new MountError(message, { option, code: 'EINVAL' })

const shown = (value: unknown): string => {
  try {
    return typeof value === 'function' ? 'a function' : (JSON.stringify(value) ?? String(value))
  } catch {
    return typeof value // a BigInt, or something that contains itself
  }
}

/** @throws {MountError} which names the key */
const check = (
  where: string,
  options: unknown,
  known: Readonly<Record<string, Rule>>,
  needed: readonly string[],
): void => {
  if (!isObject(options)) throw wrong('options', `${where}: pass an object, not ${shown(options)}`)
  for (const [key, value] of Object.entries(options)) {
    const rule = Object.hasOwn(known, key) ? known[key] : undefined
    if (rule === undefined) {
      throw wrong(key, `${key}: no such option; ${where} knows ${Object.keys(known).join(', ')}`)
    }
    const [what, isRight] = rule
    if (value === undefined && !needed.includes(key)) continue
    if (!isRight(value)) throw wrong(key, `${key}: ${shown(value)} is not ${what}`)
  }
  for (const key of needed) {
    if (options[key] === undefined) throw wrong(key, `${key} is missing: ${known[key]?.[0]}`)
  }
}

/**
 * Checks the argument of `mount()`.
 * @throws {MountError}
 */
export const checkMountOptions = (options: unknown): void =>
  check('mount()', options, rules, required)

/**
 * Checks the argument of `Mount.unmount()`.
 * @throws {MountError}
 */
export const checkUnmountOptions = (options: unknown): void =>
  check('unmount()', options, { lazy: yesOrNo }, [])
