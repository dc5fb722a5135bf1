/** Times as multiples of the times of one file system. */

import type { State } from '../run/records.js'
import { BASE } from '../systems/index.js'
import type { Report, Row } from './report.js'
import type { Result } from './statistics.js'

/**
 * The file system that the others are compared with: fuse-overlayfs, or the first one without it.
 */
export const baseOf = ({ systems }: Pick<Report, 'systems'>): string =>
  systems.find(({ name }) => name === BASE)?.name ?? systems[0]?.name ?? ''

export const find = (
  { results }: Pick<Row, 'results'>,
  system: string,
  state: State,
): Result | undefined => results.find(result => result.system === system && result.state === state)

/**
 * The time as a multiple of the base's time in the same state; undefined if one of them was not
 * measured.
 */
export const ratioOf = (
  row: Pick<Row, 'results'>,
  base: string,
  system: string,
  state: State,
  key: 'median' | 'least' | 'cpu' = 'median',
): number | undefined => {
  // The base has no server that a mount could share, so each of its mounts is `first`.
  const [own, other] = [
    find(row, system, state),
    find(row, base, state === 'steady' ? state : 'first'),
  ]
  return own === undefined || other === undefined || other[key] === 0
    ? undefined
    : own[key] / other[key]
}
