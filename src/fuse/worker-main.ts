/**
 * Where the union's thread begins: it waits for a message that says what to serve, and only then loads
 * the foreign-function library. A process must not end while one of its threads is just doing so (sys/loading.ts), as
 * might be with options that are refused.
 */

import { parentPort as port } from 'node:worker_threads'

import { end } from '../sys/loading.js'
import type { ServeOptions } from './messages.js'

const serve = async (options: ServeOptions): Promise<void> => {
  port?.ref() // or nothing would keep the thread until its code is loaded
  const { serveUnion } = await import('./worker.js').finally(end)
  port?.unref()
  serveUnion(options)
}

port?.once('message', (options: ServeOptions) => void serve(options))
