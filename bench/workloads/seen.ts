/** Trees of many files that are only looked at: what a server keeps of each. */

import * as fs from 'node:fs'
import { inFolder, walk } from '../measure/files.js'
import { topOf } from './layers.js'
import { step, type Step, type Workload } from './workload.js'

/** How the command line calls all of them. */
export const MEMORY = 'memory'

const PER_FOLDER = 100
const nodesOf = (files: number): number => files + files / PER_FOLDER

const look =
  (files: number): Step['prepare'] =>
  ({ root }) =>
  () => {
    const count = inFolder(topOf(root), walk)
    if (count !== nodesOf(files))
      throw new Error(`the walk found ${count} names of ${nodesOf(files)}`)
    return count
  }

const tree = (files: number): Workload => ({
  name: `seen-${files}`,
  lowers: {
    name: `seen-${files}`,
    count: 1,
    build(folder) {
      for (let n = 0; n < files; n++) {
        const at = `${topOf(`${folder}/0`)}/folder${Math.floor(n / PER_FOLDER)}`
        if (n % PER_FOLDER === 0) fs.mkdirSync(at, { recursive: true })
        fs.closeSync(fs.openSync(`${at}/file${n}`, 'w'))
      }
    },
  },
  steps: [step('look', 'walk with stat', look(files))],
})

const COUNTS = [1000, 10_000, 100_000, 1_000_000]

/** In no table of times; the numbers of files are real ones at every scale. */
export const seen: Workload[] = COUNTS.map(tree)

/** Up to 100,000 files at scale 1, and in any case the smallest tree. */
export const seenAt = (scale: number): Workload[] =>
  seen.filter((_, n) => n === 0 || (COUNTS[n] as number) <= 100_000 * scale)
