/** Makes a failing run small: fewer calls, fewer layers, fewer things in them. */

import type { Call } from './calls.js'
import type { RunResult } from './run.js'
import type { EntrySpec, StackSpec } from './stack.js'
import { signature } from './tolerated.js'

export interface Case {
  stack: StackSpec
  calls: Call[]
}

/** Leaves out parts of a list, larger ones first, as long as what is left still fails. */
const leaveOut = <T>(list: T[], fails: (rest: T[]) => boolean): T[] => {
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

export const reduce = (
  found: Case,
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
  leaveOut(best.calls, calls => keep({ ...best, calls }))
  const { stack } = best
  if (stack.upper !== null)
    leaveOut(stack.upper, upper => keep({ ...best, stack: { ...best.stack, upper } }))
  const least = stack.upper === null ? 2 : 1
  leaveOut(
    best.stack.lowers,
    lowers => lowers.length >= least && keep({ ...best, stack: { ...best.stack, lowers } }),
  )
  best.stack.lowers.forEach((layer, i) =>
    leaveOut(layer, (entries: EntrySpec[]) =>
      keep({
        ...best,
        stack: { ...best.stack, lowers: best.stack.lowers.with(i, entries) },
      }),
    ),
  )
  leaveOut(best.calls, calls => keep({ ...best, calls }))
  return best
}
