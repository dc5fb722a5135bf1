/** Formats the report as Markdown tables. */

import type { Pass } from '../run/options.js'
import type { State } from '../run/records.js'
import { OWN } from '../systems/index.js'
import { baseOf, find, ratioOf } from './ratios.js'
import type { Report, Row } from './report.js'
import { geometricMean } from './statistics.js'
import { short, table } from './table.js'

const CONDITIONS: Readonly<Record<Pass, string>> = {
  free: 'All processors',
  pinned: 'All processes on one processor',
  rootless: 'Rootless, all processors',
}

interface Column {
  title: string
  /** Empty if there is no value. */
  cell: (row: Row) => string
  /** The value for the column's mean. */
  ratio?: (row: Row) => number | undefined
}

const tableOf = (rows: readonly Row[], columns: readonly Column[]): string => {
  const used = columns.filter(({ cell }) => rows.some(row => cell(row) !== ''))
  const means = used.map(({ ratio }) => {
    const ratios = rows.flatMap(row => ratio?.(row) ?? [])
    return ratios.length < 2 ? '' : `${short(geometricMean(ratios))} (${ratios.length})`
  })
  const body = rows.map(row => [row.title, ...used.map(({ cell }) => cell(row))])
  if (means.some(mean => mean !== '')) body.push(['geometric mean (of rows)', ...means])
  return table(['', ...used.map(({ title }) => title)], body)
}

const both = (median: number | undefined, least: number | undefined): string =>
  median === undefined || least === undefined ? '' : `${short(median)} / ${short(least)}`

const milliseconds = (title: string, system: string, state: State): Column => ({
  title,
  cell(row) {
    const result = find(row, system, state)
    return both(result?.median, result?.least)
  },
})

const multiples = (title: string, base: string, system: string, state: State): Column => ({
  title,
  cell: row => both(ratioOf(row, base, system, state), ratioOf(row, base, system, state, 'least')),
  ratio: row => ratioOf(row, base, system, state),
})

const cpu = (title: string, base: string, state: State): Column => ({
  title,
  cell(row) {
    const ratio = ratioOf(row, base, OWN, state, 'cpu')
    return ratio === undefined ? '' : short(ratio)
  },
  ratio: row => ratioOf(row, base, OWN, state, 'cpu'),
})

const held = (title: string, system: string, state: State): Column => ({
  title,
  cell(row) {
    const { memory = 0, processes, threads } = find(row, system, state) ?? {}
    return memory === 0 ? '' : `${short(memory / 1024)}, ${processes}, ${threads}`
  },
})

/** The states of tsoverlay and their column titles. */
const WORK_STATES = [
  ['first', 'first'],
  ['further', 'further'],
] as const satisfies readonly (readonly [State, string])[]
const CONTAINER_STATES = [
  ['first', 'cold'],
  ['started', 'server start'],
  ['cgroups', 'own cgroups'],
] as const satisfies readonly (readonly [State, string])[]

const times = (report: Report, isContainer: boolean): readonly Column[] => {
  const base = baseOf(report)
  const others = report.systems
    .map(({ name }) => name)
    .filter(name => name !== base && name !== OWN)
  const states = isContainer ? CONTAINER_STATES : WORK_STATES
  return [
    milliseconds(`${base}, ms`, base, 'first'),
    ...states.map(([state, title]) => multiples(title, base, OWN, state)),
    ...others.map(name => multiples(name, base, name, 'first')),
    milliseconds(`steady: ${base}, ms`, base, 'steady'),
    multiples(OWN, base, OWN, 'steady'),
    ...others.map(name => multiples(name, base, name, 'steady')),
  ]
}

const resources = (report: Report, isContainer: boolean): readonly Column[] => {
  const base = baseOf(report)
  const states = isContainer ? CONTAINER_STATES : WORK_STATES
  return [
    { title: `${base}: CPU ms`, cell: row => short(find(row, base, 'first')?.cpu ?? 0) },
    ...states.map(([state, title]) => cpu(title, base, state)),
    cpu('steady', base, 'steady'),
    held(`${base}: MiB, processes, threads`, base, 'first'),
    ...states.map(([state, title]) => held(title, OWN, state)),
  ]
}

const RESOURCES = `Processor time of all processes, with that of the mount command where the mount is fresh; and what servers hold when the work is done
(memory in MiB, processes, threads):

`

const HOW = `Times are medians / least of all rounds: those of the file system that all are compared with in milliseconds, the others in
multiples of them. _first_: in a server of tsoverlay that has just been started; _further_: in one that has served a mount before;
_steady_: the same work again in the same mount, on other files. Other file systems start a process for each mount, or none.

`

const notMeasured = ({ leftOut, failures }: Report): string => {
  const lines = [
    ...leftOut.map(({ name, reason }) => `- ${name}: ${reason}\n`),
    ...failures.map(
      ({ system, work, step, processors, reason }) =>
        `- ${system}: ${work}, ${step} (${processors}): ${reason}\n`,
    ),
  ]
  return lines.length === 0 ? '' : `## Not measured\n\n${lines.join('')}\n`
}

const passOf = (report: Report, pass: Pass): string => {
  const rows = report.rows.filter(({ processors }) => processors === pass)
  const parts = [true, false]
    .map(isContainer => ({
      isContainer,
      rows: rows.filter(({ mounts }) => (mounts === 0) === isContainer),
    }))
    .filter(part => part.rows.length > 0)
  return [
    `## ${CONDITIONS[pass]}\n\n`,
    ...parts.map(part => `${tableOf(part.rows, times(report, part.isContainer))}\n`),
    RESOURCES,
    ...parts.map(part => `${tableOf(part.rows, resources(report, part.isContainer))}\n`),
  ].join('')
}

export const markdown = (report: Report): string => {
  const { rounds, scale, medium, option } = report.options
  const facts = Object.entries(report.machine).map(([name, value]) => `${name} ${value}`)
  const passes = [...new Set(report.rows.map(({ processors }) => processors))]
  const parts = [
    '# Benchmark\n\n',
    `${report.date.slice(0, 10)}, ${medium}, ${rounds} rounds, scale ${scale}${option === '' ? '' : `, tsoverlay with ${option}`}; ${facts.join(', ')}.\n\n`,
    scale === 1 ? '' : 'Sizes and counts in titles are those of scale 1.\n\n',
    ...report.systems.map(
      ({ name, version, command }) => `- **${name}**: ${version}: \`${command}\`\n`,
    ),
    `\n${HOW}`,
    ...passes.map(pass => passOf(report, pass)),
    notMeasured(report),
  ]
  return `${parts.join('').trimEnd()}\n`
}
