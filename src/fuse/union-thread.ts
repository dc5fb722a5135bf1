/**
 * The thread of a union. It can be started before anybody knows what it is to serve, since to start a
 * thread and load its code takes longer than to find that out.
 */

import { Worker } from 'node:worker_threads'
import type { ServeOptions } from './messages.js'

// A loader that runs the sources themselves has no .js there.
const entry = new URL(
  import.meta.url.endsWith('.ts') ? '../fuse/worker-main.ts' : '../fuse/worker-main.js',
  import.meta.url,
)

const start = (): Worker => new Worker(entry, { name: 'union' })

/** A thread for `threadFor`. */
export const startEarly = (): Worker => {
  const thread = start()
  thread.on('error', () => {}) // The next one dies of the same, and somebody listens.
  return thread
}

/** A thread that serves these options: the one that was started early, if it lives. */
export const threadFor = (options: ServeOptions, early: Worker | undefined): Worker => {
  const thread = early === undefined || early.threadId < 0 ? start() : early
  thread.postMessage(options)
  return thread
}
