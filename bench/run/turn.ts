/**
 * One turn of one file system at one workload: new mounts, the steps directly after mounting, and
 * the end of all servers.
 */

import { setTimeout as pause } from 'node:timers/promises'
import type { Client } from '../measure/client.js'
import { cpuUsed, usage } from '../measure/processes.js'
import { endServers, mount, unmount } from '../systems/mounting.js'
import type { System } from '../systems/system.js'
import { MOUNT_STEP, runsOf, type MountPaths, type Workload } from '../works/work.js'
import type { Ground } from './ground.js'
import type { Case, Sample, State } from './records.js'

/** The result of a turn. */
export type Found = Omit<Sample, 'type' | 'work' | 'system'>

/** An error with the name of the failed step. */
export class StepError extends Error {
  readonly step: Case['step']
  constructor(step: string, cause: unknown) {
    super(cause instanceof Error ? cause.message : String(cause))
    this.step = step
  }
}

export class Turn {
  readonly #client: Client
  readonly #ground: Ground
  readonly #system: System
  readonly #work: Workload
  readonly #env: NodeJS.ProcessEnv
  readonly #say: (found: Found) => void
  #mounted: string[] = []

  constructor(
    client: Client,
    ground: Ground,
    system: System,
    work: Workload,
    env: NodeJS.ProcessEnv,
    say: (found: Found) => void,
  ) {
    this.#client = client
    this.#ground = ground
    this.#system = system
    this.#work = work
    this.#env = env
    this.#say = say
  }

  /** @throws {StepError} */
  async run(): Promise<void> {
    this.#ground.begin(this.#work)
    try {
      let place = await this.#mountFresh('first')
      if (this.#system.kind === 'own') {
        await this.#unmount()
        place = await this.#mountFresh('further')
      }
      const runs = runsOf(this.#work)
      for (let run = 1; run < runs; run++) {
        await this.#client.prepare(this.#work.name, run, place)
        await this.#steps(run === runs - 1 ? 'steady' : undefined, cpuUsed())
      }
    } finally {
      try {
        await this.#unmount()
      } finally {
        await endServers(this.#system, this.#client.pid)
        this.#ground.end()
      }
    }
  }

  /** Mounts new layers and runs the steps directly after that. */
  async #mountFresh(state: State): Promise<MountPaths> {
    const { mountTitle, idleMs = 0, name, ownServer } = this.#work
    const { directory, layers, place } = this.#ground.prepare(this.#work)
    await this.#client.prepare(name, 0, place)
    let cpu = cpuUsed()
    const before = performance.now()
    try {
      for (const one of layers) {
        await mount(this.#system, one, directory, this.#env, ownServer)
        this.#mounted.push(one.mountpoint)
      }
    } catch (error) {
      throw new StepError(MOUNT_STEP, error)
    }
    const ms = performance.now() - before
    if (idleMs > 0) await pause(idleMs * Math.min(1, place.scale))
    if (mountTitle !== undefined) cpu = this.#report(MOUNT_STEP, state, layers.length, ms, cpu)
    await this.#steps(state, cpu)
    return place
  }

  /** Runs the prepared steps. */
  async #steps(state: State | undefined, cpuBefore: number): Promise<void> {
    let cpu = cpuBefore
    for (const [n, { name, title }] of this.#work.steps.entries()) {
      try {
        const { operations, ms } = await this.#client.start(n)
        if (state !== undefined && title !== '')
          cpu = this.#report(name, state, operations, ms, cpu)
        else cpu = cpuUsed()
      } catch (error) {
        throw new StepError(name, error)
      }
    }
  }

  /** @returns the CPU time used so far */
  #report(step: string, state: State, operations: number, ms: number, cpuBefore: number): number {
    const { cpu, ...held } = usage(this.#client.pid)
    this.#say({ step, state, operations, ms, cpu: cpu - cpuBefore, ...held })
    return cpu
  }

  async #unmount(): Promise<void> {
    for (const at of this.#mounted.splice(0)) await unmount(at)
  }
}
