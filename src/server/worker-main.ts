/**
 * Where a union's thread begins: it loads its code, the foreign-function library among it, while
 * the main one finds out what to serve. A process must not end while one of its threads is just
 * doing so (sys/loading.ts), as might be with options that are refused. Its event loop turns while
 * it serves nothing.
 */

import { fileURLToPath } from 'node:url'
import { parentPort, workerData } from 'node:worker_threads'

import { run, type Compiled, type Ran } from '../sys/code-cache.js'
import { end } from '../sys/loading.js'
import type { FromThread, ThreadData, ToThread } from './messages.js'
import type { ServingThread } from './worker.js'
import { BUILT, entryPoint } from '../sys/entry-points.js'

type Code = typeof import('./worker.js')

/**
 * So long after the last union's end the memory that it took is given back, in milliseconds, unless
 * another has come.
 */
const TIDY_MS = 1000
/**
 * So long after a union is live its code is kept, in milliseconds: by then it has done what most
 * mounts are made for.
 */
const KEEP_MS = 1000

const { load, budgets, keeps } = workerData as ThreadData
const send = (message: FromThread): void => parentPort?.postMessage(message)

let tidying: NodeJS.Timeout | undefined
const inbox: ToThread[] = []
let compiled: (() => Compiled) | undefined

const keepOnce = (): void => {
  if (compiled === undefined) return
  const taken = compiled()
  compiled = undefined
  send({ type: 'compiled', compiled: taken })
}

const loadCode = async (): Promise<ServingThread | undefined> => {
  try {
    const code: Ran<Code> = !BUILT
      ? { exports: await import('./worker.js'), wasKept: false }
      : run(fileURLToPath(entryPoint('server/worker')))
    if (keeps) ({ compiled } = code)
    if (parentPort === null) return undefined
    const thread: ServingThread = new code.exports.ServingThread(parentPort, load, budgets, () => {
      // A thread that has nothing to keep is not woken for it.
      if (compiled !== undefined) thread.after(KEEP_MS, keepOnce)
    })
    send({ type: 'loaded', wakeFd: thread.wakeFd })
    return thread
  } finally {
    end()
  }
}
const loading = loadCode()

const serve = async (message: ToThread): Promise<void> => {
  // What comes while the code is loaded is served with this one.
  inbox.push(message)
  clearTimeout(tidying)
  const thread = await loading
  if (thread === undefined) return
  for (const each of inbox.splice(0)) thread.receive(each)
  thread.run()
  if (thread.size > 0) return
  tidying = setTimeout(() => {
    keepOnce()
    thread.collectGarbage()
  }, TIDY_MS)
  await thread.settle()
}

parentPort?.on('message', (message: ToThread) => void serve(message))
