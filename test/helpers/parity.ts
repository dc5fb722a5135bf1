/**
 * The same calls on kernel overlayfs and on a union, over the same lower layers and equal upper
 * ones: same results, same tree, same bytes on disk, and the same tree after either upper layer is
 * mounted again.
 */

import * as fs from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'
import type { UnionOptions } from '../../src/overlay/options.js'
import { E } from '../../src/sys/errno.js'
import { KernelFs, type Fs } from './fs-calls.js'
import { build, scratch, unionDirectories, type Layer, type UnionDirectories } from './layers.js'
import * as sys from './syscalls.js'
import { diffTrees, readTree, type Difference, type Tree } from './tree.js'
import { optionsOf, UnionFs } from './union.js'

const probe = (): string | false => {
  if (process.geteuid?.() !== 0) return 'needs root'
  const base = process.env['TSOVERLAY_TEST_DIR'] ?? '/var/tmp'
  const top = fs.mkdtempSync(`${base}/tsoverlay-probe-`)
  try {
    for (const name of ['1', 'upper', 'work', 'merged']) fs.mkdirSync(`${top}/${name}`)
    const where = {
      top,
      lower: [`${top}/1`],
      upper: `${top}/upper`,
      work: `${top}/work`,
      merged: `${top}/merged`,
    }
    const result = mountKernel(where, 'index=on')
    if (result < 0) return `kernel overlayfs can't be mounted here: errno ${-result}`
    const made = sys.mknodat(sys.AT_FDCWD, `${top}/upper/w`, sys.S.IFCHR, 0, 0)
    sys.umount(where.merged)
    return made < 0 ? `whiteouts can't be made here: errno ${-made}` : false
  } finally {
    fs.rmSync(top, { recursive: true, force: true })
  }
}

/** A minute. */
const PAUSE_MS = 20
const TRIES = 3000

/**
 * Mounts the kernel's overlayfs on `merged`. A mount that was ended just before keeps its layers
 * (EBUSY) while a process in a mount namespace of its own, which another test has started, has a
 * copy of it: as long as that lives, on a busy machine some ten seconds.
 */
export const mountKernel = (
  where: Pick<UnionDirectories, 'lower' | 'upper' | 'work' | 'merged'>,
  options = '',
): number => {
  const layers = `lowerdir=${where.lower.join(':')},upperdir=${where.upper},workdir=${where.work}`
  const data = options === '' ? layers : `${layers},${options}`
  for (let tries = 0; ; tries++) {
    const result = sys.mount('overlay', where.merged, 'overlay', sys.MS.NOATIME, data)
    if (result !== -E.EBUSY || tries === TRIES) return result
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, PAUSE_MS)
  }
}

/** Why there is nothing to compare with, or false. */
export const skipParity = probe()

/** What the kernel's overlayfs has under a mountpoint, while `use` runs. */
export const withKernel = async <T>(
  where: UnionDirectories,
  options: string,
  use: (kernel: KernelFs) => T | Promise<T>,
): Promise<T> => {
  clearVolatile(where)
  const mounted = mountKernel(where, options)
  if (mounted < 0) throw new Error(`mount of kernel overlayfs: errno ${-mounted}`)
  try {
    return await use(new KernelFs(where.merged))
  } finally {
    const result = sys.umount(where.merged)
    if (result < 0) {
      sys.umount(where.merged, sys.MNT.DETACH)
      // oxlint-disable-next-line no-unsafe-finally -- a mount that is still used is a fault of the test
      throw new Error(`umount: errno ${-result}`)
    }
  }
}

/** Takes away the mark that keeps a workdir from being used again. */
export const clearVolatile = (where: Pick<UnionDirectories, 'work'>): void =>
  fs.rmSync(join(where.work, 'work', 'incompat'), { recursive: true, force: true })

export interface Scenario {
  lower: Layer[]
  upper?: Layer
  /** Of the union. Without `volatile: false` nothing is synced, on either side. */
  options?: Partial<UnionOptions>
  /** More options for the kernel, where these don't follow from the union's. */
  kernel?: string
  /** Lookups stay in the kernel's cache from call to call. */
  warm?: boolean
  /** Passes over what may be different. */
  tolerate?: (difference: Difference) => boolean
  /** What may be different on disk, but does not show. */
  onDisk?: (difference: Difference) => boolean
  /** On a tmpfs, where much is made and removed again fast. */
  memory?: boolean
  /** Upper layers are not compared: the two write another form. */
  otherForm?: boolean
}

