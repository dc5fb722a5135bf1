/** Shapes of trees: large folders, deep paths, many files, many layers. */

import * as fs from 'node:fs'
import * as sys from '../measure/calls.js'
import { inFolder, walk } from '../measure/files.js'
import { RUNS, each, scaled, step, type Lowers, type Place, type Step, type Work } from './work.js'

const makeFiles = (folder: string, count: number): void => {
  fs.mkdirSync(folder, { recursive: true })
  for (let n = 0; n < count; n++) fs.closeSync(fs.openSync(`${folder}/name${n}`, 'w'))
}

const NAMES = 10_000

/** For each run a folder of many names. */
const CROWD: Lowers = {
  name: 'crowd',
  count: 1,
  build(folder, scale) {
    for (let run = 0; run < RUNS; run++) makeFiles(`${folder}/0/folder${run}`, scaled(NAMES, scale))
  },
}

/** Lists the folder of a run to its end; `more` of the names are not the lower layer's. */
const list =
  (more: number): Step['prepare'] =>
  ({ root, scale }, run) => {
    const expected = scaled(NAMES, scale) + more
    return () => {
      let count = 0
      inFolder(`${root}/folder${run}`, dir => sys.readDir(dir, () => count++))
      if (count !== expected) throw new Error(`listed ${count} names of ${expected}`)
      return count
    }
  }

/** With one name more the folder is merged of two layers, and no earlier listing is valid. */
const addName = each(
  ({ root }, run) => [`${root}/folder${run}/new`],
  file => sys.close(sys.open(file, sys.O.WRONLY | sys.O.CREAT)),
)

const DEPTH = 10

/** Files at the ends of chains of folders. */
const deepFiles = ({ root, scale }: Pick<Place, 'root' | 'scale'>, run: number): string[] =>
  Array.from(
    { length: scaled(300, scale) },
    (_, chain) => `${root}/run${run}/chain${chain}${'/deeper'.repeat(DEPTH - 2)}/file`,
  )

const DEEP: Lowers = {
  name: 'deep',
  count: 1,
  build(folder, scale) {
    for (let run = 0; run < RUNS; run++)
      for (const at of deepFiles({ root: `${folder}/0`, scale }, run)) {
        fs.mkdirSync(at.slice(0, at.lastIndexOf('/')), { recursive: true })
        fs.writeFileSync(at, 'deep')
      }
  },
}

/** Walks over what is below a folder, and finds so many names. */
const walkAll =
  (top: string, expectedAt: (scale: number) => number): Step['prepare'] =>
  ({ root, scale }) => {
    const expected = expectedAt(scale)
    return () => {
      const count = inFolder(`${root}/${top}`, walk)
      if (count !== expected) throw new Error(`the walk found ${count} names of ${expected}`)
      return count
    }
  }

const PER_FOLDER = 100
const manyFolders = (scale: number): number => scaled(1000, scale)

const MANY_FILES: Lowers = {
  name: 'many-files',
  count: 1,
  build(folder, scale) {
    for (let n = 0; n < manyFolders(scale); n++)
      makeFiles(`${folder}/0/many/folder${n}`, PER_FOLDER)
  },
}

const FOLDERS = 10

/** Layers that have the same 10 folders, and 1,000 files spread over all of them. */
const layersOf = (count: number): Lowers => ({
  name: `layers-${count}`,
  count,
  build(folder, scale) {
    for (let layer = 0; layer < count; layer++)
      for (let n = 0; n < FOLDERS; n++)
        fs.mkdirSync(`${folder}/${layer}/all/d${n}`, { recursive: true })
    for (let n = 0; n < scaled(1000, scale); n++)
      fs.writeFileSync(`${folder}/${n % count}/all/d${Math.floor(n / count) % FOLDERS}/f${n}`, '')
  },
})

const layers = (count: number): Work => ({
  name: `layers-${count}`,
  lowers: layersOf(count),
  runs: 1,
  mountTitle: `mount of ${count} lower layers`,
  steps: [
    step(
      'walk',
      `walk over ${count} lower layers of 1,000 files`,
      walkAll('all', scale => FOLDERS + scaled(1000, scale)),
    ),
  ],
})

export const shapes: Work[] = [
  {
    name: 'list',
    lowers: CROWD,
    steps: [
      step('list', 'list a folder of 10,000 names', list(0)),
      step('again', 'list it again', list(0)),
      step('add', '', addName),
      step('merged', 'list it with one name of the upper layer', list(1)),
    ],
  },
  {
    name: 'deep',
    lowers: DEEP,
    steps: [step('stat', 'stat of 300 files 10 folders deep', each(deepFiles, sys.lstat))],
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
        walkAll('many', scale => manyFolders(scale) * (PER_FOLDER + 1)),
      ),
    ],
  },
  layers(100),
  layers(500),
]
