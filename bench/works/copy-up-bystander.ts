/**
 * A second client: a thread that stats another file every millisecond and reports the longest time
 * of a stat.
 */

import { parentPort, workerData } from 'node:worker_threads'
import * as sys from '../measure/calls.js'

/** The parameters of such a thread. */
export interface Look {
  directory: string
  files: number
  /** Two words: 0 until the thread has to start, and 0 until it has to stop. */
  shared: SharedArrayBuffer
}

const { directory, files, shared } = workerData as Look
const paths = Array.from({ length: files }, (_, n) => sys.path(`${directory}/file${n}`))
const signals = new Int32Array(shared)
parentPort?.postMessage('ready')

Atomics.wait(signals, 0, 0)
let worst = 0
let next = 0
do {
  const before = performance.now()
  sys.lstat(paths[next++ % files] as sys.Path)
  worst = Math.max(worst, performance.now() - before)
} while (Atomics.wait(signals, 1, 0, 1) === 'timed-out')
parentPort?.postMessage(worst)
