/** One run: the same layers twice, and the same calls on both unions, which must not differ. */

import { spawnSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { dirname } from 'node:path/posix'
import type { Tree, TreeRules } from '../helpers/tree.js'
import { readTree } from '../helpers/tree.js'
import { S } from '../helpers/syscalls.js'
import type { Action, Call } from './calls.js'
import { compareInos, compareOutcomes, compareTrees, showResult } from './compare.js'
import type { Draft } from './drafts.js'
import { Model } from './model.js'
import type { Mounter, UnionOptions } from './mounters.js'
import { MountFailed, kernelMounter } from './mounters.js'
import type { Side } from './perform.js'
import { closeSide, openSide, perform, isLeftOut, fixTimes } from './perform.js'
import type { LayerPaths, StackSpec } from './stack.js'
import { buildStack } from './stack.js'
import type { Before, Mismatch } from './tolerated.js'

export interface Step {
  call: Call
  /** The result of the reference. */
  ret: number | bigint
}

export interface Divergence {
  mismatches: Mismatch[]
  /** All steps up to and including the step that showed the difference. */
  trace: Step[]
}

export interface RunResult {
  divergence: Divergence | null
  calls: number
  /** The number of calls for each `op` and result. */
  tally: Record<string, number>
}

const EXACT: TreeRules = { now: 0n, exact: true }
/** A remount changes no time, not even one that is "now". */
const SAME_TIMES: TreeRules = { now: 1n << 80n }

class Diverged extends Error {
  constructor(mismatches: Mismatch[]) {
    super('diverged')
    this.mismatches = mismatches
  }
  readonly mismatches: Mismatch[]
}

/** A mount with its present layers. */
class Mounted {
  constructor(mounter: Mounter, mountpoint: string, layers: LayerPaths, options: UnionOptions) {
    this.mounter = mounter
    this.mountpoint = mountpoint
    this.layers = layers
    this.options = options
  }
  readonly mounter: Mounter
  readonly mountpoint: string
  readonly options: UnionOptions
  layers: LayerPaths
  side: Side | null = null

  get open(): Side {
    if (this.side === null) throw new Error('not mounted')
    return this.side
  }

  mount(writeBack: boolean): void {
    this.mounter.mount(this.layers, this.mountpoint, this.options)
    const { metacopy } = this.options
    this.side = openSide(this.mountpoint, { upper: this.layers.upper, writeBack, metacopy })
  }

  umount(): void {
    if (this.side === null) return
    closeSide(this.side)
    this.side = null
    this.mounter.umount(this.layers, this.mountpoint)
  }
}

const CAPABILITY = 'security.capability'

class Run {
  constructor(dir: string, stack: StackSpec, candidate: Mounter) {
    this.before = { flagged: false, capability: JSON.stringify(stack).includes(CAPABILITY) }
    const start = BigInt(Date.now() - 5000) * 1_000_000n
    this.rules = { now: start }
    const layersOf = (name: string): LayerPaths => {
      mkdirSync(`${dir}/${name}`)
      return buildStack(`${dir}/${name}`, stack)
    }
    // A symlink that leads above the mountpoint ends in one of the empty directories above it.
    const mountpoint = (name: string): string => {
      const path = `${dir}/mnt-${name}/o/o/o/o/o/o/m`
      mkdirSync(path, { recursive: true })
      return path
    }
    this.reference = new Mounted(kernelMounter, mountpoint('r'), layersOf('a'), stack)
    this.candidate = new Mounted(candidate, mountpoint('c'), layersOf('b'), stack)
    const lowers = [...this.reference.layers.lowers, ...this.candidate.layers.lowers]
    this.lowers = new Map(lowers.map(path => [path, readTree(path, true)]))
  }
  readonly rules: TreeRules
  readonly reference: Mounted
  readonly candidate: Mounted
  readonly lowers: Map<string, Tree>
  readonly model = new Model()
  readonly trace: Step[] = []
  calls = 0
  pushed = 0
  readonly before: Before
  readonly tally: Record<string, number> = {}

  private read(mounted: Mounted, action: Action | null): Tree {
    try {
      return readTree(mounted.mountpoint)
    } catch (error) {
      throw new Diverged([
        {
          action,
          field: 'reading the whole tree',
          expected: 'done',
          got: `${mounted === this.reference ? 'reference' : 'candidate'}: ${String(error)}`,
        },
      ])
    }
  }

  private expectSame(mismatches: Mismatch[]): void {
    if (mismatches.length > 0) throw new Diverged(mismatches)
  }

  mount(action: Action | null): void {
    for (const mounted of [this.reference, this.candidate])
      try {
        mounted.mount(this.candidate.mounter.writeBack)
      } catch (error) {
        if (!(error instanceof MountFailed)) throw error
        throw new Diverged([{ action, field: 'mount', expected: 'done', got: error.message }])
      }
  }

  umount(): void {
    this.reference.umount()
    this.candidate.umount()
  }

  /** Compares both trees and returns them. */
  compare(action: Action | null, when = ''): [Tree, Tree] {
    const expected = this.read(this.reference, action)
    const got = this.read(this.candidate, action)
    this.expectSame(compareTrees(action, expected, got, this.rules, when, this.before))
    this.model.reset([...expected.nodes].map(([path, n]) => [path, n.stat.mode & S.IFMT]))
    return [expected, got]
  }

  remount(action: Action | null, swap: boolean): void {
    const [expected, got] = this.compare(action)
    this.umount()
    this.model.closeAll()
    if (swap)
      [this.reference.layers, this.candidate.layers] = [
        this.candidate.layers,
        this.reference.layers,
      ]
    this.mount(action)
    const when = swap ? ' after a remount by the other' : ' after a remount'
    const [nowExpected, nowGot] = this.compare(action, when)
    const sameAs = (before: Tree, now: Tree): Mismatch[] => [
      ...compareTrees(action, before, now, SAME_TIMES, when),
      ...compareInos(action, before, now),
    ]
    // d_ino errors of overlayfs in a listing may not have occurred before the remount, or on the
    // candidate.
    const byKernel = sameAs(swap ? got : expected, nowExpected)
    this.expectSame(byKernel.filter(m => !m.field.startsWith('d_ino')))
    this.expectSame(sameAs(swap ? expected : got, nowGot))
  }

  push(action: Action): void {
    this.compare(action)
    if (this.reference.layers.upper === null) return
    this.umount()
    this.model.closeAll()
    this.pushed++
    for (const mounted of [this.reference, this.candidate]) {
      const { lowers, upper } = mounted.layers
      if (upper === null) continue
      const directory = (name: string): string => {
        const path = `${dirname(upper)}/${name}${this.pushed}`
        mkdirSync(path)
        return path
      }
      mounted.layers = { lowers: [upper, ...lowers], upper: directory('up'), work: directory('wk') }
      this.lowers.set(upper, readTree(upper, true))
    }
    this.mount(action)
    this.compare(action, ' after the upper layer became a lower one')
  }

  step(call: Call): void {
    const { action } = call
    const step: Step = { call, ret: 0 }
    this.trace.push(step)
    if (action.op === 'compare') this.compare(action)
    else if (action.op === 'remount') this.remount(action, action.swap)
    else if (action.op === 'push') this.push(action)
    else {
      this.calls++
      const expected = perform(this.reference.open, call)
      step.ret = expected.ret
      const key = `${action.op} ${expected.ret < 0 ? showResult(expected.ret) : 'ok'}`
      this.tally[key] = (this.tally[key] ?? 0) + 1
      if (isLeftOut(this.reference.open, action, expected)) {
        fixTimes(this.candidate.open, action, expected)
        return
      }
      const got = perform(this.candidate.open, call, expected)
      this.expectSame(compareOutcomes(action, expected, got, this.rules, this.before))
      this.model.note(action, expected)
      if ((action.op === 'setflags' || action.op === 'fsetflags') && action.flags & 0x30)
        this.before.flagged = true
      if ('name' in action && action.name === CAPABILITY) this.before.capability = true
    }
  }

  /** A lower layer must be unchanged: every byte, xattr and time. */
  compareLowers(): void {
    for (const [path, before] of this.lowers)
      this.expectSame(
        compareTrees(null, before, readTree(path, true), EXACT, ` in the lower layer ${path}`),
      )
  }
}

/** Removes the files of a run. */
export const removeRunDir = (dir: string): void => {
  const remove = (): number | null =>
    spawnSync('rm', ['-rf', '--one-file-system', dir], { stdio: 'ignore' }).status
  if (remove() === 0) return
  // A file may still be immutable.
  spawnSync('chattr', ['-R', '-f', '-i', '-a', dir], { stdio: 'ignore' })
  remove()
}

export interface RunOptions {
  /** An empty directory for this run. */
  dir: string
  candidate: Mounter
  /** Called after every step. */
  onStep: (step: number) => void
  /** Keep the directory. */
  keep?: boolean
  /** Only the steps: no remounts at the end. */
  short?: boolean
}

/** Runs drafts, which are resolved in their turn, or complete calls. */
export const runSteps = (
  stack: StackSpec,
  steps: (Draft | Call)[],
  options: RunOptions,
): RunResult => {
  mkdirSync(options.dir)
  const run = new Run(options.dir, stack, options.candidate)
  try {
    run.mount(null)
    run.compare(null)
    steps.forEach((step, i) => {
      run.step(typeof step === 'function' ? step(run.model) : step)
      options.onStep(i)
    })
    if (options.short !== true) {
      run.remount(null, false)
      run.remount(null, true)
      run.umount()
      run.compareLowers()
    }
    return { divergence: null, calls: run.calls, tally: run.tally }
  } catch (error) {
    if (!(error instanceof Diverged)) throw error
    return {
      divergence: { mismatches: error.mismatches, trace: run.trace },
      calls: run.calls,
      tally: run.tally,
    }
  } finally {
    try {
      run.umount()
    } catch {
      // Best effort: the caller unmounts everything below its directory.
    }
    if (options.keep !== true) removeRunDir(options.dir)
  }
}
