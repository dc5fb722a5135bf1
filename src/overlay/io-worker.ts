/** The body of one thread of the I/O pool. */

import { workerData, type MessagePort } from 'node:worker_threads'
import { eventfdSignal, fdatasync, fsync, syncfs, write } from '../sys/io.js'
import { copyData } from './copydata.js'
import type { IoAnswer, IoRequest, IoTask } from './io-pool.js'
import type { Result } from './ops.js'

const { port, wakeFd } = workerData as { port: MessagePort; wakeFd: number }

function run(task: IoTask): Result {
  switch (task.kind) {
    case 'copy':
      return copyData(task.src, task.dst, task.size, task.sync)
    case 'fsync':
      return task.datasync ? fdatasync(task.fd) : fsync(task.fd)
    case 'syncfs':
      return syncfs(task.fd)
    case 'write':
      return write(task.fd, task.bytes, 0, task.bytes.length)
  }
}

port.on('message', ({ id, task }: IoRequest) => {
  port.postMessage({ id, result: run(task) } satisfies IoAnswer)
  eventfdSignal(wakeFd)
})
