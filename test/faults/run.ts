/** Runs one scenario with every possible fault, and checks the state afterwards. */

import { MountError } from '../../src/errors.js'
import { E } from '../../src/sys/errno.js'
import type { Tree } from '../helpers/tree.js'
import type { UnionFs } from '../helpers/union.js'
import { closeLeaked, delayed, failing, killAfter, traced, type Traced } from './hook.js'
import { inCopy, SIGKILL } from './process.js'
import type { Mode } from './modes.js'
import { errnoOf, isError, type Answer, type Scenario } from './scenario.js'
import type { View, World } from './world.js'

export const ERRORS = ['EIO', 'ENOSPC', 'EDQUOT', 'ENOMEM', 'EMFILE', 'EACCES'] as const
export type ErrorName = (typeof ERRORS)[number]

/** The delay of each call in the run with delays. */
const DELAY_MS = 1

export interface Counts {
  operations: number
  failures: number
  /** Failures that did not make the operation fail. */
  survived: number
  kills: number
  /** Known faults (known.ts). */
  known: number
}

export interface Fault {
  mode: Mode
  scenario: string
  /** The error of the failed call; null: the process was killed after the call. */
  error: ErrorName | null
  /** A description of the fault. */
  what: string
  where: string
  wrong: string[]
}

/** The reference results of an operation. */
interface Known {
  before: View
  after: View
  calls: Traced[]
  answer: Answer
  /**
   * Results that have been checked: a failed call, the calls after it, and the answer. Equal ones
   * leave the same state.
   */
  right: Set<string>
  /** The result of checking a view. */
  verdicts: Map<View, Verdict>
}

/** The answer of an operation. A failure to open the union counts as an answer. */
const answerOf = async (use: () => Promise<Answer>): Promise<Answer> => {
  try {
    return await use()
  } catch (error) {
    if (error instanceof MountError) return -(E[error.code as keyof typeof E] ?? E.EIO)
    throw error
  }
}

/** One operation that is about to run on prepared directories. */
class Turn {
  union: UnionFs | null
  readonly #world: World
  readonly #scenario: Scenario

  private constructor(world: World, scenario: Scenario, union: UnionFs | null) {
    this.#world = world
    this.#scenario = scenario
    this.union = union
  }

  static async begin(world: World, scenario: Scenario): Promise<Turn> {
    return new Turn(world, scenario, scenario.run === null ? null : await world.begin())
  }

  run(): Promise<Answer> {
    const { run } = this.#scenario
    return answerOf(() => {
      if (run !== null) return run(this.union as UnionFs)
      this.union = this.#world.open()
      return Promise.resolve(0)
    })
  }

  /** The tree that the union shows now. */
  live(): Promise<Tree> | undefined {
    if (this.union?.closed !== false) return undefined
    this.union.forgetAll()
    return this.union.tree()
  }

  /** Closes the union and returns the number of descriptors that are left open. */
  end(): number {
    this.union?.close()
    return closeLeaked()
  }
}

const recordReference = async (world: World, scenario: Scenario): Promise<Known> => {
  await world.reset()
  // The first run fills caches of this process, so its calls are not used.
  const first = await Turn.begin(world, scenario)
  await first.run()
  first.end()
  await world.reset()
  const before = await world.view()
  await world.reset()
  const turn = await Turn.begin(world, scenario)
  const { result: answer, calls } = await traced(() => turn.run())
  if (isError(answer) !== (scenario.refused === true))
    throw new Error(`${isError(answer) ? errnoOf(answer) : answer} without a fault`)
  const left = turn.end()
  if (left > 0 && scenario.refused !== true)
    throw new Error(`${left} descriptors stay open without a fault`)
  const after = await world.view()
  const wrong = [...world.disagreements(before), ...world.disagreements(after)]
  const right = new Set<string>()
  const verdicts = new Map<View, Verdict>()
  if (wrong.length === 0) return { before, after, calls, answer, right, verdicts }
  // With `userxattr` the kernel has no index and follows no redirects.
  if (world.mode !== 'userns') throw new Error(`without a fault: ${wrong.join('\n')}`)
  return {
    before: { ...before, kernel: null },
    after: { ...after, kernel: null },
    calls,
    answer,
    right,
    verdicts,
  }
}

interface Verdict {
  isBefore: boolean
  isAfter: boolean
  wrong: string[]
}

/** Compares the present directories with the states before and after the operation. */
const compareStates = (world: World, { before, after }: Known, now: View): Verdict => {
  const fromBefore = world.differences(before, now)
  const fromAfter = world.differences(after, now)
  const isBefore = fromBefore.length === 0
  const isAfter = fromAfter.length === 0
  const wrong =
    isBefore || isAfter
      ? []
      : [
          ...fromBefore.map(line => `not as before: ${line}`),
          ...fromAfter.map(line => `not as after: ${line}`),
        ]
  if (now.stale.length > 0) wrong.push(`work is not clean: ${now.stale.join(' ')}`)
  // The index may have an entry of a file that was copied up, but none without a name that leads to
  // it.
  const counts = [before.index.length, after.index.length]
  const count = now.index.length
  if (count < Math.min(...counts) || count > Math.max(...counts))
    wrong.push(`${count} entries in the index, ${counts.join(' before, ')} after`)
  return { isBefore, isAfter, wrong }
}

