/** The report as tables. */

import { groupBy, type Report, type Result, type Row } from './results.js'

const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |\n`

const table = (head: readonly string[], rows: readonly (readonly string[])[]): string => {
  const rule = head.map((_, n) => (n === 0 ? '---' : '---:'))
  return line(head) + line(rule) + rows.map(line).join('')
}

/** Three digits are more than such a number is worth. */
export const short = (value: number): string =>
  value >= 100 || value === 0
    ? String(Math.round(value))
    : value.toFixed(value >= 10 ? 1 : value >= 0.1 ? 2 : 3)

const timeCell = (result: Result | undefined, base: string | undefined): string => {
  if (result === undefined) return '–'
  const ratio = base === undefined ? undefined : result.ratios[base]
  const times = ratio === undefined ? '' : ` **${short(ratio)}×**`
  return `${[result.best, result.median, result.longest].map(short).join(' / ')}${times}`
}

const CONDITIONS = {
  pinned: 'all processes on one processor',
  free: 'all processors',
  rootless: 'rootless, all processors',
} as const

/** Rows that were measured under the same conditions, and the file systems that were. */
interface Group {
  title: string
  rows: Row[]
  /** The first one is what the others are compared with. */
  names: string[]
}

export const groups = (report: Report): Group[] =>
  [...groupBy(report.rows, ({ medium, processors }) => `${medium}, ${CONDITIONS[processors]}`)].map(
    ([title, rows]) => ({
      title,
      rows,
      names: report.systems
        .map(({ name }) => name)
        .filter(name => rows.some(row => find(row, name) !== undefined)),
    }),
  )

const find = (row: Row, system: string): Result | undefined =>
  row.results.find(result => result.system === system)

/** A pass that was ended before its time. */
const unfinished = ({ rows }: Group, rounds: number): string => {
  const least = Math.min(...rows.flatMap(({ results }) => results.map(({ ms }) => ms.length)))
  return least >= rounds ? '' : `Some times are of ${least} rounds only.\n\n`
}

const times = ({ rows, names }: Group): string =>
  table(
    ['ms: least / median / most', ...names],
    rows.map(row => [
      `${row.title} (${row.results[0]?.operations ?? 0})`,
      ...names.map(name => timeCell(find(row, name), row.reference ? undefined : names[0])),
    ]),
  )

const isOwn = (name: string): boolean => name.startsWith('tsoverlay')

/** This project's modes against each of the others. */
const ratios = ({ rows, names }: Group): string => {
  const others = names.filter(name => !isOwn(name))
  const pairs = names.filter(isOwn).flatMap(our => others.map(other => [our, other] as const))
  if (pairs.length === 0) return ''
  return `\nHow many times as long as the other one, best against best:\n\n${table(
    ['', ...pairs.map(([our, other]) => `${our} : ${other}`)],
    rows
      .filter(({ reference }) => !reference)
      .map(row => [
        row.title,
        ...pairs.map(([our, other]) => {
          const ratio = find(row, our)?.ratios[other]
          return ratio === undefined ? '–' : short(ratio)
        }),
      ]),
  )}`
}

/** All file systems against all. */
const means = ({ means: all }: Report, { rows: [row], names }: Group): string => {
  if (row === undefined || names.length < 2) return ''
  const here = all.filter(
    ({ medium, processors }) => medium === row.medium && processors === row.processors,
  )
  return `\nGeometric means of these ratios over the rows (how many) that both have; each line's file system to each column's:\n\n${table(
    ['', ...names],
    names.map(name => [
      name,
      ...names.map(other => {
        const mean = here.find(({ system, against }) => system === name && against === other)
        return mean === undefined ? '' : `${short(mean.ratio)} (${mean.rows})`
      }),
    ]),
  )}`
}

const cpu = ({ rows, names }: Group): string => {
  const used = rows.filter(row =>
    row.results.some(({ clientCpu, serverCpu }) => clientCpu + serverCpu > 0),
  )
  if (used.length === 0) return ''
  return `\nProcessor time in ms, client + server, medians (what kernel threads do for them is in neither):\n\n${table(
    ['', ...names],
    used.map(row => [
      row.title,
      ...names.map(name => {
        const result = find(row, name)
        return result === undefined
          ? '–'
          : `${short(result.clientCpu * 1000)} + ${short(result.serverCpu * 1000)}`
      }),
    ]),
  )}`
}

const memory = (report: Report): string => {
  const rows = report.systems.flatMap(({ name }) => {
    const peaks = report.rows
      .map(row => ({ title: row.title, kib: find(row, name)?.peakMemory ?? 0 }))
      .toSorted((a, b) => b.kib - a.kib)
    const [highest] = peaks
    if (highest === undefined || highest.kib === 0) return []
    const lowest = peaks.findLast(({ kib }) => kib > 0)?.kib ?? 0
    return [[name, short(lowest / 1024), short(highest.kib / 1024), highest.title]]
  })
  if (rows.length === 0) return ''
  return `## Peak memory of the server\n\n${table(['', 'least, MiB', 'most, MiB', 'in'], rows)}\n`
}

