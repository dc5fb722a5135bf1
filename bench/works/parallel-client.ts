/** One of several clients: a thread that prepares itself, waits for the start, and works. */

import { parentPort, workerData } from 'node:worker_threads'
import { jobs, type JobName, type Part } from './parallel-jobs.js'

/** The parameters of such a thread. */
export interface Share extends Part {
  job: JobName
  /** One word, 0 until all threads have to start. */
  start: SharedArrayBuffer
}

const { job, start, ...part } = workerData as Share
const run = jobs[job](part)
parentPort?.postMessage('ready')
Atomics.wait(new Int32Array(start), 0, 0)
parentPort?.postMessage(run())
