/**
 * Counts requests: mounts through the library, whose server has counters, and asks it before and
 * after each step. A process of its own, because a library's mount belongs to its process; and apart
 * from what is timed, because nobody should be asked for counters while the clock runs.
 */

import * as path from 'node:path'
import { client, finish, plan, reasonOf, say, scratch } from '../run/child.js'
import { library } from '../run/environment.js'
import { Ground } from '../run/ground.js'
import { MODES, ownName, type Mode } from '../systems/index.js'
import { workloadNamed } from '../workloads/index.js'
import { isMeasuredOn, isWarmedUp, type Workload } from '../workloads/workload.js'

/** The part of the library that is used here; see src/mount.ts. It is loaded as its users load it. */
interface Library {
  mount(
    this: void,
    options: {
      lower: readonly string[]
      upper: string
      work: string
      mountpoint: string
      io: Mode
    },
  ): Promise<{
    stats(): Promise<Record<string, number>>
    unmount(options?: { lazy?: boolean }): Promise<void>
    closed: Promise<void>
  }>
}

const { mount } = (await import(library)) as Library

const ground = new Ground(scratch, 'tmpfs', plan.scale)

/** Requests by opcode, between two looks at the counters. */
const difference = (
  before: Record<string, number>,
  after: Record<string, number>,
): Record<string, number> =>
  Object.fromEntries(
    Object.entries(after)
      .filter(([name]) => name.startsWith('op.'))
      .map(([name, count]) => [name.slice('op.'.length), count - (before[name] ?? 0)] as const)
      .filter(([, count]) => count > 0)
      .toSorted(([, a], [, b]) => b - a),
  )

const count = async (workload: Workload, io: Mode): Promise<void> => {
  const { folder, layers, place } = ground.prepare(workload)
  const { upper, work, mountpoint } = layers
  const lower = layers.lowers.map(name => path.resolve(folder, name))
  const mounted = await mount({ lower, upper, work, mountpoint, io })
  try {
    if (isWarmedUp(workload)) await client.warmUp(place)
    for (const { name, reference } of workload.steps) {
      if (reference) continue
      await client.prepare(workload.name, name, place)
      const before = await mounted.stats()
      const { operations } = await client.run()
      const byOpcode = difference(before, await mounted.stats())
      const about = { workload: workload.name, step: name, system: ownName(io) }
      say({ type: 'requests', ...about, operations, byOpcode })
    }
  } finally {
    // Busy after a step that has failed: the client is only just ending.
    await mounted.unmount().catch(() => mounted.unmount({ lazy: true }))
  }
}

const modes = MODES.filter(io => plan.systems.includes(ownName(io)))
const workloads = plan.workloads.map(workloadNamed).filter(one => isMeasuredOn(one, 'tmpfs'))
const all = modes.length * workloads.length
let done = 0
for (const workload of workloads) {
  for (const io of modes) {
    say({ type: 'progress', done, all, text: `requests of ${workload.name} on ${ownName(io)}` })
    done++
    if (workload.steps.length === 0) continue
    try {
      await count(workload, io)
    } catch (error) {
      const about = { workload: workload.name, system: ownName(io), step: 'requests' }
      say({ type: 'failure', medium: 'tmpfs', ...about, reason: reasonOf(error) })
    }
  }
}
finish(all)
