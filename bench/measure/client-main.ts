/**
 * The client process: runs the steps of workloads on a mount and measures their time. It is reused
 * until a step fails, so that process start and cold code are not measured.
 */

import type { FromClient, ToClient } from './messages.js'
import { workNamed } from '../works/index.js'
import type { TimedPart } from '../works/work.js'

const say = (message: FromClient): void => void process.send?.(message)

let ready: TimedPart[] = []

const prepare = async ({
  work,
  run,
  place,
}: Extract<ToClient, { type: 'prepare' }>): Promise<void> => {
  ready = await Promise.all(workNamed(work).steps.map(async step => step.prepare(place, run)))
  say({ type: 'ready' })
}

const start = async ({ step }: Extract<ToClient, { type: 'start' }>): Promise<void> => {
  const timed = ready[step]
  if (timed === undefined) throw new Error('started before it was ready')
  const before = performance.now()
  const result = timed()
  // Awaiting a number would cost a turn of the event loop.
  const done = typeof result === 'number' ? result : await result
  const ms = performance.now() - before
  say({ type: 'done', ms, ...(typeof done === 'number' ? { operations: done } : done) })
}

process.on('message', (message: ToClient) => {
  ;(message.type === 'prepare' ? prepare(message) : start(message)).catch((error: unknown) => {
    say({ type: 'failed', reason: error instanceof Error ? error.message : String(error) })
  })
})
// The measuring process removes the mounts, and may need an answer of this process until then.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {})
process.on('disconnect', () => process.exit())
