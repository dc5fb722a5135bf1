/**
 * Work of all kinds that nobody times, before the steps of a workload, on a tree of its own which is gone
 * afterwards. A server that was compiled to machine code beforehand hardly differs with it; one that its
 * engine compiles while it runs does, for a part of a second of its life. What that part costs is measured
 * by itself, by the workloads that are `fresh`.
 */

import * as fs from 'node:fs'
import * as sys from '../measure/calls.js'
import { inFolder, readFile, removeBelow, walk, writeFile } from '../measure/files.js'
import { SMALL } from './layers.js'
import { scaled, step, type Lowers, type Place, type Workload } from './workload.js'

const FOLDER = 'warm-up'
const FOLDERS = 10
const FILES = 40
const ROUNDS = 2

const folders = (root: string, scale: number): string[] =>
  Array.from({ length: scaled(FOLDERS, scale) }, (_, n) => `${root}/${FOLDER}/d${n}`)

const files = (folder: string): string[] =>
  Array.from({ length: FILES }, (_, n) => `${folder}/f${n}`)

/** Puts the tree into a layer. */
export const buildWarmUp = (layer: string, scale: number): void => {
  for (const at of folders(layer, scale)) {
    fs.mkdirSync(at, { recursive: true })
    for (const file of files(at)) fs.writeFileSync(file, Buffer.alloc(SMALL, 'warm '))
  }
}

/** The lowest layer of every union that is warmed up and does not have the tree in its own layers. */
export const WARM_UP_LAYER: Lowers = {
  name: FOLDER,
  count: 1,
  build: (folder, scale) => buildWarmUp(`${folder}/0`, scale),
}

/** What the lower layer has. The second half of each folder is changed, copied up or removed. */
const workBelow = (folder: string): void => {
  for (const [n, file] of files(folder).entries()) {
    sys.lstatMissing(sys.path(`${file}.missing`))
    readFile(sys.path(file))
    if (n % 4 === 2) sys.chmod(sys.path(file), 0o600)
    else if (n % 4 === 3) sys.unlink(sys.path(file))
  }
}

const workAbove = (folder: string): void => {
  for (const file of files(`${folder}/new`)) {
    writeFile(sys.path(file), SMALL)
    sys.chmod(sys.path(file), 0o600)
    sys.rename(sys.path(file), sys.path(`${file}.renamed`))
    readFile(sys.path(`${file}.renamed`))
    sys.unlink(sys.path(`${file}.renamed`))
  }
}

const warmUp = ({ root, scale }: Place): number => {
  inFolder(`${root}/${FOLDER}`, walk)
  for (const folder of folders(root, scale)) workBelow(folder)
  for (const folder of folders(root, scale)) {
    sys.mkdir(sys.path(`${folder}/new`))
    for (let round = 0; round < ROUNDS; round++) workAbove(folder)
  }
  inFolder(`${root}/${FOLDER}`, walk)
  const count = inFolder(`${root}/${FOLDER}`, removeBelow)
  sys.rmdir(sys.path(`${root}/${FOLDER}`))
  return count
}

/** Found by its name in the client, as workloads are; it is in no report. */
export const WARM_UP: Workload = {
  name: FOLDER,
  lowers: WARM_UP_LAYER,
  steps: [step('all', 'work that nobody times', place => () => warmUp(place))],
}
