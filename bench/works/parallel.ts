/**
 * Several simultaneous clients. They are threads of the client process, so each can be in a system
 * call.
 */

import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import { TREE } from './layers.js'
import type { Share } from './parallel-client.js'
import type { JobName } from './parallel-jobs.js'
import { step, type Step, type Workload } from './work.js'

/**
 * Starts the clients and waits until they are ready. The time ends when the last client has
 * finished.
 */
export const together =
  (clients: number, job: JobName): Step['prepare'] =>
  async (place, run) => {
    const start = new SharedArrayBuffer(4)
    const threads = Array.from({ length: clients }, (_, index) => {
      const workerData: Share = { job, place, run, index, clients, start }
      return new Worker(new URL('parallel-client.js', import.meta.url), { workerData })
    })
    /** Waits for the next message of each thread; `once` rejects if the thread has failed. */
    const next = (): Promise<unknown[][]> =>
      Promise.all(threads.map(thread => once(thread, 'message') as Promise<unknown[]>))
    await next()
    return async () => {
      const done = next()
      Atomics.store(new Int32Array(start), 0, 1)
      Atomics.notify(new Int32Array(start), 0)
      return (await done).reduce((sum, [count]) => sum + Number(count), 0)
    }
  }

export const parallel: Workload[] = [
  {
    name: 'parallel-4',
    lowers: TREE,
    steps: [
      step('stat', '4 clients stat 2,000 files', together(4, 'stat')),
      step('read', '4 clients read them', together(4, 'read')),
      step('create', '4 clients create 1,000 files', together(4, 'create')),
    ],
  },
  {
    name: 'parallel-8',
    lowers: TREE,
    steps: [
      step('read', '8 clients read 2,000 files', together(8, 'read')),
      step('write', '8 clients write 16 MiB each', together(8, 'write')),
    ],
  },
]
