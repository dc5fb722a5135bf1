/**
 * Makes the calls in a separate process, because a hanging call on a union blocks the whole thread,
 * and because ids and umask change. main.ts starts it; it reports to main.ts in JSON lines on
 * descriptor 3.
 */

import * as fc from 'fast-check'
import { writeFileSync, writeSync } from 'node:fs'
import type { Call } from './calls.js'
import type { Draft } from './drafts.js'
import { draftsArb } from './drafts.js'
import { expressible, expressibleStack } from './express.js'
import type { Transport } from './mounters.js'
import { mounterFor } from './mounters.js'
import type { Case } from './reduce.js'
import { reduce } from './reduce.js'
import { showCase, showDivergence } from './report.js'
import type { RunResult } from './run.js'
import { runSteps } from './run.js'
import type { StackSpec } from './stack.js'
import { stackWithoutOpen, withoutOpen } from './no-open.js'
import { stackArb, withoutLinks } from './stack.js'
import { ignore, signature, throughPackage } from './tolerated.js'
import { callInUserns, inUserNamespace, stackInUserns } from './userns.js'

export interface Job {
  /** The directory of the layers. */
  dir: string
  /** The directory for kept divergences. */
  cases: string
  seeds: number[]
  calls: number
  every: number
  io: string
  noOpen: boolean
  candidate: string
  transport: Transport
  reduceSeconds: number
  keep: boolean
  ignore: string | null
  /** A file with a reduced case to run instead of seeds. */
  replay: string | null
}

export type Message =
  | { type: 'alive'; seed: number; step: number }
  | {
      type: 'done'
      seed: number
      calls: number
      seconds: number
      report: string | null
      signature: string
      tally: Record<string, number>
    }

const send = (message: Message): void => {
  writeSync(3, `${JSON.stringify(message)}\n`)
}

const one = <T>(arbitrary: fc.Arbitrary<T>, seed: number): T => {
  const [value] = fc.sample(arbitrary, { seed, numRuns: 1 })
  if (value === undefined) throw new Error('nothing drawn')
  return value
}

const job = JSON.parse(process.argv[2] ?? '{}') as Job
const candidate = mounterFor(job.candidate, job.noOpen ? `${job.io},noopen` : job.io, job.transport)
if (candidate.native) throughPackage()
if (job.ignore !== null) ignore(new RegExp(job.ignore))
let runs = 0
let lastSign = 0

const run = (
  seed: number,
  stack: StackSpec,
  steps: Parameters<typeof runSteps>[1],
  how: { keep?: boolean; short?: boolean } = {},
): RunResult =>
  runSteps(stack, steps, {
    dir: `${job.dir}/${seed}-${runs++}`,
    candidate,
    ...how,
    onStep: step => {
      const now = Date.now()
      if (now - lastSign < 200) return
      lastSign = now
      send({ type: 'alive', seed, step })
    },
  })

const reportOf = (seed: number, found: Case, result: RunResult): string => {
  const { divergence } = result
  if (divergence === null) return ''
  const wanted = divergence.mismatches[0]
  let report = showDivergence(seed, divergence)
  if (job.reduceSeconds > 0 && wanted !== undefined) {
    const results = divergence.trace.map(step => step.ret)
    const short = wanted.action !== null
    const small = reduce(found, results, signature(wanted), job.reduceSeconds, tried =>
      run(seed, tried.stack, tried.calls, { short }),
    )
    const again = run(seed, small.stack, small.calls, { short, keep: job.keep })
    if (again.divergence !== null) report += `\n${showCase(small, again.divergence)}`
    const file = `${job.cases}/${seed}.json`
    if (job.keep) {
      writeFileSync(file, JSON.stringify(small))
      report += `\n  run it again with --replay ${file}`
    }
  }
  return report
}

const finish = (seed: number, found: () => Case, result: RunResult, start: number): void => {
  const first = result.divergence?.mismatches[0]
  send({
    type: 'done',
    seed,
    calls: result.calls,
    seconds: (Date.now() - start) / 1000,
    report: first === undefined ? null : reportOf(seed, found(), result),
    signature: first === undefined ? '' : signature(first),
    tally: result.tally,
  })
}

if (job.replay === null)
  for (const seed of job.seeds) {
    const pushes = seed % 3 === 0
    const drawn = one(stackArb, seed)
    const linked = pushes ? withoutLinks(drawn) : drawn
    const able = inUserNamespace ? stackInUserns(linked) : linked
    const told = job.noOpen ? stackWithoutOpen(able) : able
    const stack = candidate.native ? expressibleStack(told) : told
    const how = {
      fuse: candidate.fuse,
      native: candidate.native,
      locks: seed % 4 === 0 && !candidate.native,
      pushes,
    }
    const any = one(draftsArb(job.calls, job.every, how), seed)
    const drafts = any.map((draft): Draft => model => {
      const call = draft(model)
      const possible = inUserNamespace ? callInUserns(call, !pushes) : call
      if (candidate.native) return expressible(possible)
      return job.noOpen ? withoutOpen(possible) : possible
    })
    const start = Date.now()
    const result = run(seed, stack, drafts)
    const calls = (): Call[] => result.divergence?.trace.map(step => step.call) ?? []
    finish(seed, () => ({ stack, calls: calls() }), result, start)
  }
else {
  const { readFileSync } = await import('node:fs')
  const found = JSON.parse(readFileSync(job.replay, 'utf8')) as Case
  finish(0, () => found, run(0, found.stack, found.calls, { keep: job.keep }), Date.now())
}
