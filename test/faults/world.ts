/**
 * The directories of one union on a tmpfs, and their content as this union and the kernel's
 * overlayfs show it.
 */

import * as fs from 'node:fs'
import { join } from 'node:path'
import { IoPool } from '../../src/overlay/jobs/pool.js'
import { runTask, type IoTask } from '../../src/overlay/jobs/task.js'
import type { Job, Result } from '../../src/overlay/ops.js'
import { defaultUnionOptions } from '../../src/config/defaults.js'
import type { UnionOptions } from '../../src/overlay/options.js'
import { E } from '../../src/sys/errno.js'
import { build, removeTree } from '../helpers/layers.js'
import * as sys from '../helpers/syscalls.js'
import { diffTrees, readTree, type Difference, type Tree } from '../helpers/tree.js'
import { ROOT } from '../helpers/fs-calls.js'
import { UnionFs } from '../helpers/union.js'
import { cloneMounts } from './hook.js'
import { layersFor, type Layers } from './layers.js'
import type { Mode } from './modes.js'
import { errnoOf, usesUserXattrs, type Scenario } from './scenario.js'

/**
 * Whether the kernel's overlayfs can show the same. An ordinary user can't mount it, and it
 * supports neither the stat override nor `.wh.` names.
 */
const hasKernel = (mode: Mode, options: UnionOptions): boolean =>
  mode !== 'user' && mode !== 'xattr' && options.whiteout !== 'wh'

/** A pool whose tasks run on the union's own thread, where the hook is installed. */
class OwnPool extends IoPool {
  readonly #due: (() => void)[] = []
  #abandon: (() => void)[] = []

  override start(): void {}