/** The conditions that hold after every fault. */
const check = async (world: World, known: Known): Promise<Verdict & { now: View }> => {
  const now = await world.view()
  let verdict = known.verdicts.get(now)
  if (verdict === undefined) {
    verdict = compareStates(world, known, now)
    known.verdicts.set(now, verdict)
  }
  return { ...verdict, now, wrong: [...verdict.wrong, ...world.lowerChanges()] }
}

const fail = async (
  world: World,
  scenario: Scenario,
  known: Known,
  n: number,
  errno: ErrorName,
): Promise<{ fault: Fault | null; survived: boolean }> => {
  await world.reset()
  const turn = await Turn.begin(world, scenario)
  let outcome
  const wrong: string[] = []
  try {
    outcome = await failing(n, E[errno], () => turn.run())
  } catch (error) {
    wrong.push(`thrown: ${error instanceof Error ? (error.stack ?? '') : String(error)}`)
  }
  const answer = outcome?.result ?? 0
  const way =
    outcome === undefined
      ? ''
      : [n, outcome.trail, isError(answer) ? answer + E[errno] : answer].join(' ')
  const isKnownWay = known.right.has(way)
  let live
  try {
    if (!isKnownWay) live = await turn.live()
  } catch (error) {
    wrong.push(`the union is broken: ${String(error)}`)
  }
  const left = turn.end()
  if (isKnownWay && left === 0) return { fault: null, survived: !isError(answer) }
  if (left > 0) wrong.push(`${left} descriptors stay open`)
  const { now, isBefore, isAfter, wrong: state } = await check(world, known)
  wrong.push(...state)
  if (live !== undefined)
    wrong.push(
      ...world
        .treeDifferences(live, now.ours)
        .map(line => `otherwise than after a remount: ${line}`),
    )
  if (state.length === 0) {
    if (isError(answer) && !isBefore) wrong.push(`${errnoOf(answer)}, but it was done`)
    if (!isError(answer) && !isAfter) wrong.push('no error, but it was not done')
  }
  if (outcome !== undefined && !isError(answer) && answer !== known.answer)
    wrong.push(`another answer: ${answer} instead of ${known.answer}`)
  const hit = outcome?.hit
  if (wrong.length === 0) known.right.add(way)
  return {
    fault:
      wrong.length === 0
        ? null
        : {
            mode: world.mode,
            scenario: scenario.name,
            error: errno,
            what: `call ${n}, ${hit?.name ?? '?'}: ${errno}; answered ${isError(answer) ? errnoOf(answer) : answer}`,
            where: hit?.stack ?? '',
            wrong,
          },
    survived: !isError(answer),
  }
}

/** @param n counts the mutating calls */
const kill = async (
  world: World,
  scenario: Scenario,
  known: Known,
  n: number,
): Promise<Fault | null> => {
  await world.reset()
  const signal = await inCopy(async () => {
    const turn = await Turn.begin(world, scenario)
    killAfter(n)
    await turn.run()
  })
  if (signal !== SIGKILL) throw new Error(`change ${n}: ended by ${signal}, not killed`)
  const { wrong } = await check(world, known)
  if (wrong.length === 0) return null
  const hit = known.calls.filter(call => call.mutates)[n]
  return {
    mode: world.mode,
    scenario: scenario.name,
    error: null,
    what: `killed after change ${n}, ${hit?.name ?? '?'}`,
    where: hit?.stack ?? '',
    wrong,
  }
}

/** With each call delayed the result is the same. */
const delay = async (world: World, scenario: Scenario, known: Known): Promise<Fault | null> => {
  await world.reset()
  const turn = await Turn.begin(world, scenario)
  const answer = await delayed(DELAY_MS, () => turn.run())
  turn.end()
  const { isAfter, wrong } = await check(world, known)
  if (!isAfter || answer !== known.answer) wrong.push(`answered ${answer}, not as after`)
  if (wrong.length === 0) return null
  return {
    mode: world.mode,
    scenario: scenario.name,
    error: null,
    what: 'each call held up',
    where: '',
    wrong,
  }
}

/** The faults to inject into a scenario. */
export interface Plan {
  errors: readonly ErrorName[]
  /** Each call fails with one of the errors, beginning with this one; null: with each of them. */
  turn: number | null
  /** The calls of another mode. If this mode makes the same calls, no faults are injected. */
  tried: readonly Traced[] | null
}

const isSame = (a: readonly Traced[], b: readonly Traced[]): boolean =>
  a.length === b.length &&
  a.every((call, i) => call.name === b[i]?.name && call.stack === b[i]?.stack)

/**
 * Runs a scenario with every fault.
 * @returns its calls without a fault
 */
export const runScenario = async (
  world: World,
  scenario: Scenario,
  { errors, turn, tried }: Plan,
  counts: Counts,
  report: (fault: Fault) => void,
): Promise<Traced[]> => {
  const known = await recordReference(world, scenario)
  const { calls } = known
  if (tried !== null && isSame(calls, tried)) return calls
  counts.operations++
  const late = await delay(world, scenario, known)
  if (late !== null) report(late)
  for (let n = 0; n < calls.length; n++) {
    const some = turn === null ? errors : [errors[(turn + n) % errors.length] as ErrorName]
    for (const errno of some) {
      const { fault, survived } = await fail(world, scenario, known, n, errno)
      counts.failures++
      if (survived) counts.survived++
      if (fault !== null) report(fault)
    }
  }
  const changes = calls.filter(call => call.mutates).length
  for (let n = 0; n < changes; n++) {
    counts.kills++
    const fault = await kill(world, scenario, known, n)
    if (fault !== null) report(fault)
  }
  return calls
}
