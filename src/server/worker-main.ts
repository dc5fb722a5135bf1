/**
 * The entry point of a union's thread. It loads its code, including the foreign-function library,
 * while the main thread checks the options. The process must not exit while a thread does so
 * (sys/loading.ts), for example after refused options. The thread's event loop runs while it serves
 * no union.
 */

import { fileURLToPath } from 'node:url'
import { parentPort, workerData } from 'node:worker_threads'

import { run, type Compiled, type Ran } from '../sys/code-cache.js'
import { endLoading } from '../sys/loading.js'
import type { FromThread, ThreadData, ToThread } from './messages.js'
import type { ServingThread } from './worker.js'
import { BUILT, entryPoint } from '../sys/entry-points.js'

type Code = typeof import('./worker.js')

/**
 * Time between the end of the last union and a garbage collection, in milliseconds. A new union
 * cancels it.
 */
const IDLE_GC_MS = 1000
/**
 * Time between a union's start and the export of the compiled code, in milliseconds. By that time
 * most code paths have run.
 */
const KEEP_MS = 1000

const { load, budgets, keeps } = workerData as ThreadData
const send = (message: FromThread): void => parentPort?.postMessage(message)

let gcTimer: NodeJS.Timeout | undefined
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
      // A thread without code to keep is not woken for it.
      if (compiled !== undefined) thread.after(KEEP_MS, keepOnce)
    })
    send({ type: 'loaded', wakeFd: thread.wakeFd })
    return thread
  } finally {
    endLoading()
  }
}
const loading = loadCode()

const serve = async (message: ToThread): Promise<void> => {
  // Messages that arrive while the code is loading are handled together with this one.
  inbox.push(message)
  clearTimeout(gcTimer)
  const thread = await loading
  if (thread === undefined) return
  for (const each of inbox.splice(0)) thread.receive(each)
  thread.run()
  if (thread.size > 0) return
  gcTimer = setTimeout(() => {
    keepOnce()
    thread.collectGarbage()
  }, IDLE_GC_MS)
  await thread.awaitLeftovers()
}

parentPort?.on('message', (message: ToThread) => void serve(message))
