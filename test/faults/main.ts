/**
 * The fault injection: runs every operation with each call failing, and with the server killed
 * after each change.
 */

// oxlint-disable-next-line import/no-unassigned-import -- it has to be there before anything of the union
import './hook.js'
import * as fs from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import * as sys from '../helpers/syscalls.js'
import type { Traced } from './hook.js'
import { isKnown } from './known.js'
import { ERRORS, runScenario, type Counts, type ErrorName, type Fault } from './run.js'
import { MODES, type Mode } from './modes.js'
import { type Scenario } from './scenario.js'
import { scenarios } from './scenarios.js'
import { remove, World } from './world.js'

const USAGE = `usage: npm run faults -- [option]...

Makes every system call of every operation fail, and kills the union's process after every change. Afterwards it is as before
or as after, and says which; the kernel's overlayfs shows the same; the work directory is clean and no lower layer has changed.

  --mode LIST      of ${MODES.join(', ')}; default: all
  --errors LIST    of ${ERRORS.join(', ')}; default: all
  --one            each call fails with one of the errors, in turn, not with each of them
  --only TEXT      only operations whose name contains this
  --part K/N       only each N-th operation, from the K-th on
  --jobs N         processes at once; default: 2
  --dir DIR        where the directories are made, on a tmpfs there
  --verbose        a line for each operation`

const bad = (text: string): never => {
  console.error(`${text}\n\n${USAGE}`)
  process.exit(2)
}

const options = (() => {
  try {
    return parseArgs({
      options: {
        mode: { type: 'string', default: MODES.join() },
        errors: { type: 'string', default: ERRORS.join() },
        one: { type: 'boolean', default: false },
        only: { type: 'string', default: '' },
        part: { type: 'string', default: '1/1' },
        // For launch.mjs, which starts several of these processes.
        jobs: { type: 'string' },
        share: { type: 'string', default: '1/1' },
        tmpfs: { type: 'string' },
        dir: { type: 'string', default: tmpdir() },
        verbose: { type: 'boolean', default: false },
        help: { type: 'boolean', default: false },
      },
    }).values
  } catch (error) {
    return bad(error instanceof Error ? error.message : String(error))
  }
})()
if (options.help) {
  console.log(USAGE)
  process.exit(0)
}
const listed = <T extends string>(given: string, all: readonly T[], option: string): T[] => {
  const list = given.split(',') as T[]
  return list.every(item => all.includes(item)) ? list : bad(`${option} ${given}`)
}
const errors: ErrorName[] = listed(options.errors, ERRORS, '--errors')
const modes: Mode[] = listed(options.mode, MODES, '--mode')
const each = (text: string): ((i: number) => boolean) => {
  const [, from = '', of = ''] = /^([1-9]\d*)\/([1-9]\d*)$/.exec(text) ?? bad(`--part ${text}`)
  return i => i % Number(of) === Number(from) - 1
}

const chosen = scenarios
  .filter(scenario => scenario.name.includes(options.only))
  .filter((_, i) => each(options.part)(i))
  .filter((_, i) => each(options.share)(i))

const counts: Counts = { operations: 0, failures: 0, survived: 0, kills: 0, known: 0 }
let faults = 0
/** Many faults have the same cause, so each place is reported in full only three times. */
const reportedPlaces = new Map<string, number>()
const report = (fault: Fault): void => {
  if (isKnown(fault)) {
    counts.known++
    return
  }
  faults++
  const times = (reportedPlaces.get(fault.where) ?? 0) + 1
  reportedPlaces.set(fault.where, times)
  if (times > 3) return
  const lines = [`at ${fault.where}`, ...fault.wrong.slice(0, 12)]
  console.log(`FAULT ${fault.mode}: ${fault.scenario}: ${fault.what}\n  ${lines.join('\n  ')}`)
}

/** Runs one operation in one mode, in directories of its own. */
const runOne = async (
  top: string,
  mode: Mode,
  scenario: Scenario,
  turn: number,
  tried: readonly Traced[] | null,
): Promise<Traced[]> => {
  const start = performance.now()
  const before = { ...counts }
  fs.mkdirSync(top)
  try {
    const plan = { errors, turn: options.one ? turn : null, tried }
    return await runScenario(new World(top, mode, scenario), scenario, plan, counts, report)
  } catch (error) {
    const text = error instanceof Error ? (error.stack ?? '') : String(error)
    report({
      mode,
      scenario: scenario.name,
      error: null,
      what: text,
      where: 'the fault injection itself',
      wrong: [],
    })
    return []
  } finally {
    remove(top)
    if (options.verbose)
      console.log(
        `${mode}: ${scenario.name}: ${counts.failures - before.failures} failures, ${counts.kills - before.kills} kills, ${Math.round(performance.now() - start)} ms`,
      )
  }
}

/** The directories are on a tmpfs. An ordinary user gets one from launch.mjs. */
const mountHere = (): string => {
  const path = fs.realpathSync(fs.mkdtempSync(join(options.dir, 'tsoverlay-faults-')))
  const mounted = sys.mount('faults', path, 'tmpfs', sys.MS.NOATIME, 'mode=755')
  return mounted < 0 ? bad(`a tmpfs can't be mounted on ${path}: errno ${-mounted}`) : path
}
const base = options.tmpfs ?? mountHere()
try {
  for (const [i, scenario] of chosen.entries()) {
    let cached: Traced[] | null = null
    for (const mode of modes) {
      if (scenario.in?.(mode) === false) continue
      // Without OPEN and RELEASE requests most operations make the same calls.
      const tried = mode === 'noopen' ? cached : null
      const calls = await runOne(join(base, `${mode}-${i}`), mode, scenario, i, tried)
      if (mode === 'cached') cached = calls
    }
  }
} finally {
  if (options.tmpfs === undefined) {
    sys.umount(base, sys.MNT.DETACH)
    fs.rmdirSync(base)
  }
}
/** For launch.mjs. */
const RESULTS = 3
fs.writeSync(RESULTS, JSON.stringify({ counts, faults, told: [...reportedPlaces] }))
process.exit(faults > 0 ? 1 : 0)
