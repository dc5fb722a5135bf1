/**
 * How many threads are just loading the foreign-function library. One that is ended in the middle
 * of that takes the process with it: the engine then refuses what the library asks of it, and the
 * library answers that with abort(3). So whoever ends threads, or the process, waits for them. It
 * takes some tens of milliseconds.
 */

import { getEnvironmentData, setEnvironmentData } from 'node:worker_threads'

const KEY = 'tsoverlay: loading'
/** Nothing takes so long; a program's end must not wait for ever. */
const TIMEOUT_MS = 5000

/** One for the process, whichever thread and file asks. */
const shared = (): Int32Array => {
  const given = getEnvironmentData(KEY) as Int32Array | undefined
  if (given !== undefined) return given
  const cell = new Int32Array(new SharedArrayBuffer(4))
  setEnvironmentData(KEY, cell)
  return cell
}

/** The count, for a thread that has not loaded this file. */
export const loading = shared()

/** A thread is told to load. */
export const beginLoading = (): void => void Atomics.add(loading, 0, 1)

/** It has done so, or has failed. */
export const endLoading = (): void => {
  Atomics.sub(loading, 0, 1)
  Atomics.notify(loading, 0)
}

/** Waits until none does. False: some still do. */
export const awaitLoading = (timeout = TIMEOUT_MS): boolean => {
  const until = performance.now() + timeout
  for (let n; (n = Atomics.load(loading, 0)) > 0;) {
    const left = until - performance.now()
    if (left <= 0) return false
    Atomics.wait(loading, 0, n, left)
  }
  return true
}
