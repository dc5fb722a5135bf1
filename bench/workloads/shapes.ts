/** Unusual shapes of unions and trees: many layers, a crowded folder, deep paths; and mounting itself. */

import * as sys from '../measure/calls.js'
import { inFolder, walk } from '../measure/files.js'
import { CROWDED, crowd, DEEP, deepFiles, many, manyCount, TREE } from './layers.js'
import { each, scaled, step, type Place, type Step, type Workload } from './workload.js'

const walkMany: Step['prepare'] = ({ root, scale }) => {
  const expected = manyCount(scale)
  return () => {
    const count = inFolder(root, walk)
    if (count !== expected) throw new Error(`the walk found ${count} names of ${expected}`)
    return count
  }
}

const list =
  (more: number): Step['prepare'] =>
  ({ root, scale }) => {
    const expected = crowd(scale) + more
    return () => {
      let count = 0
      inFolder(`${root}/crowded`, dir => sys.readDir(dir, () => count++))
      if (count !== expected) throw new Error(`listed ${count} names of ${expected}`)
      return count
    }
  }

/** One name more, so that the folder is merged of two layers and no earlier listing is valid. */
const listMerged: Step['prepare'] = place => {
  sys.close(sys.open(sys.path(`${place.root}/crowded/new`), sys.O.WRONLY | sys.O.CREAT))
  return list(1)(place)
}

const statCrowd = each(
  ({ root, scale }) => Array.from({ length: crowd(scale) }, (_, n) => `${root}/crowded/name${n}`),
  sys.lstat,
)

const deep = ({ root, scale }: Place): string[] => deepFiles(root, scale)
const deepAgain = (place: Place): string[] =>
  Array.from({ length: scaled(40, place.scale) }, () => deep(place)).flat()

const layers = (count: number): Workload => {
  const shown = count === 1 ? '1 lower layer' : `${count} lower layers`
  return {
    name: `layers-${count}`,
    lowers: many(count),
    mountTitle: `mount of ${shown}`,
    steps: [step('walk', `walk over ${shown}, cold`, walkMany)],
  }
}

export const shapes: Workload[] = [
  {
    name: 'mount',
    lowers: TREE,
    mountTitle: 'mount, from the command to the first answer',
    unmountTitle: 'unmount, until the server has ended',
    steps: [],
  },
  layers(1),
  layers(10),
  layers(100),
  layers(500),
  {
    name: 'crowded',
    lowers: CROWDED,
    steps: [
      step('cold', 'list a folder of 10,000 names, cold', list(0)),
      step('warm', 'list a folder of 10,000 names, warm', list(0)),
      step('merged', 'list it with one name more in the upper layer', listMerged),
      step('stat', 'stat of each of the 10,000 names', statCrowd),
    ],
  },
  {
    name: 'deep',
    lowers: DEEP,
    steps: [
      step('cold', 'stat of files 60 folders deep, cold', each(deep, sys.lstat)),
      step('warm', 'stat of files 60 folders deep, warm', each(deepAgain, sys.lstat)),
    ],
  },
]
