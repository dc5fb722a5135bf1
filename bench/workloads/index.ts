/** Every workload, in the order of the report. */

import { changing } from './changing.js'
import { copyUps } from './copy-up.js'
import { data } from './data.js'
import { manyLayers } from './many-layers.js'
import { parallel } from './parallel.js'
import { programs } from './programs/index.js'
import { reading } from './reading.js'
import { seen } from './seen.js'
import { shapes } from './shapes.js'
import { WARM_UP } from './warm-up.js'
import type { Workload } from './workload.js'

export const workloads: readonly Workload[] = [
  ...reading,
  ...changing,
  ...data,
  ...copyUps,
  ...programs,
  ...parallel,
  ...shapes,
  ...manyLayers,
]

/** A workload by its name, as processes tell each other. */
export const workloadNamed = (name: string): Workload => {
  const found = [...workloads, WARM_UP, ...seen].find(workload => workload.name === name)
  if (found === undefined) throw new Error(`no workload ${name}`)
  return found
}
