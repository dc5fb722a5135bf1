/** A client that works in one mount until it is stopped: a thread that reports when it is ready. */

import { once } from 'node:events'
import { parentPort, workerData } from 'node:worker_threads'
import * as sys from '../measure/calls.js'
import { writeFile } from '../measure/files.js'
import { SMALL } from './layers.js'

/** The parameters of such a thread. */
export interface Load {
  root: string
  run: number
  scale: number
  /** Two words: the number of iterations, and a flag that is 0 until the thread has to stop. */
  shared: SharedArrayBuffer
}

const { root, run, shared } = workerData as Load
const words = new Int32Array(shared)
const FILES = 100
const names = Array.from({ length: FILES }, (_, n) => sys.path(`${root}/load${run}-${n}`))
const missing = Array.from({ length: FILES }, (_, n) => sys.path(`${root}/missing${run}-${n}`))

if (parentPort !== null) {
  const started = once(parentPort, 'message')
  parentPort.postMessage('ready')
  await started
  for (let n = 0; Atomics.load(words, 1) === 0; n++) {
    const name = names[n % FILES] as sys.Path
    sys.lstatMissing(missing[n % FILES] as sys.Path)
    writeFile(name, SMALL)
    sys.chmod(name, 0o600)
    sys.unlink(name)
    Atomics.add(words, 0, 1)
  }
  parentPort.close()
}
