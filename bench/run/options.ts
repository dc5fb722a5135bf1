/** The command line. */

import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import * as os from 'node:os'
import { parseArgs } from 'node:util'
import { jobs } from '../containers/jobs.js'
import { PROGRAMS } from '../containers/podman.js'
import { findSystems } from '../systems/index.js'
import type { System } from '../systems/system.js'
import { works } from '../works/index.js'
import { hasProgram, root } from './environment.js'
import { makerOf, MEDIA, type Medium } from './scratch.js'

/**
 * The default number of rounds. The number of turns that a workload declares is for this number of
 * rounds.
 */
export const ROUNDS = 5
const QUICK_ROUNDS = 1

export const USAGE = `usage: npm run bench -- [options]
  --quick            one round instead of ${ROUNDS}
  --only WORD,…      only file systems and works whose names contain one of the words; where
                     no word names a file system (or no work), all of them are taken
  --rounds N         how often everything is measured (${ROUNDS})
  --scale X          multiplies sizes and counts (1)
  --processors WHICH pinned: all processes on one processor; free; or both, one after the other (both)
  --rootless         also as the root of a user namespace, with what can be mounted there
  --medium NAME      tmpfs, or ext4, xfs or btrfs in an image that is made for it (tmpfs)
  --peer NAME=CMD    one more file system: a program that is called as fuse-overlayfs is, or a command
                     with {lower} (joined with colons), {upper}, {work} and {mnt}; may be repeated
  --option OPTIONS   more mount options of tsoverlay, such as io=cached
  --dir DIR          where to mount a tmpfs, and for the image (${os.tmpdir()})
  --out DIR          where report.json and report.md go (bench/results/latest)
  --readme           put the table into README.md as well
  --list             show file systems and works, and measure nothing
  --help

Needs root and /dev/fuse, and at scale 1 about 2 GiB of memory. bench/README.md says how long it takes.
`

/** The processors for all processes. `rootless` uses all of them, in a user namespace. */
export const PASSES = ['free', 'pinned', 'rootless'] as const
export type Pass = (typeof PASSES)[number]

/**
 * Starts a process as root of a new user namespace, which may mount but has no rights outside of
 * it.
 */
export const UNSHARE = ['unshare', '--user', '--map-root-user', '--mount'] as const

/** The options that the measuring processes get. */
export interface Plan {
  systems: string[]
  works: string[]
  medium: Medium
  rounds: number
  scale: number
  /** Whether the process is in a user namespace. */
  rootless: boolean
  peers: string[]
  option: string
  dir: string
}

export interface Options {
  plan: Plan
  systems: System[]
  passes: Pass[]
  /** Requested file systems and workloads that can't be measured on this machine. */
  leftOut: LeftOut[]
  out: string
  readme: boolean
  list: boolean
}

export interface LeftOut {
  name: string
  reason: string
}

export class UsageError extends Error {}

/** The number of turns of a workload in a round: 1, or its share of the turns for the whole run. */
export const turnsIn = (rounds: number, round: number, turns: number | undefined): number => {
  if (turns === undefined) return 1
  const all = Math.max(1, Math.round((turns * rounds) / ROUNDS))
  return Math.ceil(((round + 1) * all) / rounds) - Math.ceil((round * all) / rounds)
}

/** A filter word selects every name that contains it. */
const choose = (names: readonly string[], words: readonly string[]): string[] => {
  const chosen = names.filter(name => words.some(word => name.includes(word)))
  return chosen.length === 0 ? [...names] : chosen
}

const parse = () => {
  try {
    return parseArgs({
      options: {
        quick: { type: 'boolean', default: false },
        only: { type: 'string', default: '' },
        rounds: { type: 'string' },
        scale: { type: 'string', default: '1' },
        processors: { type: 'string', default: 'both' },
        rootless: { type: 'boolean', default: false },
        medium: { type: 'string', default: 'tmpfs' },
        peer: { type: 'string', multiple: true, default: [] },
        option: { type: 'string', default: '' },
        dir: { type: 'string', default: os.tmpdir() },
        out: { type: 'string', default: `${root}/bench/results/latest` },
        readme: { type: 'boolean', default: false },
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

/** Why something can't be measured here; the programs that it needs. */
const missing = (name: string, programs: readonly string[] = []): LeftOut[] => {
  const absent = programs.filter(program => !hasProgram(program))
  return absent.length === 0 ? [] : [{ name, reason: `it needs ${absent.join(' and ')}` }]
}

const mediumOf = (name: string): Medium => {
  const medium = MEDIA.find(one => one === name)
  if (medium === undefined) throw new UsageError(`--medium: ${MEDIA.join(', ')}`)
  if (medium === 'tmpfs') return medium
  // Many containers have no loop devices. Opening loop-control lets the kernel create one.
  if (!existsSync('/dev/loop-control')) throw new UsageError('--medium: it needs loop devices')
  if (!hasProgram(makerOf(medium))) throw new UsageError(`--medium: it needs ${makerOf(medium)}`)
  return medium
}

/**
 * Parses the command line; null if it asks for help.
 * @throws {UsageError}
 */
export const readOptions = (): Options | null => {
  const values = parse()
  if (values.help) return null

  const rounds = Number(values.rounds ?? (values.quick ? QUICK_ROUNDS : ROUNDS))
  if (!Number.isSafeInteger(rounds) || rounds < 1) throw new UsageError('--rounds: not a count')
  const scale = Number(values.scale)
  if (!(scale > 0 && scale <= 100)) throw new UsageError('--scale: not a number up to 100')
  const passes: Pass[] = PASSES.filter(
    pass => pass === values.processors || (pass !== 'rootless' && values.processors === 'both'),
  )
  if (passes.length === 0) throw new UsageError('--processors: pinned, free or both')
  const medium = mediumOf(values.medium)

  let systems: System[]
  try {
    systems = findSystems({ peers: values.peer, option: values.option, rootless: false })
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error))
  }
  const systemNames = systems.map(({ name }) => name)
  const workNames = [...works, ...jobs].map(({ name }) => name)
  const words = values.only.split(',').filter(word => word !== '')
  for (const word of words)
    if (![...systemNames, ...workNames].some(name => name.includes(word)))
      throw new UsageError(`--only: neither a file system nor a work is named ${word}`)
  const chosen = choose(systemNames, words)
  const chosenWorks = choose(workNames, words)
  const leftOut = [
    ...works.flatMap(({ name, programs }) => missing(name, programs)),
    ...jobs.flatMap(({ name }) => missing(name, PROGRAMS)),
  ].filter(({ name }) => chosenWorks.includes(name))
  if (values.rootless && passes[0] !== 'rootless') {
    if (canUnshare()) passes.push('rootless')
    else leftOut.push({ name: 'rootless', reason: 'no user namespace can be made by unshare(1)' })
  }
  const isLeftOut = new Set(leftOut.map(({ name }) => name))

  return {
    plan: {
      systems: chosen,
      works: chosenWorks.filter(name => !isLeftOut.has(name)),
      medium,
      rounds,
      scale,
      rootless: false,
      peers: values.peer,
      option: values.option,
      dir: values.dir,
    },
    systems: systems.filter(({ name }) => chosen.includes(name)),
    passes,
    leftOut,
    out: values.out,
    readme: values.readme,
    list: values.list,
  }
}
