/**
 * What a server keeps in memory for each file that was looked at. A process of its own, apart from what is
 * timed: it is measured once, and the kernel is made to forget, which nobody should meet while the clock runs.
 */

import { setTimeout as pause } from 'node:timers/promises'
import { client, finish, plan, reasonOf, say, scratch } from '../run/child.js'
import { Ground } from '../run/ground.js'
import { findSystems } from '../systems/index.js'
import { mountSystem, unmountSystem } from '../systems/mounting.js'
import type { System } from '../systems/system.js'
import { seenAt } from '../workloads/seen.js'
import type { Workload } from '../workloads/workload.js'
import { forgetUnused } from './calls.js'
import { residentMemory, untilQuiet } from './processes.js'

const ground = new Ground(scratch, 'tmpfs', plan.scale)

const QUIET_MS = 300
/** Servers may wait for a quiet moment before they give memory back. */
const GIVE_BACK_MS = 3000

/** Waits until servers have nothing more to do: nobody waits for an answer to what the kernel forgets. */
const settle = async (servers: readonly number[]): Promise<void> => {
  await untilQuiet(servers, QUIET_MS)
  await pause(GIVE_BACK_MS)
  await untilQuiet(servers, QUIET_MS)
}

const measure = async (workload: Workload, system: System, mark: string): Promise<void> => {
  const { folder, layers, place } = ground.prepare(workload)
  const mounted = await mountSystem(system, layers, folder, mark)
  const { servers, mountpoint } = mounted
  try {
    await client.warmUp(place)
    await settle(servers)
    const before = residentMemory(servers)
    await client.prepare(workload.name, 'look', place)
    const { operations } = await client.run()
    const after = residentMemory(servers)
    forgetUnused(mountpoint)
    await settle(servers)
    const forgotten = residentMemory(servers)
    say({ type: 'memory', system: system.name, nodes: operations, before, after, forgotten })
  } finally {
    await unmountSystem(mounted)
  }
}

const systems = findSystems(plan.peers).filter(
  ({ name, kind }) => kind !== 'kernel' && plan.systems.includes(name),
)
const workloads = seenAt(plan.scale)
const all = systems.length * workloads.length
let done = 0
for (const system of systems) {
  for (const workload of workloads) {
    say({ type: 'progress', done, all, text: `${workload.name} on ${system.name}` })
    done++
    try {
      await measure(workload, system, `${scratch.top}/${done}`)
    } catch (error) {
      const about = { workload: workload.name, system: system.name, step: 'memory' }
      say({ type: 'failure', medium: 'tmpfs', ...about, reason: reasonOf(error) })
    }
  }
}
finish(all)
