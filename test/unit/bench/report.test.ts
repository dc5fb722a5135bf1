/**
 * The benchmark's report: from samples to tables. Which numbers a machine has is nobody's business
 * here.
 */

import * as fs from 'node:fs'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { parseStat } from '../../../bench/measure/processes.js'
import { markdown } from '../../../bench/report/markdown.js'
import { baseOf, ratioOf } from '../../../bench/report/ratios.js'
import { partOf, readmeTables, withTables } from '../../../bench/report/readme.js'
import { rowsOf, serialized, type Report } from '../../../bench/report/report.js'
import { geometricMean, median, resultsOf, rounded } from '../../../bench/report/statistics.js'
import { short, table } from '../../../bench/report/table.js'
import { turnsIn } from '../../../bench/run/options.js'
import type { Sample } from '../../../bench/run/records.js'

const sample = (
  system: string,
  state: Sample['state'],
  ms: number,
  more: Partial<Sample> = {},
): Sample => ({
  type: 'sample',
  work: 'walk',
  step: 'walk',
  system,
  state,
  operations: 10,
  ms,
  cpu: ms / 1000,
  memory: 2048,
  processes: 1,
  threads: 3,
  ...more,
})

const samples: Sample[] = [
  sample('fuse-overlayfs', 'first', 10),
  sample('tsoverlay', 'first', 40),
  sample('tsoverlay', 'further', 5),
  sample('tsoverlay', 'steady', 2),
  sample('fuse-overlayfs', 'first', 30),
  sample('fuse-overlayfs', 'steady', 8),
  sample('tsoverlay', 'first', 20),
]
const container = { work: 'containers-8', step: 'containers-8' }
const ofContainers: Sample[] = [
  sample('fuse-overlayfs', 'first', 1000, container),
  sample('tsoverlay', 'first', 1500, container),
  sample('tsoverlay', 'started', 900, container),
]

const report = (rows: Report['rows']): Report => ({
  date: '2026-01-02T03:04:05.678Z',
  machine: { kernel: '6.1' },
  options: { medium: 'tmpfs', rounds: 2, scale: 1, option: '' },
  systems: ['kernel', 'fuse-overlayfs', 'tsoverlay'].map(name => ({
    name,
    version: '1',
    command: name,
  })),
  rows,
  failures: [
    { processors: 'free', work: 'walk', step: 'walk', system: 'kernel', reason: 'no time' },
  ],
  leftOut: [{ name: 'git', reason: 'it needs git' }],
})

t.test('statistics', async t => {
  t.equal(median([3, 1, 2]), 2)
  t.equal(median([4, 1, 2, 3]), 2.5)
  t.equal(median([]), 0)
  t.equal(geometricMean([1, 4]), 2)
  t.equal(rounded(1.23456), 1.235)
  const [base, first] = resultsOf(samples)
  t.match(base, { system: 'fuse-overlayfs', state: 'first', ms: [10, 30], median: 20, least: 10 })
  t.match(first, { system: 'tsoverlay', state: 'first', ms: [40, 20], median: 30, cpu: 30 })
})

t.test('ratios are those of one state, and no mount of the base knows of others', async t => {
  const row = { results: resultsOf(samples) }
  const ratio = (state: Sample['state'], key?: 'least' | 'cpu') =>
    ratioOf(row, 'fuse-overlayfs', 'tsoverlay', state, key)
  t.equal(ratio('first'), 1.5)
  t.equal(ratio('first', 'least'), 2)
  t.equal(ratio('further'), 0.25)
  t.equal(ratio('steady'), 0.25)
  t.equal(ratio('started'), undefined, 'not measured')
  t.equal(baseOf(report([])), 'fuse-overlayfs')
  t.equal(baseOf({ systems: [{ name: 'kernel', version: '', command: '' }] }), 'kernel')
})

t.test('a table can be read as it stands', async t => {
  t.equal(
    table(['', 'a', 'longer'], [['title', '1', '2']]),
    '|       |    a | longer |\n| ----- | ---: | -----: |\n| title |    1 |      2 |\n',
  )
  t.strictSame([0, 0.123, 1, 12.34, 123.4].map(short), ['0', '0.12', '1.00', '12.3', '123'])
})

t.test('rows stand in the order of the works, and only those that somebody has', async t => {
  const rows = rowsOf('free', [...samples, ...ofContainers])
  t.strictSame(
    rows.map(({ work, mounts }) => [work, mounts]),
    [
      ['containers-8', 0],
      ['walk', 1],
    ],
  )
})

t.test('the report as tables', async t => {
  const all = [...samples, ...ofContainers]
  const whole = report([...rowsOf('free', all), ...rowsOf('pinned', samples)])
  const text = markdown(whole)
  t.match(text, /^## All processors$[^]*^## All processes on one processor$/m)
  t.match(text, /^\| walk with stat of 2,000 files \| +20\.0 \/ 10\.0 \| 1\.50 \/ 2\.00 \|/m)
  t.match(text, /^\| 8 short containers[^|]*\| +1000 \/ 1000 \| 1\.50 \/ 1\.50 \|/m)
  t.match(text, /^- git: it needs git$/m)
  t.match(text, /^- kernel: walk, walk \(free\): no time$/m)
  t.strictSame(JSON.parse(serialized(whole)), whole)
})

t.test('the tables of README.md', async t => {
  const whole = report([
    ...rowsOf('free', [...samples, ...ofContainers]),
    ...rowsOf('pinned', samples),
  ])
  const tables = readmeTables(whole)
  t.match(tables, /^\| 8 short containers[^|]*\| +\*\*1\.50\*\* \| +0\.90 \|/m)
  t.match(tables, /^\| walk with stat of 2,000 files +\| +\*\*1\.50\*\* \| +0\.25 \| +0\.25 \|$/m)

  const readme =
    'before\n<!-- benchmark: written by `npm run bench -- --readme` -->\n\nold\n<!-- end of the benchmark -->\nafter\n'
  const written = withTables(readme, tables)
  t.equal(partOf(written), tables)
  t.match(written, /^before\n[^]*\nafter\n$/)
  t.throws(() => withTables('no place', tables))
})

t.test('README.md has the tables of the newest run', async t => {
  const root = fileURLToPath(new URL('../../../', import.meta.url))
  const part = partOf(fs.readFileSync(`${root}README.md`, 'utf8'))
  t.not(part, null, 'there is a place for them')
  const file = `${root}bench/results/latest/report.json`
  if (!fs.existsSync(file)) return
  t.equal(part, readmeTables(JSON.parse(fs.readFileSync(file, 'utf8')) as Report))
})

const turns = (rounds: number, all?: number): number[] =>
  Array.from({ length: rounds }, (_, round) => turnsIn(rounds, round, all))

t.test('turns are spread over the rounds', async t => {
  t.strictSame(turns(5), [1, 1, 1, 1, 1])
  t.strictSame(turns(5, 20), [4, 4, 4, 4, 4])
  t.equal(
    turns(5, 3).reduce((sum, count) => sum + count, 0),
    3,
  )
  t.strictSame(turns(1, 3), [1], 'at least one')
})

t.test('what /proc says of a process', async t => {
  const fields = Array.from({ length: 50 }, (_, n) => String(n + 3))
  fields[0] = 'S'
  t.strictSame(parseStat(`12 (a) b) ${fields.join(' ')}`), {
    pid: 12,
    state: 'S',
    parent: 4,
    threads: 20,
    cpuOfChildren: 0.33,
  })
  t.equal(parseStat(''), null)
})
