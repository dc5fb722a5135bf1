/** Computes results from samples; pure functions without I/O. */

import type { Sample, State } from '../run/records.js'

/** One file system, step and state, over all rounds. */
export interface Result {
  system: string
  state: State
  operations: number
  /** The time of every turn, in order, in milliseconds. */
  ms: number[]
  median: number
  least: number
  /**
   * Medians: CPU time of all processes in milliseconds, and the resources that servers hold, memory
   * in KiB.
   */
  cpu: number
  memory: number
  processes: number
  threads: number
}

/** Groups items by a key, in the order in which the keys first occur. */
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

/** NaN for an empty list. */
export const geometricMean = (numbers: readonly number[]): number =>
  Math.exp(numbers.reduce((sum, number) => sum + Math.log(number), 0) / numbers.length)

/** More digits are not significant and would only make the file larger. */
export const rounded = (number: number): number => Number(number.toPrecision(4))

/** The results of one step, in the order in which file systems and states first occur. */
export const resultsOf = (samples: readonly Sample[]): Result[] =>
  [...groupBy(samples, ({ system, state }) => `${system}\n${state}`).values()].flatMap(group => {
    const [first] = group
    if (first === undefined) return []
    const { system, state, operations } = first
    const of = (key: 'ms' | 'cpu' | 'memory' | 'processes' | 'threads'): number[] =>
      group.map(sample => sample[key])
    return {
      system,
      state,
      operations,
      ms: of('ms').map(rounded),
      median: rounded(median(of('ms'))),
      least: rounded(Math.min(...of('ms'))),
      cpu: rounded(median(of('cpu')) * 1000),
      memory: Math.round(median(of('memory'))),
      processes: median(of('processes')),
      threads: median(of('threads')),
    }
  })