const perNode = (report: Report): string => {
  if (report.memory.length === 0) return ''
  return `## Memory for each file seen\n\nResident memory of the server before and after a walk with stat, and when the kernel has forgotten all of it. On tmpfs, once.\n\n${table(
    ['', 'files and folders', 'before, MiB', 'after, MiB', 'bytes for each', 'forgotten, MiB'],
    report.memory.map(({ system, nodes, before, after, forgotten }) => [
      system,
      String(nodes),
      short(before / 1024),
      short(after / 1024),
      String(Math.round(((after - before) * 1024) / nodes)),
      short(forgotten / 1024),
    ]),
  )}\n`
}

const requests = (report: Report): string => {
  if (report.requests.length === 0) return ''
  return `## Requests to the server\n\nCounted apart from the times, on tmpfs.\n\n${table(
    ['', 'file system', 'operations', 'requests', 'per operation', 'of these'],
    report.requests.map(({ title, system, operations, total, byOpcode }) => [
      title,
      system,
      String(operations),
      String(total),
      short(total / operations),
      Object.entries(byOpcode)
        .map(([name, count]) => `${name} ${short(count / operations)}`)
        .join(', '),
    ]),
  )}\n`
}

const notMeasured = (report: Report): string => {
  const lines = [
    ...report.leftOut.map(({ name, reason }) => `- ${name}: ${reason}\n`),
    ...report.failures.map(
      ({ system, workload, step, medium, processors, reason }) =>
        `- ${system}: ${workload}, ${step} (${medium}, ${processors}): ${reason}\n`,
    ),
  ]
  if (lines.length === 0) return ''
  return `## Not measured\n\n${lines.join('')}\n`
}

const IMAGE =
  'The file system is mounted anew before each workload: its own caches are cold, but the blocks of its image may be in memory.\n\n'

export const markdown = (report: Report): string => {
  const { rounds, scale } = report.options
  const facts = Object.entries(report.machine).map(([name, value]) => `${name} ${value}`)
  const [base] = report.systems
  const parts = [
    '# Benchmark\n\n',
    `${report.date.slice(0, 10)}, ${rounds} rounds, scale ${scale}; ${facts.join(', ')}.\n\n`,
    scale === 1 ? '' : 'Sizes and counts in titles are those of scale 1.\n\n',
    `The number behind a title is how many operations a time is for; the number in bold is how many times as long as ${base?.name ?? ''}, best against best.\n\n`,
    ...report.systems.map(
      ({ name, version, command, rootlessCommand }) =>
        `- **${name}**: ${version}: \`${command}\`${rootlessCommand === null ? '' : `; rootless: \`${rootlessCommand}\``}\n`,
    ),
    '\n',
    ...groups(report).map(
      group =>
        `## ${group.title}\n\n${unfinished(group, rounds)}${group.rows[0]?.medium === 'tmpfs' ? '' : IMAGE}${times(group)}${ratios(group)}${means(report, group)}${cpu(group)}\n`,
    ),
    requests(report),
    memory(report),
    perNode(report),
    notMeasured(report),
  ]
  return `${parts.join('').trimEnd()}\n`
}
