/**
 * What a workload is: layers, and steps that run one after the other on one fresh mount of them.
 *
 * Workloads run in the client process (measure/client.ts), which finds them by their names; the process
 * that mounts only reads their descriptions.
 */

import type { Medium } from '../run/scratch.js'

/** Where a client works. */
export interface Place {
  /** The mountpoint. */
  root: string
  /** The (first) lower layer itself, for preparations that must not touch the mount. */
  lower: string
  /** An empty folder beside the layers, on the same kind of file system, which goes after the workload. */
  scratch: string
  /** What sizes and counts are multiplied with. */
  scale: number
}

/** How many operations a step has made; and times, in milliseconds, that it has found besides its own. */
export type Done = number | { operations: number; also: Record<string, number> }

/** The part of a step between the two looks at the clock. */
export type Timed = () => Done | Promise<Done>

export interface Step {
  name: string
  /** As it stands in the report. */
  title: string
  /** Makes ready what is not to be timed: names, buffers, files that must exist. */
  prepare(place: Place): Timed | Promise<Timed>
  /** Names and titles of the times that it finds besides its own. */
  also?: readonly { name: string; title: string }[]
  /** No file system of the comparison has a part in it: it shows what else the time could be. */
  reference?: true
}

/** Read-only layers; built once for each medium, since nobody may write to them. */
export interface Lowers {
  name: string
  /** How many layers; each is a folder that is named by its number, the top one 0. */
  count: number
  build(this: void, folder: string, scale: number): void
  /** What the work before the steps needs is in there as well; otherwise that is one layer more. */
  warmUp?: true
}

export interface Workload {
  name: string
  lowers: Lowers
  steps: readonly Step[]
  /** Where it is measured; on tmpfs and ext4, if nothing else is said. */
  media?: readonly Medium[]
  /** Programs that it runs; on a machine without one of them it is left out. */
  programs?: readonly string[]
  /** The steps meet a server that has just begun; those of others, one that has done some work (warm-up.ts). */
  fresh?: true
  /** Mounting is part of what is measured, under this title. */
  mountTitle?: string
  /** So is unmounting, until the server has ended. */
  unmountTitle?: string
}

/** Names under which mounting and unmounting stand beside the steps. */
export const MOUNT_STEP = 'mount'
export const UNMOUNT_STEP = 'unmount'

export const step = (name: string, title: string, prepare: Step['prepare']): Step => ({
  name,
  title,
  prepare,
})

/** Whether work that nobody times comes before the steps. */
export const isWarmedUp = ({ fresh, steps }: Workload): boolean => !fresh && steps.length > 0

export const isMeasuredOn = ({ media = ['tmpfs', 'ext4'] }: Workload, medium: Medium): boolean =>
  media.includes(medium)

/** A count or size at this scale, at least 1. */
export const scaled = (count: number, scale: number): number =>
  Math.max(1, Math.round(count * scale))

/** A step that runs over paths, made before the clock starts. */
export const each =
  (
    pathsOf: (place: Place) => readonly string[],
    call: (path: Buffer, index: number) => void,
  ): Step['prepare'] =>
  place => {
    const paths = pathsOf(place).map(text => Buffer.from(`${text}\0`))
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
