/** Unions of many layers: how mounting and looking grow with them. */

import * as fs from 'node:fs'
import { inFolder, walk } from '../measure/files.js'
import { topOf } from './layers.js'
import { buildWarmUp } from './warm-up.js'
import { scaled, step, type Lowers, type Step, type Workload } from './workload.js'

const FOLDERS = 10
const files = (scale: number): number => scaled(1000, scale)

/**
 * Layers that have the same 10 folders, and 1,000 files spread over all of them. The tree of the warm-up is
 * in the lowest one: the kernel takes 500 layers and not one more.
 */
const many = (count: number): Lowers => ({
  name: `many-${count}`,
  count,
  warmUp: true,
  build(folder, scale) {
    for (let layer = 0; layer < count; layer++)
      for (let n = 0; n < FOLDERS; n++)
        fs.mkdirSync(`${topOf(`${folder}/${layer}`)}/d${n}`, { recursive: true })
    for (let n = 0; n < files(scale); n++)
      fs.writeFileSync(
        `${topOf(`${folder}/${n % count}`)}/d${Math.floor(n / count) % FOLDERS}/f${n}`,
        '',
      )
    buildWarmUp(`${folder}/${count - 1}`, scale)
  },
})

const walkMany: Step['prepare'] = ({ root, scale }) => {
  const expected = FOLDERS + files(scale)
  return () => {
    const count = inFolder(topOf(root), walk)
    if (count !== expected) throw new Error(`the walk found ${count} names of ${expected}`)
    return count
  }
}

const layers = (count: number): Workload => {
  const shown = count === 1 ? '1 lower layer' : `${count} lower layers`
  return {
    name: `layers-${count}`,
    lowers: many(count),
    mountTitle: `mount of ${shown}`,
    steps: [step('walk', `walk over ${shown}, cold`, walkMany)],
  }
}

export const manyLayers: Workload[] = [1, 10, 100, 500].map(layers)
