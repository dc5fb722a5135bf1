/** The main program of a pool thread and of a thread for slow layers. */

import { workerData, type MessagePort } from 'node:worker_threads'
import { E } from '../../sys/errno.js'
import { eventfdSignal } from '../../sys/io.js'
import { endLoading } from '../../sys/loading.js'
import {
  markBegun,
  markAlive,
  markDead,
  markDone,
  hasEnded,
  LOADING,
  type ThreadCell,
} from './cells.js'
import { runTask } from './task.js'
import type { IoAnswer, IoRequest } from './thread.js'
import {
  ALIVE,
  REQUESTED,
  DONE,
  UNATTENDED,
  LIFE,
  perform,
  Slot,
  STATE,
  type SlowWork,
} from './slow-call.js'

/** A thread for slow layers gets `memory` instead of `port` and `cell`. */
const { port, cell, memory, wakeFd, endsFd } = workerData as {
  port: MessagePort
  cell: ThreadCell
  memory?: SharedArrayBuffer
  wakeFd: number
  endsFd: number
}

const answerTo = ({ id, task, end: ended }: IoRequest): IoAnswer => {
  if (hasEnded(ended)) return { id, result: -E.EINTR, skipped: true }
  markBegun(cell, id)
  try {
    return { id, result: runTask(task) }
  } catch (error) {
    return { id, result: -E.EIO, error: String(error) }
  }
}

endLoading()

/** Makes one call after the other. Runs no event loop. */
const serve = (slot: Slot): never => {
  const { cells } = slot
  Atomics.store(cells, LIFE, ALIVE)
  // Calls may already be waiting for this thread.
  eventfdSignal(wakeFd)
  for (;;) {
    const state = Atomics.load(cells, STATE)
    if (state !== REQUESTED && state !== UNATTENDED) {
      Atomics.wait(cells, STATE, state)
      continue
    }
    try {
      slot.result = perform(JSON.parse(slot.text) as SlowWork, slot.out)
    } catch {
      slot.result = -E.EIO
    }
    const before = Atomics.exchange(cells, STATE, DONE)
    Atomics.notify(cells, STATE)
    if (before === UNATTENDED) eventfdSignal(wakeFd)
  }
}

if (memory !== undefined) serve(new Slot(memory))

// A signal fails only if its eventfd is already signalled.
if (memory === undefined && markAlive(cell)) {
  markDone(cell, LOADING)
  process.on('exit', () => {
    markDead(cell)
    void eventfdSignal(endsFd)
  })
  port.on('message', (request: IoRequest) => {
    port.postMessage(answerTo(request))
    void eventfdSignal(request.wakeFd)
    markDone(cell, request.id)
    // This must be the last step. The thread that ends a union sets the end cell first and then
    // reads DONE, so at least one side sees the other's change.
    if (hasEnded(request.end)) void eventfdSignal(endsFd)
  })
}
