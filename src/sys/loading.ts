/**
 * Counts the threads that are loading the foreign-function library. If such a thread is terminated
 * while it loads, the process aborts: the engine refuses the library's calls, and the library
 * reacts with abort(3). So threads and the process may only be ended after `awaitLoading`.
 */

import { getEnvironmentData, setEnvironmentData } from 'node:worker_threads'

const KEY = 'tsoverlay: loading'
/** Longer than any load takes, so that the end of a program cannot block forever. */
const TIMEOUT_MS = 5000

/** The counter in memory that all threads of the process share. */
const shared = (): Int32Array => {
  const given = getEnvironmentData(KEY) as Int32Array | undefined
  if (given !== undefined) return given
  const cell = new Int32Array(new SharedArrayBuffer(4))
  setEnvironmentData(KEY, cell)
  return cell
}

/** The counter, for a thread that has not loaded this file. */
export const loading = shared()

/** Called before a thread is told to load. */
export const beginLoading = (): void => void Atomics.add(loading, 0, 1)

/** Called when a thread has loaded the library, or has failed to. */
export const endLoading = (): void => {
  Atomics.sub(loading, 0, 1)
  Atomics.notify(loading, 0)
}

/** Waits until no thread is loading. False: the timeout has expired. */
export const awaitLoading = (timeout = TIMEOUT_MS): boolean => {
  const until = performance.now() + timeout
  for (let n; (n = Atomics.load(loading, 0)) > 0;) {
    const left = until - performance.now()
    if (left <= 0) return false
    Atomics.wait(loading, 0, n, left)
  }
  return true
}
