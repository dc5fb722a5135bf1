/** The body of one thread of the I/O pool. */

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

/** A thread for slow layers has shared memory instead of the other two. */
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

/** Makes one call after the other, and turns no event loop. */
const serve = (slot: Slot): never => {
  const { cells } = slot
  Atomics.store(cells, LIFE, ALIVE)
  // There may be calls that wait for it.
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

// A signal fails only where its descriptor is signalled already.
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
    // After that: who ends a union looks in the other order, so that one of the two sees the other.
    if (hasEnded(request.end)) void eventfdSignal(endsFd)
  })
}
