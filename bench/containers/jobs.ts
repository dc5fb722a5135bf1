/**
 * Container workloads: several podman commands, or a build, timed from the start of the first
 * command to the end of the last.
 */

import * as fs from 'node:fs'
import { cli } from '../run/environment.js'
import { StepError, type Found } from '../run/turn.js'
import type { State } from '../run/records.js'
import { cpuUsed, usage } from '../measure/processes.js'
import { endServers } from '../systems/mounting.js'
import type { System } from '../systems/system.js'
import { scaled } from '../works/work.js'
import { IMAGE, type Storage } from './podman.js'

/** The parameters of a job. */
export interface JobOptions {
  system: System
  storage: Storage
  /** The state before the job. */
  state: State
  /** The factor for the number of containers. */
  scale: number
  /** The name of tsoverlay's resident server. */
  server: string
  /** Puts a command into a cgroup of its own; null if no group can be created. */
  ownCgroup: ((words: readonly string[]) => string[]) | null
}

type Run = (words: readonly string[]) => Promise<string>

export interface Job {
  name: string
  title: string
  work(run: Run, storage: Storage, scale: number): Promise<void>
}

/** A short container with some work. */
const SCRIPT = `cat /data/d1/* | wc -l
ls -lR /data >/tmp/list
echo changed >>/data/d2/f1
rm -r /data/d3
mkdir /data/new && cp -r /data/d4 /data/new`
const SAID = '2000'

const container = async (run: Run, storage: Storage): Promise<void> => {
  const said = await run(storage.container(SCRIPT))
  if (said !== SAID) throw new Error(`the container said ${said.slice(0, 200)}`)
}

const CONTAINERFILE = `FROM ${IMAGE}
RUN mkdir /app && cp -r /data/d0 /app/one
RUN rm -r /data/d1 && echo two >/app/two
RUN cp -r /app/one /app/three && chmod -R g-r /data/d2
RUN ls -lR / >/app/list 2>/dev/null; test -s /app/list
`

const BUILT = 'built'

const build: Job['work'] = async (run, storage) => {
  const context = `${storage.directory}/context`
  fs.mkdirSync(context, { recursive: true })
  fs.writeFileSync(`${context}/Containerfile`, CONTAINERFILE)
  const options = ['--layers', '--no-cache', '--network=none', ...storage.cgroupParent]
  await run(['buildah', 'bud', '-q', ...options, '-t', BUILT, context])
}

export const jobs: readonly Job[] = [
  {
    name: 'containers-8',
    title: '8 short containers, one after the other',
    async work(run, storage, scale) {
      for (let n = 0; n < scaled(8, scale); n++) await container(run, storage)
    },
  },
  { name: 'containers-build', title: 'buildah build of 4 steps', work: build },
  {
    name: 'containers-6-at-once',
    title: '6 short containers at once',
    async work(run, storage, scale) {
      const all = Array.from({ length: scaled(6, scale) }, () => container(run, storage))
      await Promise.all(all)
    },
  },
]

/** Matches the titles of servers, and the files that they are started from. */
const SERVER = /tsoverlay/

/**
 * Runs one job, then ends all servers.
 * @throws {StepError}
 */
export const runJob = async (job: Job, surroundings: JobOptions): Promise<Found> => {
  const { system, storage, state, scale, server, ownCgroup } = surroundings
  const env = { TSOVERLAY_SERVER: server }
  const run: Run = words =>
    storage.run(state === 'cgroups' && ownCgroup !== null ? ownCgroup(words) : words, env)
  try {
    if (state === 'started') await storage.run([cli, 'server', 'start'], env)
    const cpuBefore = cpuUsed()
    const before = performance.now()
    await job.work(run, storage, scale)
    const ms = performance.now() - before
    const { cpu, ...held } = usage(undefined)
    return { step: job.name, state, operations: 1, ms, cpu: cpu - cpuBefore, ...held }
  } catch (error) {
    throw new StepError(job.name, error)
  } finally {
    await endServers(system, undefined, SERVER)
    if (job.work === build) {
      await storage.run(['podman', 'rmi', '-f', BUILT], env)
      await endServers(system, undefined, SERVER)
    }
  }
}
