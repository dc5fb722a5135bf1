/** The lower layers that workloads share. All of them are made by plain writes, before anything is mounted. */

import * as fs from 'node:fs'
import { CHUNK, outbox, writeFile } from '../measure/files.js'
import { path } from '../measure/calls.js'
import { scaled, type Lowers } from './workload.js'

export const SMALL = 4096
const smallContent = outbox.subarray(0, SMALL)

const FOLDERS = 100
export const FILES_PER_FOLDER = 40

/** Trees that are walked or removed are not at the root: there some unions keep a folder of their own. */
export const topOf = (root: string): string => `${root}/tree`

/** Folders of the shared tree below a root. */
export const treeFolders = (root: string, scale: number): string[] =>
  Array.from({ length: scaled(FOLDERS, scale) }, (_, n) => `${topOf(root)}/d${n}`)

/** Files of the shared tree: all of them, or those from one number to another in each folder. */
export const treeFiles = (root: string, scale: number, from = 0, to = FILES_PER_FOLDER): string[] =>
  treeFolders(root, scale).flatMap(folder =>
    Array.from({ length: to - from }, (_, n) => `${folder}/f${from + n}`),
  )

/** 100 folders with 40 files of 4 KiB each. */
export const TREE: Lowers = {
  name: 'tree',
  count: 1,
  build(folder, scale) {
    for (const at of treeFolders(`${folder}/0`, scale)) fs.mkdirSync(at, { recursive: true })
    for (const at of treeFiles(`${folder}/0`, scale)) fs.writeFileSync(at, smallContent)
  },
}

/** The size of the large file: 128 MiB, in whole chunks. */
export const largeSize = (scale: number): number => scaled(1024, scale) * CHUNK
export const PIECES = 16

/** One large file, and 16 that are as large as that together; none is sparse. */
export const LARGE: Lowers = {
  name: 'large',
  count: 1,
  build(folder, scale) {
    writeFile(path(`${folder}/0/large`), largeSize(scale))
    for (let n = 0; n < PIECES; n++)
      writeFile(path(`${folder}/0/piece${n}`), Math.ceil(largeSize(scale) / PIECES))
  },
}

/** An empty layer. */
export const EMPTY: Lowers = { name: 'empty', count: 1, build() {} }
