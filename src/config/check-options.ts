/** Checks of the library's arguments at run time: unknown keys, and values of a wrong type. */

import { MountError } from '../errors.js'
import { isMountFlag } from './mount-flags.js'
import { rows, type TableRow, type ValueKind } from './table.js'

type Check = (value: unknown) => boolean
/** The required kind of value in words, and its check. */
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

/** The library's rule for an option whose value in `-o` is one of some words. */
const ruleOfWords = (words: readonly string[]): Rule => {
  if (words.toSorted().join() === 'off,on') return yesOrNo
  return words.every(word => /^\d+$/.test(word)) ? oneOf(...words.map(Number)) : oneOf(...words)
}

const ruleOfKind: { readonly [K in Exclude<ValueKind, readonly string[]>]: Rule } = {
  none: yesOrNo,
  path,
  // host/validate.ts reports an empty list.
  paths: [
    'the path of a directory, or a list of paths',
    value => (Array.isArray(value) ? value.every(path[1]) : path[1](value)),
  ],
  text: ['a string that is not empty', value => isString(value) && value !== ''],
  any: ['a string', isString],
  // checkRanges and checkId (ids.ts) check the numbers.
  ranges: [
    'a list of { disk, shown, length }',
    isList(
      value =>
        isObject(value) &&
        Object.keys(value).toSorted().join() === 'disk,length,shown' &&
        Object.values(value).every(number => typeof number === 'number'),
    ),
  ],
  id: ['an id, a number', value => typeof value === 'number'],
  seconds: [
    'a number of seconds, 0 or more',
    value => typeof value === 'number' && Number.isFinite(value) && value >= 0,
  ],
  bytes: ['a number of bytes', value => typeof value === 'number'],
  flags: [
    'a list of mount flags (MountFlag)',
    isList(value => typeof value === 'string' && isMountFlag(value)),
  ],
  logger: [
    'an object with debug, info, warn, error and isLevelEnabled',
    value =>
      isObject(value) &&
      ['debug', 'info', 'warn', 'error', 'isLevelEnabled'].every(
        method => typeof value[method] === 'function',
      ),
  ],
}

const ruleOf = (kind: ValueKind): Rule =>
  typeof kind === 'string' ? ruleOfKind[kind] : ruleOfWords(kind)

type KeyRow = Extract<TableRow, { readonly key: string }>
const hasKey = (row: TableRow): row is KeyRow => 'key' in row

/** One rule for each key of MountOptions. */
const rules: Readonly<Record<string, Rule>> = Object.fromEntries(
  rows.filter(hasKey).map(row => [row.key, ruleOf(row.value)]),
)

const required = rows
  .filter(hasKey)
  .filter(row => row.default === 'required')
  .map(row => row.key)

const wrong = (option: string, message: string): MountError =>
  new MountError(message, { option, code: 'EINVAL' })

const shown = (value: unknown): string => {
  try {
    return typeof value === 'function' ? 'a function' : (JSON.stringify(value) ?? String(value))
  } catch {
    return typeof value // a BigInt, or a cyclic object
  }
}

/** @throws {MountError} it names the key */
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
