/** Messages of the measuring process to the reporting process. */

import type { Holding } from '../measure/processes.js'

/**
 * The state before a piece of work. For tsoverlay: `first`, in a new server; `further`, in a server
 * that has served a mount before; `steady`, after the same work in the same mount. File systems
 * without such a server have `first` and `steady`. For containers: `started`, after `tsoverlay
 * server start`; `cgroups`, each command in a cgroup of its own.
 */
export type State = 'first' | 'further' | 'steady' | 'started' | 'cgroups'

/** Identifies a sample, except the processors, which the reporting process knows. */
export interface Case {
  work: string
  step: string
  system: string
}

/** One run of a step, or one mount. */
export interface Sample extends Case, Holding {
  type: 'sample'
  state: State
  operations: number
  ms: number
  /** CPU seconds of all processes. For the first step of a mount it includes the mount command. */
  cpu: number
}

/** A step, or a whole workload (`mount`), that failed on a file system. It is not repeated. */
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
