/** Reads the value of a mount option according to its kind in the table. */

import { MountError } from '../errors.js'
import type { IdRange } from '../overlay/options.js'
import { checkId, checkRanges } from './ids.js'
import { absolute, missingValue, splitLowerdir, unescapeOption } from './syntax.js'
import type { ValueKind } from './table.js'

/** The type of an option's value after reading. */
export type ValueOf<K extends ValueKind> = K extends readonly (infer W)[]
  ? W
  : K extends 'none'
    ? true
    : K extends 'path' | 'text' | 'any'
      ? string
      : K extends 'paths'
        ? string[]
        : K extends 'ranges'
          ? IdRange[]
          : K extends 'id' | 'seconds' | 'bytes'
            ? number
            : never

const wrong = (option: string, message: string): MountError =>
  new MountError(message, { option, code: 'EINVAL' })

const needValue = (option: string, value: string | undefined): string => {
  if (value === undefined || value === '') throw missingValue(option)
  return value
}

const noValue = (option: string, value: string | undefined): true => {
  if (value === undefined) return true
  throw wrong(option, `${option}=${value}: this option takes no value; write ${option}`)
}

const oneOf = (option: string, value: string | undefined, allowed: readonly string[]): string => {
  const found = allowed.find(word => word === value)
  if (found !== undefined) return found
  throw wrong(
    option,
    `${option}=${value ?? ''}: not a value of this option; choose one of ${allowed.join(', ')}`,
  )
}

const seconds = (option: string, value: string | undefined): number => {
  const number = Number(value)
  if (value !== undefined && value !== '' && Number.isFinite(number) && number >= 0) return number
  throw wrong(
    option,
    `${option}=${value ?? ''}: not a number of seconds; write 0 or more, as in ${option}=60`,
  )
}

const bytes = (option: string, value: string | undefined): number => {
  if (value !== undefined && /^\d{1,10}$/.test(value)) return Number(value)
  throw wrong(
    option,
    `${option}=${value ?? ''}: not a number of bytes; write one, as in ${option}=131072`,
  )
}

/**
 * DISK:SHOWN:LENGTH, repeated with colons. A leading colon, which containers/storage writes, is
 * ignored.
 * @throws {MountError}
 */
const parseRanges = (option: string, value: string): IdRange[] => {
  const given = `${option}=${value}`
  const words = value.split(':')
  if (words[0] === '') words.shift()
  if (words.length === 0 || words.length % 3 !== 0 || !words.every(word => /^\d+$/.test(word))) {
    throw wrong(
      option,
      `${given}: not triples of numbers; write DISK:SHOWN:LENGTH, several joined by colons, as in ${option}=0:1000:1:1:100000:65536`,
    )
  }
  const numbers = words.map(Number)
  const ranges: IdRange[] = []
  for (let i = 0; i < numbers.length; i += 3) {
    const [disk = 0, shown = 0, length = 0] = numbers.slice(i, i + 3)
    ranges.push({ disk, shown, length })
  }
  checkRanges(option, given, ranges)
  return ranges
}

/** @throws {MountError} */
const parseId = (option: string, value: string): number => {
  const id = /^\d+$/.test(value) ? Number(value) : Number.NaN
  checkId(option, `${option}=${value}`, id)
  return id
}

/**
 * @param raw the text behind `=`; undefined without `=`
 * @param cwd the base of relative paths
 * @returns `ValueOf` that kind
 * @throws {MountError} it names the option
 */
export const readValue = (
  kind: ValueKind,
  name: string,
  raw: string | undefined,
  cwd: string,
): unknown => {
  if (typeof kind !== 'string') return oneOf(name, raw, kind)
  switch (kind) {
    case 'none':
      return noValue(name, raw)
    case 'path':
      return absolute(unescapeOption(needValue(name, raw)), cwd)
    case 'paths':
      return splitLowerdir(needValue(name, raw)).map(path => absolute(path, cwd))
    case 'text':
      return unescapeOption(needValue(name, raw))
    case 'ranges':
      return parseRanges(name, needValue(name, raw))
    case 'id':
      return parseId(name, needValue(name, raw))
    case 'seconds':
      return seconds(name, raw)
    case 'bytes':
      return bytes(name, raw)
    case 'any':
    case 'flags':
    case 'logger':
      return raw
  }
}
