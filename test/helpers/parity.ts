/**
 * Runs the same calls on kernel overlayfs and on a union, over the same lower layers and equal
 * upper layers. It compares results, trees, and bytes on disk, and the trees after each upper layer
 * has been mounted again.
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

/** One minute in all. */
const PAUSE_MS = 20
const TRIES = 3000

/**
 * Mounts the kernel's overlayfs on `merged`. A mount that was unmounted just before keeps its
 * layers (EBUSY) while another test's process has a copy of it in a mount namespace. On a busy
 * machine such a process lives some ten seconds.
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

/** Why no comparison is possible here, or false. */
export const skipParity = probe()

/** Runs `use` with a mount of the kernel's overlayfs. */
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

/** Removes the directory that prevents reuse of a workdir after a volatile mount. */
export const clearVolatile = (where: Pick<UnionDirectories, 'work'>): void =>
  fs.rmSync(join(where.work, 'work', 'incompat'), { recursive: true, force: true })

export interface Scenario {
  lower: Layer[]
  upper?: Layer
  /** The union's options. Without `volatile: false` nothing is synced, on both sides. */
  options?: Partial<UnionOptions>
  /** Additional options for the kernel that do not follow from the union's. */
  kernel?: string
  /** Lookups stay in the kernel's cache from call to call. */
  warm?: boolean
  /** Accepts differences that are allowed. */
  tolerate?: (difference: Difference) => boolean
  /** Accepts differences on disk that are not visible through the mount. */
  onDisk?: (difference: Difference) => boolean
  /** Use a tmpfs, for a test that creates and removes much. */
  memory?: boolean
  /** Upper layers are not compared, because the two use different formats. */
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

/** Two upper layers over the same lower layers. */
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
  // On the first lookup the kernel sets the missing origin xattr of a merged upper directory, and the
  // impure xattr of its parent (ovl_fix_origin).
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

/** Opens a union, uses it, and closes it. */
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
 * Runs `steps` on both file systems and compares.
 *
 * @param steps its results must be equal
 * @returns the union's directories; the union is closed
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
    t.strictSame(union.loggedMessages, [], `${name}: nothing to complain of`)
    return { results, tree }
  })
  t.strictSame(got.results, expected.results, `${name}: results`)
  t.strictSame(differences(expected.tree, got.tree), [], `${name}: tree`)
  if (scenario.otherForm !== true) compareLayers(t, name, scenario, where)
  // This comes after the comparison of the layers, because a mount may repair them.
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
 * Mounts one upper layer with the kernel and opens it with the union in turns, one step each. The
 * result is compared with an upper layer that only the kernel has used.
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
            t.strictSame(union.loggedMessages, [], `${name}: step ${i}: nothing to complain of`)
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
 * The kernel returns the real entry's inode number if it did not notice that a directory contains
 * entries of other layers.
 */
const mayDiffer = (d: Difference): boolean =>
  d.field === 'd_ino == st_ino' && d.expected === 'false'

/** Compares two trees on disk. It ignores which whiteouts share inodes. */
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
 * Compares two workdirs. Whiteouts have temporary names, and the kernel keeps a shared one in
 * `index` or `work`. The kernel's `incompat` directory of a volatile mount has mode 0; the union's
 * must stay removable by an ordinary user.
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
    // The origin xattr of an index contains the file handle of its upper layer.
    d => !(d.path === 'index' && d.field === 'xattrs'),
  )
}
