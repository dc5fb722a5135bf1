/**
 * One pass: a process, pinned to a processor or not, which measures everything in interleaved
 * rounds. It sends each sample to the process that started it (run/main.ts).
 */

import * as fs from 'node:fs'
import { cgroupMaker, removeCgroups } from '../containers/cgroups.js'
import { jobs, runJob, type Job } from '../containers/jobs.js'
import { Storage } from '../containers/podman.js'
import { becomeReaper } from '../measure/calls.js'
import { Client } from '../measure/client.js'
import { findSystems } from '../systems/index.js'
import type { System } from '../systems/system.js'
import { works } from '../works/index.js'
import type { Workload } from '../works/work.js'
import { Ground } from './ground.js'
import { turnsIn, type Plan } from './options.js'
import type { Message, State } from './records.js'
import { Scratch } from './scratch.js'
import { StepError, Turn, type Found } from './turn.js'

const plan = JSON.parse(process.argv[2] ?? '') as Plan
const say = (message: Message): void => void process.send?.(message)

becomeReaper()
// The order matters: the client may be blocked in a call on a mount that is removed at the end, so
// it is killed first.
const client = new Client()
process.on('exit', () => client.kill())
const scratch = new Scratch(plan.dir)
// The process that started the benchmark has ended.
process.on('disconnect', () => process.exit(1))

const systems = findSystems(plan).filter(({ name }) => plan.systems.includes(name))
const ground = new Ground(scratch, plan.medium, plan.scale)

/** The directory and name of tsoverlay's resident server. */
const env: NodeJS.ProcessEnv = { TSOVERLAY_SERVER: scratch.name }
if (plan.rootless) {
  env['XDG_RUNTIME_DIR'] = `${scratch.top}/runtime`
  fs.mkdirSync(`${scratch.top}/runtime`, { mode: 0o700 })
}

/** Failed steps are not repeated in later rounds, because a hanging step would hang again. */
const failed = new Set<string>()

const attempt = async (name: string, system: System, run: () => Promise<void>): Promise<void> => {
  if (failed.has(`${name} ${system.name}`)) return
  try {
    await run()
  } catch (error) {
    failed.add(`${name} ${system.name}`)
    const reason = error instanceof Error ? error.message : String(error)
    const step = error instanceof StepError ? error.step : ''
    say({ type: 'failure', work: name, step, system: system.name, reason })
  }
}

const sayFound =
  (work: string, system: System) =>
  (found: Found): void =>
    say({ type: 'sample', work, system: system.name, ...found })

interface Unit {
  name: string
  systems: readonly System[]
  turns: number | undefined
  /**
   * A trial run before the first turn. It runs the client's code once, so that no file system is
   * measured with cold code.
   */
  rehearse?(): Promise<void>
  run(system: System, round: number): Promise<void>
}

const turnOf = (work: Workload, system: System, tell: (found: Found) => void): Turn =>
  new Turn(client, ground, system, work, env, tell)

const unitOf = (work: Workload): Unit => ({
  name: work.name,
  systems,
  turns: work.turns,
  async rehearse() {
    const [system] = systems
    if (system === undefined || work.steps.length === 0) return
    try {
      await turnOf(work, system, () => {}).run()
    } catch {
      // The failure is reported in the workload's turn.
    }
  },
  run: system => turnOf(work, system, sayFound(work.name, system)).run(),
})

/**
 * Storages are created when the first job begins, so that the other workloads are measured without
 * podman's mounts.
 */
let storages: Promise<Map<string, Storage>> | null = null
const withPodman = systems.filter(({ mountProgram }) => mountProgram !== undefined)

const containerUnit = (job: Job): Unit => ({
  name: job.name,
  systems: withPodman,
  turns: 3,
  async run(system, round) {
    client.kill()
    storages ??= Storage.makeAll(scratch, `${scratch.top}/${plan.medium}`, withPodman)
    const storage = (await storages).get(system.name)
    if (storage === undefined) return
    const ownCgroup = cgroupMaker(scratch.name)
    const states: State[] = system.kind === 'own' ? ['first', 'started'] : ['first']
    if (system.kind === 'own' && ownCgroup !== null) states.push('cgroups')
    for (let n = 0; n < states.length; n++) {
      const state = states[(n + round) % states.length] ?? 'first'
      const found = await runJob(job, {
        system,
        storage,
        state,
        scale: plan.scale,
        server: scratch.name,
        ownCgroup,
      })
      sayFound(job.name, system)(found)
      removeCgroups(scratch.name)
    }
  },
})
scratch.atEnd(() => removeCgroups(scratch.name))

const units = [
  ...works.filter(({ name }) => plan.works.includes(name)).map(unitOf),
  ...jobs.filter(({ name }) => plan.works.includes(name)).map(containerUnit),
]
const rounds = [...Array(plan.rounds).keys()]
const all = rounds
  .flatMap(round =>
    units.map(({ turns, systems: { length } }) => turnsIn(plan.rounds, round, turns) * length),
  )
  .reduce((sum, count) => sum + count, 0)
let done = 0
for (const round of rounds) {
  for (const [at, unit] of units.entries()) {
    if (round === 0) await unit.rehearse?.()
    for (let turn = 0; turn < turnsIn(plan.rounds, round, unit.turns); turn++) {
      // Each round starts with another file system, so that no file system always follows the
      // slowest one.
      for (let n = 0; n < unit.systems.length; n++) {
        const system = unit.systems[(n + round + turn + at) % unit.systems.length] as System
        const text = `round ${round + 1} of ${plan.rounds}: ${unit.name} on ${system.name}`
        say({ type: 'progress', done: done++, all, text })
        await attempt(unit.name, system, () => unit.run(system, round + turn))
      }
    }
  }
}
process.send?.({ type: 'progress', done: all, all, text: 'done' } satisfies Message, () =>
  process.exit(0),
)