const kernelOptions = (scenario: Scenario, options: UnionOptions): string =>
  [
    `redirect_dir=${options.redirectDir}`,
    `index=${options.index ? 'on' : 'off'}`,
    'metacopy=off',
    'uuid=null',
    ...(options.userxattr === true ? ['userxattr'] : []),
    ...(options.volatile ? ['volatile'] : []),
    ...(scenario.kernel === undefined ? [] : [scenario.kernel]),
  ]
    .filter(option => !(options.userxattr === true && option.startsWith('redirect_dir')))
    .join()

/** Two upper layers over the same lower ones. */
interface Sides {
  ours: UnionDirectories
  theirs: UnionDirectories
  options: UnionOptions
  /** The kernel's mount options. */
  kernel: string
  differences: (expected: Tree, got: Tree) => string[]
}

const sides = async (t: Test, scenario: Scenario): Promise<Sides> => {
  const now = BigInt(Date.now() - 60_000) * 1_000_000n
  const top = scratch(t, scenario.memory === true ? 'tmpfs' : 'disk')
  const ours = unionDirectories(t, scenario, top)
  const theirs: UnionDirectories = {
    ...ours,
    upper: `${top}/kernel-upper`,
    work: `${top}/kernel-work`,
  }
  fs.mkdirSync(theirs.upper)
  fs.mkdirSync(theirs.work)
  build(theirs.upper, scenario.upper ?? {})
  const options = optionsOf(ours, { volatile: true, ...scenario.options })
  const kernel = kernelOptions(scenario, options)
  // At its first look the kernel marks upper directories that were made by hand (ovl_fix_origin).
  for (const where of [theirs, ours]) await withKernel(where, kernel, mount => void mount.tree())
  clearVolatile(ours)
  return {
    ours,
    theirs,
    options,
    kernel,
    differences: (a, b) => show(diffTrees(a, b, { now }), scenario),
  }
}

const compareLayers = (t: Test, name: string, scenario: Scenario, where: Sides): void => {
  const { ours, theirs } = where
  const now = BigInt(Date.now() - 60_000) * 1_000_000n
  const { onDisk = () => false } = scenario
  const written = diffLayers(readTree(theirs.upper, true), readTree(ours.upper, true), now)
  const worked = diffWork(theirs.work, ours.work, now)
  const left = (all: Difference[]): string[] =>
    show(
      all.filter(d => !onDisk(d)),
      scenario,
    )
  t.strictSame(left(written), [], `${name}: upper layer`)
  t.strictSame(left(worked), [], `${name}: work directory`)
}

/** A union that is opened, used and closed. */
const withUnion = async <T>(
  options: UnionOptions,
  use: (union: UnionFs) => T | Promise<T>,
): Promise<T> => {
  if (options.work !== undefined) clearVolatile({ work: options.work })
  const union = new UnionFs(options)
  try {
    return await use(union)
  } finally {
    union.close()
  }
}

/**
 * Runs `steps` on both and compares. The union's directories are returned, its union closed.
 *
 * @param steps what it returns must be the same
 */
export const compare = async (
  t: Test,
  name: string,
  scenario: Scenario,
  steps: (fs: Fs) => unknown,
): Promise<UnionDirectories> => {
  const where = await sides(t, scenario)
  const { ours, theirs, options, kernel, differences } = where
  const expected = await withKernel(theirs, kernel, async mount => ({
    results: await steps(mount),
    tree: mount.tree(),
  }))
  const got = await withUnion(options, async union => {
    union.warm = scenario.warm === true
    const results = await steps(union)
    const tree = await union.tree()
    union.forgetAll()
    t.strictSame(union.ops.counts(), NOTHING_OPEN, `${name}: nothing stays known`)
    t.strictSame(union.complaints, [], `${name}: nothing to complain of`)
    return { results, tree }
  })
  t.strictSame(got.results, expected.results, `${name}: results`)
  t.strictSame(differences(expected.tree, got.tree), [], `${name}: tree`)
  if (scenario.otherForm !== true) compareLayers(t, name, scenario, where)
  // Not before the layers have been compared: a mount may put right what it finds.
  const again = await withKernel(theirs, kernel, mount => mount.tree())
  if (scenario.otherForm !== true) {
    const remounted = await withKernel(ours, kernel, mount => mount.tree())
    t.strictSame(differences(again, remounted), [], `${name}: mounted by the kernel`)
  }
  await withUnion(options, async union => {
    t.strictSame(differences(again, await union.tree()), [], `${name}: opened again`)
    t.strictSame(union.ops.counts(), NOTHING_OPEN, `${name}: nothing stays known then`)
  })
  clearVolatile(ours)
  return ours
}

