/**
 * The other thread of proc.test.ts: fails with its own errno, becomes another user, and reports it.
 */

import { parentPort, workerData } from 'node:worker_threads'
import { mkdirat, openat } from '../../../src/sys/at.js'
import { dropCap, gettid, pushFsIds, umask, unshareFs } from '../../../src/sys/proc.js'

const errors = new Set<number>()
for (let i = 0; i < 20_000; i++) errors.add(openat(-1, 'x', 0))
pushFsIds(1000, 1000)
const unshared = unshareFs()
umask(0o777)
parentPort?.postMessage({
  errors,
  made: mkdirat(workerData as number, 'worker', 0o755),
  dropped: dropCap(0),
  unshared,
  tid: gettid(),
})
// Keeps its changes until the main thread has checked them.
parentPort?.once('message', () => parentPort?.close())
