/** Words for mount flags, and the MS_* bits of mount(2) that each one sets and clears. */

import { rows, type Assert, type RowOf, type Same } from './table.js'
import type { MountFlag } from './types.js'

/** Compile-time: the table has all flags of the library's type. */
export type FlagsAreThoseOfTheTable = Assert<Same<RowOf<'flag'>['names'][number], MountFlag>>

const bits: ReadonlyMap<string, readonly [set: number, clear: number]> = new Map(
  rows
    .filter(row => row.fate === 'flag')
    .flatMap(row => row.names.map((name, i) => [name, row.bits[i] ?? [0, 0]] as const)),
)

export const isMountFlag = (word: string): word is MountFlag => bits.has(word)

/** The MS_* bits after another word; a later word overrides an earlier one. */
export const addMountFlag = (flags: number, word: MountFlag): number => {
  const [set, clear] = bits.get(word) ?? [0, 0]
  return (flags & ~clear) | set
}
