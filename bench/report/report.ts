/** The report: the results and the machine. */

import { execFileSync } from 'node:child_process'
import * as fs from 'node:fs'
import * as os from 'node:os'
import { jobs } from '../containers/jobs.js'
import { root } from '../run/environment.js'
import type { LeftOut, Pass, Plan } from '../run/options.js'
import type { Failure, Sample } from '../run/records.js'
import { works } from '../works/index.js'
import { titlesOf } from '../works/work.js'
import { groupBy, resultsOf, type Result } from './statistics.js'

/** One step, as it was measured with one choice of processors. */
export interface Row {
  processors: Pass
  work: string
  step: string
  title: string
  /** The number of simultaneous mounts; 0 for container workloads. */
  mounts: number
  results: Result[]
}

export interface Report {
  date: string
  machine: Record<string, string | number>
  options: Pick<Plan, 'medium' | 'rounds' | 'scale' | 'option'>
  systems: { name: string; version: string; command: string }[]
  rows: Row[]
  failures: (Omit<Failure, 'type'> & { processors: Pass })[]
  leftOut: LeftOut[]
}

/** All possible rows, in order. */
const allRows = (): Omit<Row, 'processors' | 'results'>[] => [
  ...jobs.map(({ name, title }) => ({ work: name, step: name, title, mounts: 0 })),
  ...works.flatMap(work =>
    titlesOf(work).map(([step, title]) => ({
      work: work.name,
      step,
      title,
      mounts: work.mounts ?? 1,
    })),
  ),
]

/** The rows of one pass. A row without any time is left out. */
export const rowsOf = (processors: Pass, samples: readonly Sample[]): Row[] => {
  const found = groupBy(samples, ({ work, step }) => `${work}\n${step}`)
  return allRows().flatMap(row => {
    const own = found.get(`${row.work}\n${row.step}`)
    return own === undefined ? [] : [{ processors, ...row, results: resultsOf(own) }]
  })
}

/** The properties of the machine that affect the results. */
export const machine = (): Report['machine'] => {
  const cpus = os.cpus()
  let commit = ''
  try {
    commit = execFileSync('git', ['-C', root, 'rev-parse', '--short', 'HEAD'], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim()
  } catch {
    // The directory is no git clone.
  }
  const distribution = /^PRETTY_NAME="?([^"\n]*)/m.exec(
    fs.existsSync('/etc/os-release') ? fs.readFileSync('/etc/os-release', 'utf8') : '',
  )?.[1]
  return {
    ...(commit === '' ? {} : { commit }),
    processor: cpus[0]?.model ?? 'unknown',
    processors: os.availableParallelism(),
    'memory in GiB': Math.round(os.totalmem() / 2 ** 30),
    kernel: os.release(),
    ...(distribution === undefined ? {} : { distribution }),
    'load before': Number((os.loadavg()[0] ?? 0).toFixed(2)),
  }
}

/**
 * Serializes the report with one line for each row, so that it is short and two runs can be
 * compared.
 */
export const serialized = ({ rows, ...report }: Report): string => {
  const head = JSON.stringify(report, null, 1)
  const lines = rows.map(row => `  ${JSON.stringify(row)}`).join(',\n')
  return `${head.slice(0, -2)},\n "rows": [\n${lines}\n ]\n}\n`
}
