/** What a client process and the process that measures say to each other. */

import type { Place } from '../workloads/workload.js'

/** A step is made ready, and started by a second message: between them counters of the server are read. */
export type ToClient =
  { type: 'prepare'; workload: string; step: string; place: Place } | { type: 'start' }

export type FromClient =
  { type: 'ready' } | ({ type: 'done' } & Taken) | { type: 'failed'; reason: string }

/** What one run of a step took, as the client saw it. */
export interface Taken {
  operations: number
  ms: number
  /** Times that the step has found besides, by their names. */
  also: Record<string, number>
  /** Processor seconds of the client. */
  cpu: number
}
