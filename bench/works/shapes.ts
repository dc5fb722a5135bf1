/** Tree shapes: large directories, deep paths, many files, many layers. */

import * as fs from 'node:fs'
import * as sys from '../measure/calls.js'
import { inDirectory, walk } from '../measure/files.js'
import {
  RUNS,
  each,
  scaled,
  step,
  type LowerLayers,
  type MountPaths,
  type Step,
  type Workload,
} from './work.js'

const makeFiles = (directory: string, count: number): void => {
  fs.mkdirSync(directory, { recursive: true })
  for (let n = 0; n < count; n++) fs.closeSync(fs.openSync(`${directory}/name${n}`, 'w'))
}

const NAMES = 10_000

/** For each run a directory of many names. */
const CROWD: LowerLayers = {
  name: 'crowd',
  count: 1,
  build(directory, scale) {
    for (let run = 0; run < RUNS; run++)
      makeFiles(`${directory}/0/directory${run}`, scaled(NAMES, scale))
  },
}

/**
 * Lists the directory of a run completely. `more` is the number of names that are not in the lower
 * layer.
 */
const list =
  (more: number): Step['prepare'] =>
  ({ root, scale }, run) => {
    const expected = scaled(NAMES, scale) + more
    return () => {
      let count = 0
      inDirectory(`${root}/directory${run}`, dir => sys.readDir(dir, () => count++))
      if (count !== expected) throw new Error(`listed ${count} names of ${expected}`)
      return count
    }
  }

/**
 * One additional name makes the directory a merge of two layers, and invalidates all earlier
 * listings.
 */
const addName = each(
  ({ root }, run) => [`${root}/directory${run}/new`],
  file => sys.close(sys.open(file, sys.O.WRONLY | sys.O.CREAT)),
)

const DEPTH = 10

/** Files at the ends of chains of directories. */
const deepFiles = ({ root, scale }: Pick<MountPaths, 'root' | 'scale'>, run: number): string[] =>
  Array.from(
    { length: scaled(300, scale) },
    (_, chain) => `${root}/run${run}/chain${chain}${'/deeper'.repeat(DEPTH - 2)}/file`,
  )

const DEEP: LowerLayers = {
  name: 'deep',
  count: 1,
  build(directory, scale) {
    for (let run = 0; run < RUNS; run++)
      for (const at of deepFiles({ root: `${directory}/0`, scale }, run)) {
        fs.mkdirSync(at.slice(0, at.lastIndexOf('/')), { recursive: true })
        fs.writeFileSync(at, 'deep')
      }
  },
}

/** Walks over everything below a directory and checks the number of names. */
const walkAll =
  (top: string, expectedAt: (scale: number) => number): Step['prepare'] =>
  ({ root, scale }) => {
    const expected = expectedAt(scale)
    return () => {
      const count = inDirectory(`${root}/${top}`, walk)
      if (count !== expected) throw new Error(`the walk found ${count} names of ${expected}`)
      return count
    }
  }

const PER_DIRECTORY = 100
const manyDirectories = (scale: number): number => scaled(1000, scale)

const MANY_FILES: LowerLayers = {
  name: 'many-files',
  count: 1,
  build(directory, scale) {
    for (let n = 0; n < manyDirectories(scale); n++)
      makeFiles(`${directory}/0/many/directory${n}`, PER_DIRECTORY)
  },
}

const DIRECTORIES = 10

/** Layers with the same 10 directories, and 1,000 files spread over all layers. */
const layersOf = (count: number): LowerLayers => ({
  name: `layers-${count}`,
  count,
  build(directory, scale) {
    for (let layer = 0; layer < count; layer++)
      for (let n = 0; n < DIRECTORIES; n++)
        fs.mkdirSync(`${directory}/${layer}/all/d${n}`, { recursive: true })
    for (let n = 0; n < scaled(1000, scale); n++)
      fs.writeFileSync(
        `${directory}/${n % count}/all/d${Math.floor(n / count) % DIRECTORIES}/f${n}`,
        '',
      )
  },
})

const layers = (count: number): Workload => ({
  name: `layers-${count}`,
  lowers: layersOf(count),
  runs: 1,
  mountTitle: `mount of ${count} lower layers`,
  steps: [
    step(
      'walk',
      `walk over ${count} lower layers of 1,000 files`,
      walkAll('all', scale => DIRECTORIES + scaled(1000, scale)),
    ),
  ],
})

export const shapes: Workload[] = [
  {
    name: 'list',
    lowers: CROWD,
    steps: [
      step('list', 'list a directory of 10,000 names', list(0)),
      step('again', 'list it again', list(0)),
      step('add', '', addName),
      step('merged', 'list it with one name of the upper layer', list(1)),
    ],
  },
  {
    name: 'deep',
    lowers: DEEP,
    steps: [step('stat', 'stat of 300 files 10 directories deep', each(deepFiles, sys.lstat))],
  },
  {
    name: 'many-files',
    lowers: MANY_FILES,
    runs: 1,
    turns: 3,
    steps: [
      step(
        'walk',
        'walk with stat of 100,000 files',
        walkAll('many', scale => manyDirectories(scale) * (PER_DIRECTORY + 1)),
      ),
    ],
  },
  layers(100),
  layers(500),
]
