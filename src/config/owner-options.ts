/** The values of options that say whom files belong to. */

import { MountError } from '../errors.js'
import type { IdRange } from '../overlay/options.js'
import { checkId, checkRanges } from '../overlay/owner/idmap.js'

/**
 * DISK:SHOWN:LENGTH, several joined by colons. A colon at the beginning says nothing:
 * containers/storage writes one.
 * @throws {MountError}
 */
export const parseRanges = (option: string, value: string): IdRange[] => {
  const given = `${option}=${value}`
  const words = value.split(':')
  if (words[0] === '') words.shift()
  if (words.length === 0 || words.length % 3 !== 0 || !words.every(word => /^\d+$/.test(word))) {
    throw new MountError(
      `${given}: not triples of numbers; write DISK:SHOWN:LENGTH, several joined by colons, as in ${option}=0:1000:1:1:100000:65536`,
      { option, code: 'EINVAL' },
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
export const parseId = (option: string, value: string): number => {
  const id = /^\d+$/.test(value) ? Number(value) : Number.NaN
  checkId(option, `${option}=${value}`, id)
  return id
}
