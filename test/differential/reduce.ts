/** Reduces a failing run: fewer calls, fewer layers, fewer entries. */

import type { Call } from './calls.js'
import { placesOf, slotsOf } from './calls.js'
import type { RunResult } from './run.js'
import type { EntrySpec, StackSpec } from './stack.js'
import { signature } from './tolerated.js'

export interface Case {
  stack: StackSpec
  calls: Call[]
}

/** Removes parts of a list, larger ones first, while the rest still fails. */
const removeParts = <T>(list: T[], fails: (rest: T[]) => boolean): T[] => {
  let current = list
  for (
    let size = Math.ceil(list.length / 2);
    size >= 1;
    size = size === 1 ? 0 : Math.ceil(size / 2)
  )
    for (let at = Math.max(0, current.length - size); ; at -= size) {
      const from = Math.max(0, at)
      const rest = [...current.slice(0, from), ...current.slice(at + size)]
      if (rest.length < current.length && fails(rest)) current = rest
      if (from === 0) break
    }
  return current
}

/** Whether one path equals the other or contains it. */
const overlaps = (a: string, b: string): boolean =>
  a === b || a === '.' || b === '.' || a.startsWith(`${b}/`) || b.startsWith(`${a}/`)

/** The calls that are connected with the last call through slots or paths. */
const connected = (calls: Call[]): Call[] => {
  const paths: string[] = []
  const slots = new Set<number>()
  return calls
    .toReversed()
    .filter((call, i) => {
      const own = placesOf(call.action).map(place => place.path)
      const ownSlots = slotsOf(call.action)
      const touches =
        i === 0 ||
        ownSlots.some(slot => slots.has(slot)) ||
        own.some(path => paths.some(known => overlaps(path, known)))
      if (!touches) return false
      paths.push(...own)
      for (const slot of ownSlots) slots.add(slot)
      return true
    })
    .toReversed()
}

/** The entries above and below the paths of the calls. */
const reachable = (layer: EntrySpec[], calls: Call[]): EntrySpec[] => {
  const paths = calls.flatMap(call => placesOf(call.action).map(place => place.path))
  return layer.filter(
    entry =>
      entry.path === '.' ||
      paths.some(path => overlaps(path, entry.path)) ||
      layer.some(other => other.kind === 'link' && other.target === entry.path),
  )
}

export const reduce = (
  found: Case,
  /** The results of the calls in the trace. */
  results: (number | bigint)[],
  wanted: string,
  seconds: number,
  run: (tried: Case) => RunResult,
): Case => {
  const deadline = Date.now() + seconds * 1000
  const fails = (tried: Case): boolean => {
    if (Date.now() > deadline) return false
    const first = run(tried).divergence?.mismatches[0]
    return first !== undefined && signature(first) === wanted
  }
  let best = found
  const keep = (tried: Case): boolean => {
    if (!fails(tried)) return false
    best = tried
    return true
  }
  const withLowers = (lowers: EntrySpec[][]): Case => ({
    ...best,
    stack: { ...best.stack, lowers },
  })
  // First everything that is probably not needed, all at once.
  const last = best.calls.length - 1
  keep({ ...best, calls: best.calls.filter((_, i) => i === last || (results[i] ?? 0) >= 0) })
  keep({ ...best, calls: connected(best.calls) })
  const { upper, lowers } = best.stack
  keep({
    ...best,
    stack: {
      ...best.stack,
      upper: upper === null ? null : reachable(upper, best.calls),
      lowers: lowers.map(layer => reachable(layer, best.calls)),
    },
  })
  removeParts(best.calls, calls => keep({ ...best, calls }))
  if (upper !== null)
    removeParts(best.stack.upper ?? [], entries =>
      keep({ ...best, stack: { ...best.stack, upper: entries } }),
    )
  const least = upper === null ? 2 : 1
  removeParts(best.stack.lowers, layers => layers.length >= least && keep(withLowers(layers)))
  for (let i = 0; i < best.stack.lowers.length; i++)
    removeParts(best.stack.lowers[i] ?? [], entries =>
      keep(withLowers(best.stack.lowers.with(i, entries))),
    )
  removeParts(best.calls, calls => keep({ ...best, calls }))
  return best
}
