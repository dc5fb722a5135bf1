/** The body of one thread of the I/O pool. */

import { workerData, type MessagePort } from 'node:worker_threads'
import { E } from '../sys/errno.js'
import { eventfdSignal } from '../sys/io.js'
import { end } from '../sys/loading.js'
import type { IoAnswer, IoRequest } from './io-pool.js'
import { comesAlive, type StartCell } from './io-start.js'
import { runTask } from './io-task.js'

const { port, wakeFd, start } = workerData as {
  port: MessagePort
  wakeFd: number
  start: StartCell
}

const answerTo = ({ id, task }: IoRequest): IoAnswer => {
  try {
    return { id, result: runTask(task) }
  } catch (error) {
    return { id, result: -E.EIO, error: String(error) }
  }
}

end()

if (comesAlive(start)) {
  port.on('message', (request: IoRequest) => {
    port.postMessage(answerTo(request))
    eventfdSignal(wakeFd)
  })
}
