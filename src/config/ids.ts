/** Checks of user and group ids, and of ranges of them. */

import { MountError } from '../errors.js'
import type { IdRange } from '../overlay/options.js'

/** (uid_t)-1 is not an id: chown(2) leaves the owner unchanged. */
const NO_ID = 0xffff_ffff
const ID_MAX = NO_ID - 1

/**
 * Checks that all numbers are ids, that no range is empty, and that no id is in two ranges.
 *
 * @param option the option for the error
 * @param given the option as given
 * @throws {MountError}
 */
export function checkRanges(option: string, given: string, ranges: readonly IdRange[]): void {
  const wrong = (what: string): MountError =>
    new MountError(`${given}: ${what}`, { option, code: 'EINVAL' })
  for (const range of ranges) {
    const { disk, shown, length } = range
    const name = textOf(range)
    if (![disk, shown, length].every(n => Number.isSafeInteger(n) && n >= 0 && n <= NO_ID))
      throw wrong(`${name} has something that is no id; write numbers from 0 to ${ID_MAX}`)
    if (length === 0) throw wrong(`${name} maps nothing; give it a length of 1 or more`)
    if (disk + length > NO_ID || shown + length > NO_ID)
      throw wrong(`${name} goes beyond the last id, ${ID_MAX}; give it a smaller length`)
  }
  for (const side of ['disk', 'shown'] as const) {
    const sorted = ranges.toSorted((a, b) => a[side] - b[side])
    for (const [i, range] of sorted.entries()) {
      const next = sorted[i + 1]
      if (next === undefined || range[side] + range.length <= next[side]) continue
      const where = side === 'disk' ? 'on disk' : 'as shown'
      throw wrong(
        `${textOf(range)} and ${textOf(next)} overlap ${where}; each id may be in one range only`,
      )
    }
  }
}

const textOf = ({ disk, shown, length }: IdRange): string => `${disk}:${shown}:${length}`

/** @throws {MountError} */
export function checkId(option: string, given: string, id: number): void {
  if (Number.isSafeInteger(id) && id >= 0 && id <= ID_MAX) return
  throw new MountError(`${given}: not an id; write a number from 0 to ${ID_MAX}`, {
    option,
    code: 'EINVAL',
  })
}
