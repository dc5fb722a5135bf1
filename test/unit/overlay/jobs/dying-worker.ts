/**
 * A job thread that dies after it has done a certain task (datasync of an invalid descriptor, or a
 * close), before it answers.
 */

import { workerData, type MessagePort } from 'node:worker_threads'

import type { IoRequest } from '../../../../src/overlay/jobs/thread.js'

const { port } = workerData as { port: MessagePort }

let deadly = false
const on = port.on.bind(port) as (name: string, handler: (request: IoRequest) => void) => void
const post = port.postMessage.bind(port)

Object.assign(port, {
  on: (name: string, handler: (request: IoRequest) => void) =>
    on(name, request => {
      deadly = request.task.kind === 'close'
      handler(request)
    }),
  postMessage: (message: unknown) => {
    if (deadly) process.exit()
    post(message)
  },
})

await import('../../../../src/overlay/jobs/worker.js')
