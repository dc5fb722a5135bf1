/** The table of README.md: medians of tsoverlay, as multiples of the base's medians. */

import type { State } from '../run/records.js'
import { OWN } from '../systems/index.js'
import { baseOf, ratioOf } from './ratios.js'
import type { Report, Row } from './report.js'
import { short, table } from './table.js'

const BEGIN = '<!-- benchmark: written by `npm run bench -- --readme` -->\n\n'
const END = '\n<!-- end of the benchmark -->'

/** Work and step of the rows: a container job, a mount, and the first work in it. */
const ROWS = [
  'containers-8/containers-8',
  'mount/mount',
  'walk/walk',
  'read/read',
  'create/create',
  'chmod-lower/chmod',
  'untar/untar',
  'git/status',
]

/** Title and states of each column. A container job that finds a server is one that is not first. */
const COLUMNS: readonly (readonly [string, readonly State[]])[] = [
  ['first mount', ['first']],
  ['further mount', ['further', 'started']],
  ['steady', ['steady']],
]

/** Values above 1 are emphasized. */
const cellOf = (row: Row, base: string, states: readonly State[]): string => {
  const ratio = states
    .map(state => ratioOf(row, base, OWN, state))
    .find(value => value !== undefined)
  if (ratio === undefined) return ''
  return ratio > 1 ? `**${short(ratio)}**` : short(ratio)
}

/** The text of README.md between the two comments: the pass with all processors. */
export const readmeTables = (report: Report): string => {
  const base = baseOf(report)
  const rows = ROWS.flatMap(key =>
    report.rows.filter(
      ({ processors, work, step }) => processors === 'free' && `${work}/${step}` === key,
    ),
  )
  return table(
    ['', ...COLUMNS.map(([title]) => title)],
    rows.map(row => [row.title, ...COLUMNS.map(([, states]) => cellOf(row, base, states))]),
  )
}

/** The part of a README that the benchmark writes; null if it has none. */
export const partOf = (readme: string): string | null => {
  const [begin, end] = [readme.indexOf(BEGIN), readme.indexOf(END)]
  return begin < 0 || end < begin ? null : readme.slice(begin + BEGIN.length, end)
}

/**
 * Writes the tables into a README.
 * @throws {Error} it has no place for them
 */
export const withTables = (readme: string, tables: string): string => {
  const part = partOf(readme)
  if (part === null) throw new Error('README.md has no place for the tables')
  return readme.replace(BEGIN + part + END, () => BEGIN + tables + END)
}
