/**
 * What a work is: layers, and steps that run one after the other in mounts of them.
 *
 * Works run in the client process (measure/client.ts), which finds them by their names; the process
 * that mounts only reads their descriptions.
 */

/** Where a client works. */
export interface Place {
  /** The mountpoint, the first one where there are several. */
  root: string
  /** All of them. */
  roots: readonly string[]
  /** The (first) lower layer itself, for preparations that must not touch the mount. */
  lower: string
  /** An empty directory beside the layers, on the same kind of file system. */
  scratch: string
  /** What sizes and counts are multiplied with. */
  scale: number
}

/**
 * How many operations a step has made; and its time, in milliseconds, where that is not all of it.
 */
export type Done = number | { operations: number; ms: number }

/** The part of a step between the two looks at the clock. */
export type Timed = () => Done | Promise<Done>

export interface Step {
  name: string
  /**
   * As it stands in the report; empty: it makes something ready for the next one, and is no row.
   */
  title: string
  /**
   * Makes ready what is not to be timed: names, buffers. It is called before the mount is made, so
   * it doesn't look into it.
   * @param run how often the steps have run in this mount before; each run has files of its own to
   *   work on
   */
  prepare(place: Place, run: number): Timed | Promise<Timed>
}

/** Read-only layers; built once, since nobody may write to them. */
export interface Lowers {
  name: string
  /** How many layers; each is a directory that is named by its number, the top one 0. */
  count: number
  build(this: void, directory: string, scale: number): void
}

export interface Work {
  name: string
  lowers: Lowers
  steps: readonly Step[]
  /**
   * How often the steps run in one mount (RUNS); the last run is the steady one. One: there is no
   * steady one.
   */
  runs?: number
  /** How many mounts there are at the same time (1), each with an upper layer of its own. */
  mounts?: number
  /** Mounting is a row, under this title. */
  mountTitle?: string
  /** Nothing is done for so long after mounting, which counts for processor time and memory. */
  idleMs?: number
  /** Each mount of tsoverlay asks for a process of its own. */
  ownServer?: true
  /**
   * How many turns it has where others have ROUNDS (run/options.ts); as many, if nothing is said.
   */
  turns?: number
  /** Programs that it runs; on a machine without one of them it is left out. */
  programs?: readonly string[]
}

/** How often steps run in one mount, if a work says nothing else. */
export const RUNS = 3

export const runsOf = ({ runs = RUNS, steps }: Work): number => (steps.length === 0 ? 1 : runs)

/** The name under which mounting stands beside the steps. */
export const MOUNT_STEP = 'mount'

export const step = (name: string, title: string, prepare: Step['prepare']): Step => ({
  name,
  title,
  prepare,
})

/** Everything of a work that is a row, in the order of the report, with titles. */
export const titlesOf = ({ mountTitle, steps }: Work): [step: string, title: string][] => [
  ...(mountTitle === undefined ? [] : [[MOUNT_STEP, mountTitle] satisfies [string, string]]),
  ...steps
    .filter(({ title }) => title !== '')
    .map(({ name, title }) => [name, title] satisfies [string, string]),
]

/** More mounts than these are only for their number, which scales. */
const FEW_MOUNTS = 10

/** How many mounts there are at this scale. */
export const mountsAt = ({ mounts = 1 }: Work, scale: number): number =>
  Math.min(mounts, Math.max(FEW_MOUNTS, scaled(mounts, scale)))

/** A count or size at this scale, at least 1. */
export const scaled = (count: number, scale: number): number =>
  Math.max(1, Math.round(count * scale))

/** A step that runs over paths, made before the clock starts. */
export const each =
  (
    pathsOf: (place: Place, run: number) => readonly string[],
    call: (path: Buffer, index: number) => void,
  ): Step['prepare'] =>
  (place, run) => {
    const paths = pathsOf(place, run).map(text => Buffer.from(`${text}\0`))
    return () => {
      paths.forEach(call)
      return paths.length
    }
  }

/** Numbers that look random and are the same for every file system and round. */
export const randomNumbers = (count: number, below: number): number[] => {
  let state = 12345
  return Array.from({ length: count }, () => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  })
}
