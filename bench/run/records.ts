/** What the process that measures sends to the one that reports. */

import type { Holding } from '../measure/processes.js'

/**
 * What was before a piece of work. Of tsoverlay: `first` in a server that has just been started,
 * `further` in one that has served a mount before, `steady` after the same work in the same mount.
 * File systems without such a server have `first` and `steady`. Of containers: `started`, after
 * `tsoverlay server start`; `cgroups`, each command in a cgroup of its own.
 */
export type State = 'first' | 'further' | 'steady' | 'started' | 'cgroups'

/** Where a sample belongs, but for the processors, which the one that reports knows. */
export interface Case {
  work: string
  step: string
  system: string
}

/** One run of a step, or of mounting. */
export interface Sample extends Case, Holding {
  type: 'sample'
  state: State
  operations: number
  ms: number
  /**
   * Processor seconds of all processes. What comes first in a mount counts from the start of its
   * command.
   */
  cpu: number
}

/** A step, or the whole work (`mount`), that a file system can't do. It is not tried again. */
export interface Failure extends Case {
  type: 'failure'
  reason: string
}

export interface Progress {
  type: 'progress'
  done: number
  all: number
  text: string
}

export type Message = Sample | Failure | Progress
