/**
 * One pass: a process of its own, pinned to a processor or not, which measures everything in
 * interleaved rounds and sends each sample to the one that started it (run/main.ts).
 */

import { cpuOfAll, peakMemory, untilQuiet } from '../measure/processes.js'
import { findSystems } from '../systems/index.js'
import { mountSystem, unmountSystem, type Mounted } from '../systems/mounting.js'
import type { System } from '../systems/system.js'
import { workloadNamed } from '../workloads/index.js'
import {
  isMeasuredOn,
  isWarmedUp,
  MOUNT_STEP,
  UNMOUNT_STEP,
  type Place,
  type Workload,
} from '../workloads/workload.js'
import { Ground } from './ground.js'
import { client, finish, plan, reasonOf, say, scratch } from './child.js'
import type { Case, Sample } from './records.js'
import type { Medium } from './scratch.js'

const systems = findSystems(plan.peers, plan.rootless).filter(({ name }) =>
  plan.systems.includes(name),
)
const workloads = plan.workloads.map(workloadNamed)

/** After the work that nobody times a server may use the rest to get ready for more; then it has been idle for so long. */
const QUIET_MS = 100

/** What failed once is not tried in later rounds: a step that hangs would hang again. */
const failed = new Set<string>()

/** Says which step has failed. */
class StepError extends Error {
  readonly step: string
  constructor(step: string, cause: unknown) {
    super(reasonOf(cause))
    this.step = step
  }
}

/** All steps of a workload on a mount. */
const runSteps = async (
  mounted: Mounted,
  workload: Workload,
  place: Place,
  about: Omit<Case, 'step'>,
): Promise<void> => {
  if (isWarmedUp(workload)) {
    await client.warmUp(place)
    await untilQuiet(mounted.servers, QUIET_MS)
  }
  for (const { name } of workload.steps) {
    const sample = (step: string, taken: Omit<Sample, keyof Case | 'type'>): void =>
      say({ type: 'sample', ...about, step, ...taken })
    try {
      await client.prepare(workload.name, name, place)
      const cpuBefore = cpuOfAll(mounted.servers)
      const { operations, ms, also, cpu } = await client.run()
      const serverCpu = cpuOfAll(mounted.servers) - cpuBefore
      const memory = peakMemory(mounted.servers)
      sample(name, { operations, ms, clientCpu: cpu, serverCpu, memory })
      for (const [other, time] of Object.entries(also))
        sample(other, { operations: 1, ms: time, clientCpu: 0, serverCpu: 0, memory })
    } catch (error) {
      throw new StepError(name, error)
    }
  }
}

/** One workload on one file system: mount, steps, unmount. */
const runWorkload = async (
  ground: Ground,
  medium: Medium,
  system: System,
  workload: Workload,
  mark: string,
): Promise<void> => {
  const about = { medium, workload: workload.name, system: system.name }
  const sample = (step: string, ms: number, memory: number): Sample => ({
    type: 'sample',
    ...about,
    step,
    ms,
    memory,
    operations: 1,
    clientCpu: 0,
    serverCpu: 0,
  })
  let step: string = MOUNT_STEP
  try {
    const { folder, layers, place } = ground.prepare(workload)
    const mounted = await mountSystem(system, layers, folder, mark)
    if (workload.mountTitle !== undefined)
      say(sample(MOUNT_STEP, mounted.mountMs, peakMemory(mounted.servers)))
    try {
      await runSteps(mounted, workload, place, about)
    } finally {
      step = UNMOUNT_STEP
      const ms = await unmountSystem(mounted)
      if (workload.unmountTitle !== undefined) say(sample(UNMOUNT_STEP, ms, 0))
    }
  } catch (error) {
    failed.add(`${medium} ${workload.name} ${system.name}`)
    const where = error instanceof StepError ? error.step : step
    say({ type: 'failure', ...about, step: where, reason: reasonOf(error) })
  }
}

const parts = plan.media
  .map(medium => ({ medium, measured: workloads.filter(one => isMeasuredOn(one, medium)) }))
  .filter(({ measured }) => measured.length > 0)
const turns = parts.reduce((sum, { measured }) => sum + measured.length, 0)
const all = turns * plan.rounds * systems.length
let done = 0
for (const { medium, measured } of parts) {
  const ground = new Ground(scratch, medium, plan.scale)
  for (let round = 0; round < plan.rounds; round++) {
    for (const [at, workload] of measured.entries()) {
      // Each round another file system begins: nobody is always the one after the slowest.
      for (let n = 0; n < systems.length; n++) {
        const system = systems[(n + round + at) % systems.length] as System
        const text = `${medium}, round ${round + 1} of ${plan.rounds}: ${workload.name} on ${system.name}`
        say({ type: 'progress', done, all, text })
        done++
        if (failed.has(`${medium} ${workload.name} ${system.name}`)) continue
        await runWorkload(ground, medium, system, workload, `${scratch.top}/${done}`)
      }
    }
  }
}
finish(all)