  override submit(
    task: IoTask,
    finish: (result: Result) => Result = result => result,
    abandon: () => void = () => {},
  ): Job {
    const callbacks: ((result: Result) => void)[] = []
    let result: Result | undefined
    this.#abandon.push(abandon)
    this.#due.push(() => {
      this.#abandon = this.#abandon.filter(other => other !== abandon)
      result = finish(runTask(task))
      for (const callback of callbacks) callback(result)
    })
    return {
      onDone: callback => {
        if (result === undefined) callbacks.push(callback)
        else callback(result)
      },
    }
  }

  override runCallbacks(): void {
    for (const run of this.#due.splice(0)) run()
  }

  override get pending(): number {
    return this.#due.length
  }

  override close(): void {
    for (const abandon of this.#abandon) abandon()
    super.close()
  }
}

/** Removes a tree, regardless of its permissions. */
export const remove = (path: string): void => {
  if (process.geteuid?.() !== 0) openDirectories(path)
  removeTree(path)
}

const openDirectories = (path: string): void => {
  if (!fs.existsSync(path)) return
  fs.chmodSync(path, 0o700)
  for (const entry of fs.readdirSync(path, { withFileTypes: true }))
    if (entry.isDirectory()) openDirectories(join(path, entry.name))
}

/** The ordinary user of launch.mjs. */
const USER = 1000

/** The directories as both unions show them. Times of changed directories count as "now". */
export interface View {
  ours: Tree
  /** Null: not read. A number: -errno of its mount. */
  kernel: Tree | number | null
  /** Names in `workdir/index`. */
  index: string[]
  /** Leftovers in `workdir/work`. */
  stale: string[]
}

const log = {
  debug: () => {},
  info: () => {},
  warn: () => {},
  error: () => {},
  isLevelEnabled: () => false,
}

export class World {
  readonly top: string
  readonly mode: Mode
  readonly options: UnionOptions
  readonly #scenario: Scenario
  readonly #now: bigint
  readonly #layers: Layers
  readonly #lowers: string[]
  readonly #lowerTrees: Tree[]
  /** Views, keyed by the content of upper and workdir. */
  readonly #shown = new Map<string, View>()

  /** @param top an empty directory */
  constructor(top: string, mode: Mode, scenario: Scenario) {
    this.top = top
    this.mode = mode
    this.#scenario = scenario
    cloneMounts(scenario.run === null)
    this.#layers = layersFor(mode)
    this.#now = BigInt(Date.now() - 60_000) * 1_000_000n
    this.#lowers = this.#layers.lower.map((layer, i) => {
      const path = join(top, String(i + 1))
      fs.mkdirSync(path)
      build(path, layer)
      return path
    })
    this.#lowerTrees = this.#lowers.map(path => readTree(path, true))
    fs.mkdirSync(join(top, 'merged'))
    this.options = {
      ...defaultUnionOptions,
      lower: this.#lowers,
      upper: join(top, 'upper'),
      work: join(top, 'work'),
      redirectDir: 'on',
      userxattr: usesUserXattrs(mode),
      xattrPermissions: mode === 'xattr' ? 2 : 0,
      ...scenario.options,
    }
  }

  get upper(): string {
    return join(this.top, 'upper')
  }

  get work(): string {
    return join(this.top, 'work')
  }

  /** Creates the directories in their state before the operation. */
  async reset(): Promise<void> {
    for (const path of [this.upper, this.work]) {
      remove(path)
      fs.mkdirSync(path)
    }
    build(this.upper, this.#layers.upper)
    const { prepare, litter } = this.#scenario
    if (prepare !== undefined) {
      const union = this.open()
      const result = await prepare(union)
      union.close()
      if (typeof result === 'number' && result < 0) throw new Error(`prepare: errno ${-result}`)
    }
    litter?.(this)
  }

  /** Opens a union and looks up everything that the operation needs. */
  async begin(): Promise<UnionFs> {
    const union = this.open()
    union.warm = true
    await this.#scenario.begin?.(union)
    return union
  }

  open(): UnionFs {
    const pool = new OwnPool(log)
    try {
      return this.#open(pool)
    } catch (error) {
      pool.close()
      throw error
    }
  }

  #open(pool: OwnPool): UnionFs {
    const union = new UnionFs(this.options, {
      writeback: this.mode === 'cached' || this.mode === 'noopen',
      passthrough: this.mode === 'passthrough',
      noOpen: this.mode === 'noopen',
      pool,
      checked: true,
    })
    if (this.mode === 'user') union.caller = { ...ROOT, uid: USER, gid: USER }
    return union
  }

  /** The view of the directories with a newly opened union. Equal content has the same view. */
  async view(): Promise<View> {
    const key = this.#text()
    const known = this.#shown.get(key)
    if (known !== undefined) return known
    const union = this.open()
    let ours: Tree
    try {
      ours = await union.tree()
    } finally {
      union.close()
    }
    const view = {
      ours,
      kernel: hasKernel(this.mode, this.options) ? this.#kernel() : null,
      index: this.#names('index'),
      stale: this.#names('work').filter(name => name !== 'incompat'),
    }
    if (key !== '') this.#shown.set(key, view)
    return view
  }

  /** The whole content of upper and workdir; '' if it can't be read. */
  #text(): string {
    try {
      return [this.upper, this.work]
        .map(path => textOf(readTree(path, true), this.#now))
        .join('\n\n')
    } catch {
      return ''
    }
  }

  #names(part: string): string[] {
    try {
      return fs.readdirSync(join(this.top, 'work', part)).toSorted()
    } catch {
      return []
    }
  }

  #kernel(): Tree | number {
    const { options } = this
    fs.rmSync(join(this.top, 'work/work/incompat'), { recursive: true, force: true })
    const merged = join(this.top, 'merged')
    const data = [
      `lowerdir=${this.#lowers.join(':')}`,
      `upperdir=${this.upper}`,
      `workdir=${options.work}`,
      ...(options.userxattr === true ? ['userxattr'] : [`redirect_dir=${options.redirectDir}`]),
      ...(options.userxattr === true ? [] : [`index=${options.index ? 'on' : 'off'}`]),
      ...(options.userxattr === true ? [] : ['metacopy=on']),
    ].join(',')
    for (let tries = 0; ; tries++) {
      const result = sys.mount('overlay', merged, 'overlay', sys.MS.NOATIME, data)
      if (result >= 0) break
      // The mount namespace of another process may still have a copy of the previous mount.
      if (result !== -E.EBUSY || tries > 500) return result
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20)
    }
    try {
      return readTree(merged, true)
    } finally {
      sys.umount(merged, sys.MNT.DETACH)
    }
  }

  /** The changes in lower layers. No changes are allowed. */
  lowerChanges(): string[] {
    return this.#lowers.flatMap((path, i) => {
      const before = this.#lowerTrees[i] as Tree
      // Every change also changes the ctime.
      if (isUntouched(path, before)) return []
      const rules = { now: this.#now, exact: true }
      return diffTrees(before, readTree(path, true), rules).map(d => `lower ${i + 1}: ${show(d)}`)
    })
  }

  /**
   * The differences from view `a` to the later view `b`. Link counts of directories are ignored,
   * because they depend on the layers. A directory in which an object was created and removed
   * again, or copied up, may have a new mtime (kernel: ovl_copy_up_workdir, "best effort").
   */
  differences(a: View, b: View): string[] {
    return [
      ...this.treeDifferences(a.ours, b.ours),
      ...this.#kernelDifferences(a.kernel, b.kernel).map(line => `kernel: ${line}`),
    ]
  }

  /** The differences between this union and the kernel's overlayfs on the same directories. */
  disagreements({ ours, kernel }: View): string[] {
    return this.#kernelDifferences(kernel, kernel === null ? null : ours)
  }

  #kernelDifferences(a: View['kernel'], b: View['kernel']): string[] {
    if (a === null || b === null) return []
    if (typeof a !== 'number' && typeof b !== 'number') return this.treeDifferences(a, b)
    return [a, b].map(it => `mount: ${typeof it === 'number' ? errnoOf(it) : 'works'}`)
  }

  treeDifferences(a: Tree, b: Tree): string[] {
    return diffTrees(a, b, { now: this.#now })
      .filter(
        d =>
          d.field !== 'nlink of a directory' &&
          !(d.field === 'mtime' && this.#isMoved(b, d.path)) &&
          // Only root of the initial user namespace can open a lower file by its handle.
          !(d.field === 'd_ino == st_ino' && usesUserXattrs(this.mode)) &&
          // With `xattr_permissions` a listing may omit the type.
          !(d.field === 'listed type' && (d.expected === '0' || d.got === '0')),
      )
      .map(show)
  }

  /**
   * Whether it is a directory that has been changed, or a metacopy file whose data has been copied
   * up (the kernel does the same).
   */
  #isMoved(tree: Tree, path: string): boolean {
    const stat = tree.nodes.get(path)?.stat
    if (stat === undefined || stat.mtime < this.#now) return false
    const isDir = (stat.mode & sys.S.IFMT) === sys.S.IFDIR
    return isDir || METACOPIES.has(path) || this.#scenario.writes === true
  }
}

const isUntouched = (top: string, { nodes }: Tree): boolean =>
  [...nodes.values()].every(({ path, stat }) => {
    const now = sys.lstat(sys.AT_FDCWD, join(top, path))
    return typeof now !== 'number' && now.ino === stat.ino && now.ctime === stat.ctime
  })

/** The parts of a tree that its view depends on. */
const textOf = (tree: Tree, now: bigint): string => {
  const first = new Map<bigint, string>()
  return [...tree.nodes.values()]
    .map(({ path, stat, xattrs, target, digest }) => {
      if (!first.has(stat.ino)) first.set(stat.ino, path)
      const { mode, uid, gid, nlink, rdev, size } = stat
      const times = [stat.atime, stat.mtime].map(time => (time >= now ? 'now' : time))
      const name = first.get(stat.ino)
      return [
        path,
        name,
        mode,
        uid,
        gid,
        nlink,
        rdev,
        size,
        ...times,
        target,
        digest,
        ...xattrs,
      ].join()
    })
    .join('\n')
}

const METACOPIES = new Set(['mc', 'mc2', 'ud/mc'])

const show = (d: Difference): string => `${d.path}: ${d.field}: ${d.expected} -> ${d.got}`
