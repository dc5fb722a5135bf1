/**
 * A workload: layers, and steps that run one after the other in mounts of them.
 *
 * Workloads run in the client process (measure/client.ts), which finds them by their names. The
 * mounting process only reads their descriptions.
 */

/** The paths of a client. */
export interface MountPaths {
  /** The first mountpoint. */
  root: string
  /** All mountpoints. */
  roots: readonly string[]
  /** The first lower layer itself, for preparations that must not touch the mount. */
  lower: string
  /** An empty directory next to the layers, on the same kind of file system. */
  scratch: string
  /** The factor for sizes and counts. */
  scale: number
}

/**
 * The number of operations of a step, and its time in milliseconds if that differs from the time of
 * the whole call.
 */
export type Measured = number | { operations: number; ms: number }

/** The timed part of a step. */
export type TimedPart = () => Measured | Promise<Measured>

export interface Step {
  name: string
  /** The title in the report; empty if the step only prepares the next one and has no row. */
  title: string
  /**
   * Prepares everything that is not timed: names, buffers. It is called before the mount, so it
   * must not look into it.
   * @param run how often the steps have run in this mount before; each run has files of its own
   */
  prepare(place: MountPaths, run: number): TimedPart | Promise<TimedPart>
}

/** Read-only layers. They are built once, because no workload writes to them. */
export interface LowerLayers {
  name: string
  /** The number of layers. Each is a directory named by its number; the topmost one is 0. */
  count: number
  build(this: void, directory: string, scale: number): void
}

export interface Workload {
  name: string
  lowers: LowerLayers
  steps: readonly Step[]
  /**
   * How often the steps run in one mount (RUNS). The last run is the steady one; with a single run
   * there is no steady one.
   */
  runs?: number
  /** The number of simultaneous mounts (1), each with an upper layer of its own. */
  mounts?: number
  /** If set, mounting is a row with this title. */
  mountTitle?: string
  /** The idle time after mounting, included in CPU time and memory. */
  idleMs?: number
  /** Each mount of tsoverlay gets a process of its own. */
  ownServer?: true
  /** The number of turns in ROUNDS rounds (run/options.ts); by default one turn in each round. */
  turns?: number
  /** The programs that it runs. It is left out if one of them is missing. */
  programs?: readonly string[]
}

/** The default number of runs in one mount. */
export const RUNS = 3

export const runsOf = ({ runs = RUNS, steps }: Workload): number => (steps.length === 0 ? 1 : runs)

/** The step name of mounting. */
export const MOUNT_STEP = 'mount'

export const step = (name: string, title: string, prepare: Step['prepare']): Step => ({
  name,
  title,
  prepare,
})

/** All rows of a workload, in the order of the report, with titles. */
export const titlesOf = ({ mountTitle, steps }: Workload): [step: string, title: string][] => [
  ...(mountTitle === undefined ? [] : [[MOUNT_STEP, mountTitle] satisfies [string, string]]),
  ...steps
    .filter(({ title }) => title !== '')
    .map(({ name, title }) => [name, title] satisfies [string, string]),
]

/** Up to this number the count of mounts is part of the workload; a larger count is scaled. */
const FEW_MOUNTS = 10

/** The number of mounts at this scale. */
export const mountsAt = ({ mounts = 1 }: Workload, scale: number): number =>
  Math.min(mounts, Math.max(FEW_MOUNTS, scaled(mounts, scale)))

/** A count or size at this scale, at least 1. */
export const scaled = (count: number, scale: number): number =>
  Math.max(1, Math.round(count * scale))

/** A step that runs over paths, which are created before the clock starts. */
export const each =
  (
    pathsOf: (place: MountPaths, run: number) => readonly string[],
    call: (path: Buffer, index: number) => void,
  ): Step['prepare'] =>
  (place, run) => {
    const paths = pathsOf(place, run).map(text => Buffer.from(`${text}\0`))
    return () => {
      paths.forEach(call)
      return paths.length
    }
  }

/** Pseudo-random numbers, the same for every file system and round. */
export const randomNumbers = (count: number, below: number): number[] => {
  let state = 12345
  return Array.from({ length: count }, () => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  })
}
