/** The tables of README.md: medians of tsoverlay, as multiples of the base's medians. */

import type { Pass } from '../run/options.js'
import type { State } from '../run/records.js'
import { OWN } from '../systems/index.js'
import { baseOf, ratioOf } from './ratios.js'
import type { Report, Row } from './report.js'
import { short, table } from './table.js'

const BEGIN = '<!-- benchmark: written by `npm run bench -- --readme` -->\n\n'
const END = '\n<!-- end of the benchmark -->'

const PASSES = ['free', 'pinned'] as const satisfies readonly Pass[]

const keyOf = ({ work, step }: Row): string => `${work}\n${step}`

/** Formats one line for each row, with the value of each pass. Values above 1 are emphasized. */
const tableOf = (
  report: Report,
  isIn: (row: Row) => boolean,
  states: readonly (readonly [State, string])[],
): string => {
  const base = baseOf(report)
  const rows = report.rows.filter(isIn)
  const cell = (key: string, pass: Pass, state: State): string => {
    const row = rows.find(one => keyOf(one) === key && one.processors === pass)
    const ratio = row && ratioOf(row, base, OWN, state)
    if (ratio === undefined) return ''
    return ratio > 1 ? `**${short(ratio)}**` : short(ratio)
  }
  const titles = new Map(rows.map(row => [keyOf(row), row.title]))
  const columns = PASSES.flatMap(pass =>
    states.map(([state, title]) => ({
      title: `${pass}: ${title}`,
      cells: [...titles.keys()].map(key => cell(key, pass, state)),
    })),
  ).filter(({ cells }) => cells.some(text => text !== ''))
  if (columns.length === 0) return ''
  return table(
    ['', ...columns.map(({ title }) => title)],
    [...titles.values()].map((title, n) => [title, ...columns.map(({ cells }) => cells[n] ?? '')]),
  )
}

/** The text of README.md between the two comments. */
export const readmeTables = (report: Report): string =>
  [
    tableOf(report, ({ mounts }) => mounts === 0, [
      ['first', 'cold'],
      ['started', 'server start'],
      ['cgroups', 'own cgroups'],
    ]),
    tableOf(report, ({ mounts }) => mounts > 0, [
      ['first', 'first'],
      ['further', 'further'],
      ['steady', 'steady'],
    ]),
  ]
    .filter(text => text !== '')
    .join('\n')

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
