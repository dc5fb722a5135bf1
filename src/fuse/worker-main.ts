/**
 * Where a union's thread begins: it waits for a message that says what to serve, and only then loads
 * the foreign-function library. A process must not end while one of its threads is just doing so (sys/loading.ts), as
 * might be with options that are refused. Its event loop turns while it serves nothing.
 */

import { parentPort, workerData } from 'node:worker_threads'

import { end } from '../sys/loading.js'
import type { FromThread, ToThread } from './messages.js'
import type { ServingThread } from './worker.js'

/** So long after the last union's end the memory that it took is given back, in milliseconds, unless another has come. */
const TIDY_MS = 1000

const { load } = workerData as { load: Int32Array }
const send = (message: FromThread): void => parentPort?.postMessage(message)

let tidying: NodeJS.Timeout | undefined
const inbox: ToThread[] = []
let thread: ServingThread | undefined
let loading: Promise<void> | undefined

const loadCode = async (): Promise<void> => {
  const worker = await import('./worker.js').finally(end)
  if (parentPort === null) return
  thread = new worker.ServingThread(parentPort, load)
  send({ type: 'loaded', wakeFd: thread.wakeFd })
}

const serve = async (message: ToThread): Promise<void> => {
  // What comes while the code is loaded is served with this one.
  inbox.push(message)
  clearTimeout(tidying)
  await (loading ??= loadCode())
  if (thread === undefined) return
  for (const each of inbox.splice(0)) thread.receive(each)
  thread.run()
  if (thread.size > 0) return
  tidying = setTimeout(() => thread?.collectGarbage(), TIDY_MS)
  await thread.settle()
}

parentPort?.on('message', (message: ToThread) => void serve(message))
