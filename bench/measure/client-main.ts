/**
 * The client process: runs steps of workloads on a mount and looks at the clock. It lives as long as
 * nothing fails, so that no start of a process and no cold code is part of what is measured.
 */

import { cpuSelf } from './calls.js'
import type { FromClient, ToClient } from './messages.js'
import { workloadNamed } from '../workloads/index.js'
import type { Timed } from '../workloads/workload.js'

const say = (message: FromClient): void => void process.send?.(message)

let ready: Timed | null = null

const prepare = async ({
  workload,
  step,
  place,
}: Extract<ToClient, { type: 'prepare' }>): Promise<void> => {
  const found = workloadNamed(workload).steps.find(({ name }) => name === step)
  if (found === undefined) throw new Error(`no step ${step} in ${workload}`)
  ready = await found.prepare(place)
  say({ type: 'ready' })
}

const start = async (): Promise<void> => {
  const timed = ready
  ready = null
  if (timed === null) throw new Error('started before it was ready')
  const cpuBefore = cpuSelf()
  const before = performance.now()
  const result = timed()
  // Awaiting a number would cost a turn of the loop.
  const done = typeof result === 'number' ? result : await result
  const ms = performance.now() - before
  const found = typeof done === 'number' ? { operations: done, also: {} } : done
  say({ type: 'done', ...found, ms, cpu: cpuSelf() - cpuBefore })
}

process.on('message', (message: ToClient) => {
  ;(message.type === 'prepare' ? prepare(message) : start()).catch((error: unknown) => {
    say({ type: 'failed', reason: error instanceof Error ? error.message : String(error) })
  })
})
// The one who measures tidies up, and may need this process's answer until then.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {})
process.on('disconnect', () => process.exit())