/**
 * One upper layer that is mounted by the kernel and opened by the union in turns, a step each,
 * against one that the kernel alone has had.
 */
export const alternate = async (
  t: Test,
  name: string,
  scenario: Scenario,
  steps: ((fs: Fs) => unknown)[],
): Promise<void> => {
  for (const first of ['kernel', 'union'] as const) {
    const where = await sides(t, scenario)
    const { ours, theirs, options, kernel, differences } = where
    for (const [i, step] of steps.entries()) {
      const expected = await withKernel(theirs, kernel, step)
      const turn = (i % 2 === 0) === (first === 'kernel')
      const got = turn
        ? await withKernel(ours, kernel, step)
        : await withUnion(options, async union => {
            const result = await step(union)
            t.strictSame(union.ops.counts(), NOTHING_OPEN, `${name}: step ${i}: nothing known`)
            t.strictSame(union.complaints, [], `${name}: step ${i}: nothing to complain of`)
            return result
          })
      t.strictSame(got, expected, `${name}: ${first} first, step ${i}`)
    }
    const tree = await withKernel(theirs, kernel, mount => mount.tree())
    if (scenario.otherForm !== true) compareLayers(t, name, scenario, where)
    const last = await withKernel(ours, kernel, mount => mount.tree())
    t.strictSame(differences(tree, last), [], `${name}: ${first} first, mounted by the kernel`)
    const opened = await withUnion(options, union => union.tree())
    t.strictSame(differences(tree, opened), [], `${name}: ${first} first, opened by the union`)
  }
}

export const NOTHING_OPEN = { nodes: 1, files: 0, jobs: 0 }

const show = (differences: Difference[], scenario: Scenario): string[] =>
  differences
    .filter(d => !mayDiffer(d) && scenario.tolerate?.(d) !== true)
    .map(d => `${d.path}: ${d.field}: kernel ${d.expected}, union ${d.got}`)

/**
 * The kernel gives the number of the real entry where it missed that a directory holds foreign
 * ones.
 */
const mayDiffer = (d: Difference): boolean =>
  d.field === 'd_ino == st_ino' && d.expected === 'false'

/** Two trees on disk. Whiteouts may share inodes in any way. */
export const diffLayers = (expected: Tree, got: Tree, now: bigint): Difference[] => {
  for (const tree of [expected, got])
    for (const node of tree.nodes.values()) {
      const { mode, rdev } = node.stat
      if ((mode & sys.S.IFMT) !== sys.S.IFCHR || rdev !== 0) continue
      node.stat = { ...node.stat, nlink: 0, ino: -BigInt(tree.nodes.size), atime: now, mtime: now }
    }
  return diffTrees(expected, got, { now }).filter(
    d => d.field !== 'same inode as' || !d.path.startsWith('#'),
  )
}

/**
 * Names of whiteouts are made up, and the kernel shares one in `index` or `work`. The mark of a
 * volatile mount has no mode there; the union's must stay removable by a user who is not root.
 */
const diffWork = (expected: string, got: string, now: bigint): Difference[] => {
  const trees = [expected, got].map(path => readTree(path, true))
  for (const tree of trees)
    for (const [path, node] of tree.nodes) {
      const isWhiteout = (node.stat.mode & sys.S.IFMT) === sys.S.IFCHR && node.stat.rdev === 0
      if (isWhiteout && /^(work|index)\/#/.test(path)) tree.nodes.delete(path)
      if (path.startsWith('work/incompat')) node.stat = { ...node.stat, mode: 0 }
    }
  const [a, b] = trees as [Tree, Tree]
  return diffLayers(a, b, now).filter(
    // Which upper layer an index belongs to is that layer's own handle.
    d => !(d.path === 'index' && d.field === 'xattrs'),
  )
}
