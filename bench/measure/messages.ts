/** Messages between the client process and the measuring process. */

import type { MountPaths } from '../works/work.js'

/**
 * The steps of a run are prepared together, before the mount; each is started by a message of its
 * own.
 */
export type ToClient =
  | { type: 'prepare'; work: string; run: number; place: MountPaths }
  | { type: 'start'; step: number }

export type FromClient =
  { type: 'ready' } | ({ type: 'done' } & Taken) | { type: 'failed'; reason: string }

/** The result of one step, as the client measured it. */
export interface Taken {
  operations: number
  ms: number
}
