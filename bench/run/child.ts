/** A process that measures, seen from itself: what it is to do, and how it tells what it has found. */

import { Client } from '../measure/client.js'
import type { Plan } from './options.js'
import type { Message } from './records.js'
import { Scratch } from './scratch.js'

export const plan = JSON.parse(process.argv[2] ?? '') as Plan

export const say = (message: Message): void => void process.send?.(message)

export const reasonOf = (error: unknown): string =>
  error instanceof Error ? error.message : String(error)

// In this order: at the end the client may sit in a call on a mount that is to be removed.
export const client = new Client()
process.on('exit', () => client.kill())
export const scratch = new Scratch(plan.dir)
// The one who asked for all this has gone.
process.on('disconnect', () => process.exit(1))

/** Ends the process when everything that was said has been sent. */
export const finish = (all: number): void => {
  process.send?.({ type: 'progress', done: all, all, text: 'done' } satisfies Message, () =>
    process.exit(0),
  )
}
