/**
 * When the engine compiles what runs often. It does so on threads of its own, which on a single processor take the
 * time from the work: there, later is better. Measured with Node 20 and all processes on one processor: the first
 * 4,100 names that a new mount lists with their attributes, 130 -> 85 ms; 20,000 names, the same.
 *
 * While a new server practises (fuse/rehearsal), it is told to compile soon.
 */

import { availableParallelism } from 'node:os'
import { versions } from 'node:process'
import { allowEagerCompiling } from '../fuse/rehearsal/engine.js'

/** In bytes of byte code run. */
const budget = (bytes: number): string => `--interrupt-budget=${bytes}`
const DEFAULT_BUDGET = 67_584
const LATE_BUDGET = 300_000
const EAGER_BUDGET = 10_000
/** At the end of practice: of what runs seldom enough was seen by then. */
const EAGEREST_BUDGET = 3000
/** After practice: what is left to compile then is little. */
const AFTER_BUDGET = 20_000

/** Later versions count calls, and have a quick compiler before the thorough one. */
const calls = (count: number): string => `--invocation-count-for-turbofan=${count}`
const DEFAULT_CALLS = 3000
const EAGER_CALLS = 500

export const tuneEngine = (): void => {
  if (!versions.v8.startsWith('11.')) {
    const [before, eager] = [calls(DEFAULT_CALLS), calls(EAGER_CALLS)]
    allowEagerCompiling({ before, eager, last: eager, after: before })
    return
  }
  allowEagerCompiling({
    before: budget(availableParallelism() > 1 ? DEFAULT_BUDGET : LATE_BUDGET),
    eager: budget(EAGER_BUDGET),
    last: budget(EAGEREST_BUDGET),
    after: budget(AFTER_BUDGET),
  })
}
