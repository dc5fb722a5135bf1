/** Times as multiples of those of one file system. */

import type { State } from '../run/records.js'
import { BASE } from '../systems/index.js'
import type { Report, Row } from './report.js'
import type { Result } from './statistics.js'

/** What the others are compared with: fuse-overlayfs, or, without it, the first of them. */
export const baseOf = ({ systems }: Pick<Report, 'systems'>): string =>
  systems.find(({ name }) => name === BASE)?.name ?? systems[0]?.name ?? ''

export const find = (
  { results }: Pick<Row, 'results'>,
  system: string,
  state: State,
): Result | undefined => results.find(result => result.system === system && result.state === state)

/**
 * How many times as long as the base in the same state it takes; undefined: one of them was not
 * measured.
 */
export const ratioOf = (
  row: Pick<Row, 'results'>,
  base: string,
  system: string,
  state: State,
  key: 'median' | 'least' | 'cpu' = 'median',
): number | undefined => {
  // No mount of the base knows of others: each is its first one.
  const [own, other] = [
    find(row, system, state),
    find(row, base, state === 'steady' ? state : 'first'),
  ]
  return own === undefined || other === undefined || other[key] === 0
    ? undefined
    : own[key] / other[key]
}
