/** All workloads, in the order of the report. */

import { changing } from './changing.js'
import { copyUps } from './copy-up.js'
import { data } from './data.js'
import { mounting } from './mounting.js'
import { parallel } from './parallel.js'
import { programs } from './programs/index.js'
import { reading } from './reading.js'
import { shapes } from './shapes.js'
import type { Workload } from './work.js'

export const works: readonly Workload[] = [
  ...mounting,
  ...reading,
  ...changing,
  ...copyUps,
  ...programs,
  ...data,
  ...parallel,
  ...shapes,
]

/** Finds a workload by the name that processes send each other. */
export const workNamed = (name: string): Workload => {
  const found = works.find(work => work.name === name)
  if (found === undefined) throw new Error(`no work ${name}`)
  return found
}
