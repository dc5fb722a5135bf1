/** The command line. */

import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { parseArgs } from 'node:util'
import * as os from 'node:os'
import { findSystems } from '../systems/index.js'
import type { System } from '../systems/system.js'
import { workloads } from '../workloads/index.js'
import { MEMORY } from '../workloads/seen.js'
import type { Workload } from '../workloads/workload.js'
import { hasProgram, root } from './environment.js'
import { makerOf, type Medium } from './scratch.js'

export const USAGE = `usage: npm run bench -- [options]
  --only WORD,…      only file systems and workloads whose names contain one of the words; where
                     no word names a file system (or no workload), all of them are taken
  --rounds N         how often everything is measured (7)
  --scale X          multiplies sizes and counts (1)
  --ext4             also on ext4, in an image that is made for it
  --xfs, --btrfs     also on these, where a file can share another one's blocks: large copy-ups only
  --processors WHICH pinned: all processes on one processor; free; or both, one after the other (both)
  --rootless         also as the root of a user namespace, on a tmpfs of it, with what can be mounted there
  --peer NAME=CMD    one more file system: a command that returns when the mount is live, with
                     {lower} (joined with colons), {upper}, {work} and {mnt}; may be repeated
  --dir DIR          where to mount a tmpfs, and for the images (${os.tmpdir()})
  --out DIR          where latest.json, latest.md and latest.svg go (bench/results)
  --list             show file systems and workloads, and measure nothing
  --help

Needs root and /dev/fuse, and at scale 1 about 2 GiB of memory. bench/README.md says how long it takes.
`

/** The processors that everything runs on. */
const PROCESSORS = ['pinned', 'free'] as const
/** Rootless is free as well, in a user namespace. */
export type Pass = (typeof PROCESSORS)[number] | 'rootless'

/** Makes what is started a root without rights outside of its namespaces, who may mount. */
export const UNSHARE = ['unshare', '--user', '--map-root-user', '--mount'] as const

/** What the processes that measure are told. */
export interface Plan {
  systems: string[]
  workloads: string[]
  media: Medium[]
  /** Whether memory for each file seen is measured as well. */
  memory: boolean
  rounds: number
  scale: number
  /** Whether the process is in a user namespace. */
  rootless: boolean
  peers: string[]
  dir: string
}

export interface Options {
  plan: Plan
  systems: System[]
  passes: Pass[]
  /** What was asked for and can't be measured on this machine. */
  leftOut: LeftOut[]
  out: string
  list: boolean
}

export interface LeftOut {
  name: string
  reason: string
}

export class UsageError extends Error {}

/** A filter word stands for every name that contains it. */
const choose = (names: readonly string[], words: readonly string[]): string[] => {
  const chosen = names.filter(name => words.some(word => name.includes(word)))
  return chosen.length === 0 ? [...names] : chosen
}

const parse = () => {
  try {
    return parseArgs({
      options: {
        only: { type: 'string', default: '' },
        rounds: { type: 'string', default: '7' },
        scale: { type: 'string', default: '1' },
        ext4: { type: 'boolean', default: false },
        xfs: { type: 'boolean', default: false },
        btrfs: { type: 'boolean', default: false },
        processors: { type: 'string', default: 'both' },
        rootless: { type: 'boolean', default: false },
        peer: { type: 'string', multiple: true, default: [] },
        dir: { type: 'string', default: os.tmpdir() },
        out: { type: 'string', default: `${root}/bench/results` },
        list: { type: 'boolean', default: false },
        help: { type: 'boolean', default: false },
      },
    }).values
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error))
  }
}

const canUnshare = (): boolean => {
  const [program, ...args] = UNSHARE
  return spawnSync(program, [...args, 'true']).status === 0
}

/** Many containers have none. The kernel makes a device for whoever opens this one. */
const hasLoopDevices = (): boolean => existsSync('/dev/loop-control')

/** Why something can't be measured here: nothing, or the programs that it needs. */
const missing = ({ name, programs = [] }: Pick<Workload, 'name' | 'programs'>): LeftOut[] => {
  const absent = programs.filter(program => !hasProgram(program))
  return absent.length === 0 ? [] : [{ name, reason: `it needs ${absent.join(' and ')}` }]
}

/**
 * Reads the command line; null: it asks for help.
 * @throws {UsageError}
 */
export const readOptions = (): Options | null => {
  const values = parse()
  if (values.help) return null

  const rounds = Number(values.rounds)
  if (!Number.isSafeInteger(rounds) || rounds < 1) throw new UsageError('--rounds: not a count')
  const scale = Number(values.scale)
  if (!(scale > 0 && scale <= 100)) throw new UsageError('--scale: not a number up to 100')
  const passes: Pass[] = PROCESSORS.filter(
    pass => values.processors === 'both' || values.processors === pass,
  )
  if (passes.length === 0) throw new UsageError('--processors: pinned, free or both')

  let systems: System[]
  try {
    systems = findSystems(values.peer)
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error))
  }
  const systemNames = systems.map(({ name }) => name)
  const workloadNames = [...workloads.map(({ name }) => name), MEMORY]
  const words = values.only.split(',').filter(word => word !== '')
  for (const word of words)
    if (![...systemNames, ...workloadNames].some(name => name.includes(word)))
      throw new UsageError(`--only: neither a file system nor a workload is named ${word}`)
  const chosen = choose(systemNames, words)
  const chosenWorkloads = choose(workloadNames, words)
  const images = (['ext4', 'xfs', 'btrfs'] as const).filter(image => values[image])
  const leftOut = [
    ...workloads.filter(({ name }) => chosenWorkloads.includes(name)).flatMap(missing),
    ...images.flatMap(name =>
      hasLoopDevices()
        ? missing({ name, programs: [makerOf(name)] })
        : [{ name, reason: 'it needs loop devices' }],
    ),
  ]
  if (values.rootless) {
    if (canUnshare()) passes.push('rootless')
    else leftOut.push({ name: 'rootless', reason: 'no user namespace can be made by unshare(1)' })
  }
  const isLeftOut = new Set(leftOut.map(({ name }) => name))

  return {
    plan: {
      systems: chosen,
      workloads: chosenWorkloads.filter(name => name !== MEMORY && !isLeftOut.has(name)),
      memory: chosenWorkloads.includes(MEMORY),
      media: ['tmpfs', ...images.filter(name => !isLeftOut.has(name))],
      rounds,
      scale,
      rootless: false,
      peers: values.peer,
      dir: values.dir,
    },
    systems: systems.filter(({ name }) => chosen.includes(name)),
    passes,
    leftOut,
    out: values.out,
    list: values.list,
  }
}
