/** What a client process and the process that measures say to each other. */

import type { Place } from '../works/work.js'

/**
 * The steps of a run are made ready together, before the mount; each is started by a message of its
 * own.
 */
export type ToClient =
  { type: 'prepare'; work: string; run: number; place: Place } | { type: 'start'; step: number }

export type FromClient =
  { type: 'ready' } | ({ type: 'done' } & Taken) | { type: 'failed'; reason: string }

/** What one step took, as the client saw it. */
export interface Taken {
  operations: number
  ms: number
}
