/** The numbers of a report, from single samples. */

import * as fs from 'node:fs'
import * as os from 'node:os'
import { execFileSync } from 'node:child_process'
import type { Failure, Memory, Requests, Sample } from '../run/records.js'
import { root } from '../run/environment.js'
import type { LeftOut, Options, Pass } from '../run/options.js'
import type { Medium } from '../run/scratch.js'
import { workloadNamed } from '../workloads/index.js'
import { MOUNT_STEP, UNMOUNT_STEP, type Workload } from '../workloads/workload.js'

/** One file system on one step, over all rounds. Times are in milliseconds. */
export interface Result {
  system: string
  operations: number
  /** Every round, in order. */
  ms: number[]
  best: number
  median: number
  longest: number
  /** How many times as long as each of the other file systems, best against best. */
  ratios: Record<string, number>
  /** Processor seconds, medians. */
  clientCpu: number
  serverCpu: number
  /** The most that the server ever had, in KiB; 0 without a server. */
  peakMemory: number
}

/** One step, as it was measured on one medium with one choice of processors. */
export interface Row {
  medium: Medium
  processors: Pass
  workload: string
  step: string
  title: string
  /** No file system has a part in it. */
  reference: boolean
  results: Result[]
}

/** One file system against another one, over all rows of one medium and choice of processors that both have. */
export interface Mean {
  medium: Medium
  processors: Pass
  system: string
  against: string
  rows: number
  /** The geometric mean of the ratios. */
  ratio: number
}

export interface Report {
  date: string
  machine: Record<string, string | number>
  options: { rounds: number; scale: number }
  systems: {
    name: string
    version: string
    command: string | null
    /** In a user namespace; null where it was not measured there. */
    rootlessCommand: string | null
  }[]
  rows: Row[]
  means: Mean[]
  requests: (Omit<Requests, 'type'> & { title: string; total: number })[]
  memory: Omit<Memory, 'type'>[]
  failures: (Omit<Failure, 'type'> & { processors: Pass | 'counting' | 'memory' })[]
  leftOut: LeftOut[]
}

/** Things by a key, in the order in which the keys came up. */
export const groupBy = <T>(things: readonly T[], keyOf: (thing: T) => string): Map<string, T[]> => {
  const found = new Map<string, T[]>()
  for (const thing of things) {
    const key = keyOf(thing)
    const group = found.get(key)
    if (group === undefined) found.set(key, [thing])
    else group.push(thing)
  }
  return found
}

export const median = (numbers: readonly number[]): number => {
  const sorted = numbers.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  const upper = sorted[middle] ?? 0
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[middle - 1] ?? upper)) / 2
}

const resultOf = (system: string, samples: readonly Sample[]): Result => {
  const ms = samples.map(sample => sample.ms)
  const best = Math.min(...ms)
  return {
    system,
    operations: samples[0]?.operations ?? 0,
    ms,
    best,
    median: median(ms),
    longest: Math.max(...ms),
    ratios: {},
    clientCpu: median(samples.map(sample => sample.clientCpu)),
    serverCpu: median(samples.map(sample => sample.serverCpu)),
    peakMemory: Math.max(...samples.map(sample => sample.memory)),
  }
}

/** Everything of a workload that has a time, in the order of the report, with titles. */
export const titlesOf = (workload: Workload): [step: string, title: string][] => [
  ...(workload.mountTitle === undefined
    ? []
    : [[MOUNT_STEP, workload.mountTitle] satisfies [string, string]]),
  ...workload.steps.flatMap(({ name, title, also = [] }) =>
    [{ name, title }, ...also].map(one => [one.name, one.title] satisfies [string, string]),
  ),
  ...(workload.unmountTitle === undefined
    ? []
    : [[UNMOUNT_STEP, workload.unmountTitle] satisfies [string, string]]),
]

/** The rows of one pass. A row that nobody has a time for is left out. */
export const rowsOf = (
  plan: Options['plan'],
  processors: Pass,
  samples: readonly Sample[],
): Row[] => {
  const found = groupBy(samples, ({ medium, workload, step, system }) =>
    [medium, workload, step, system].join('\n'),
  )
  return plan.media.flatMap(medium =>
    plan.workloads.map(workloadNamed).flatMap(workload =>
      titlesOf(workload)
        .map(([step, title]) => {
          const results = plan.systems.flatMap(system => {
            const own = found.get([medium, workload.name, step, system].join('\n'))
            return own === undefined ? [] : [resultOf(system, own)]
          })
          for (const one of results)
            for (const other of results)
              if (other !== one) one.ratios[other.system] = one.best / other.best
          const reference = workload.steps.some(one => one.name === step && one.reference)
          return { medium, processors, workload: workload.name, step, title, reference, results }
        })
        .filter(({ results }) => results.length > 0),
    ),
  )
}

/** Each file system against each other one. */
export const meansOf = (rows: readonly Row[]): Mean[] => {
  const pairs = rows
    .filter(({ reference }) => !reference)
    .flatMap(({ medium, processors, results }) =>
      results.flatMap(({ system, ratios }) =>
        Object.entries(ratios).map(([against, ratio]) => ({
          medium,
          processors,
          system,
          against,
          ratio,
        })),
      ),
    )
  const keyOf = ({ medium, processors, system, against }: (typeof pairs)[0]): string =>
    [medium, processors, system, against].join('\n')
  return [...groupBy(pairs, keyOf).values()].flatMap(group => {
    const sum = group.reduce((logs, { ratio }) => logs + Math.log(ratio), 0)
    const ratio = Math.exp(sum / group.length)
    return group.slice(0, 1).map(pair => ({ ...pair, rows: group.length, ratio }))
  })
}

/** Requests with what the report calls them. */
export const countsOf = (requests: readonly Requests[]): Report['requests'] =>
  requests.map(({ workload, step, system, operations, byOpcode }) => {
    const title = titlesOf(workloadNamed(workload)).find(([name]) => name === step)?.[1] ?? step
    const total = Object.values(byOpcode).reduce((sum, count) => sum + count, 0)
    return { workload, step, title, system, operations, total, byOpcode }
  })

/** What the numbers depend on. */
export const machine = (): Report['machine'] => {
  const cpus = os.cpus()
  let commit = ''
  try {
    commit = execFileSync('git', ['-C', root, 'rev-parse', '--short', 'HEAD'], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim()
  } catch {
    // Not a clone.
  }
  const distribution = /^PRETTY_NAME="?([^"\n]*)/m.exec(
    fs.existsSync('/etc/os-release') ? fs.readFileSync('/etc/os-release', 'utf8') : '',
  )?.[1]
  return {
    processor: cpus[0]?.model ?? '',
    processors: cpus.length,
    memoryGiB: Math.round(os.totalmem() / 2 ** 30),
    system: distribution ?? '',
    kernel: os.release(),
    node: process.version,
    commit,
    loadBefore: Math.round((os.loadavg()[0] ?? 0) * 100) / 100,
  }
}
