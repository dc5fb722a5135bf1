/** One of several clients: a thread that makes itself ready, waits for the start, and works. */

import { parentPort, workerData } from 'node:worker_threads'
import { jobs, type JobName } from './parallel-jobs.js'
import type { Place } from './workload.js'

/** What such a thread is told. */
export interface Share {
  job: JobName
  place: Place
  index: number
  clients: number
  /** One word, 0 until all shall start. */
  start: SharedArrayBuffer
}

const { job, place, index, clients, start } = workerData as Share
const run = jobs[job](place, index, clients)
parentPort?.postMessage('ready')
Atomics.wait(new Int32Array(start), 0, 0)
parentPort?.postMessage(run())
