/**
 * The lower layers that workloads share. They are created by plain writes, before anything is
 * mounted.
 */

import * as fs from 'node:fs'
import { CHUNK, outbox, writeFile } from '../measure/files.js'
import { path } from '../measure/calls.js'
import { RUNS, scaled, type LowerLayers } from './work.js'

export const SMALL = 4096
const smallContent = outbox.subarray(0, SMALL)

const DIRECTORIES = 50
export const FILES_PER_DIRECTORY = 40

/**
 * The tree of one run. It is not the mount's root, because some unions keep a directory of their
 * own there.
 */
export const topOf = (root: string, run = 0): string => `${root}/tree${run}`

/** The directories of the tree of a run. */
export const treeDirectories = (root: string, scale: number, run = 0): string[] =>
  Array.from({ length: scaled(DIRECTORIES, scale) }, (_, n) => `${topOf(root, run)}/d${n}`)

/** The files of the tree of a run: the first ones in each directory, or all of them. */
export const treeFiles = (
  root: string,
  scale: number,
  run = 0,
  perDirectory = FILES_PER_DIRECTORY,
): string[] =>
  treeDirectories(root, scale, run).flatMap(directory =>
    Array.from({ length: perDirectory }, (_, n) => `${directory}/f${n}`),
  )

/** For each run a tree of 50 directories with 40 files of 4 KiB each. */
export const TREE: LowerLayers = {
  name: 'tree',
  count: 1,
  build(directory, scale) {
    for (let run = 0; run < RUNS; run++) {
      for (const at of treeDirectories(`${directory}/0`, scale, run))
        fs.mkdirSync(at, { recursive: true })
      for (const at of treeFiles(`${directory}/0`, scale, run)) fs.writeFileSync(at, smallContent)
    }
  },
}

/** The size of a large file: 128 MiB, in whole chunks. */
export const largeSize = (scale: number): number => scaled(1024, scale) * CHUNK
export const PIECES = 16

/** The number of runs of steps with large files. */
export const LARGE_RUNS = 2

/** For each run a large file, and 16 files that together are as large; none is sparse. */
export const LARGE: LowerLayers = {
  name: 'large',
  count: 1,
  build(directory, scale) {
    for (let run = 0; run < LARGE_RUNS; run++) {
      writeFile(path(`${directory}/0/large${run}`), largeSize(scale))
      for (let n = 0; n < PIECES; n++)
        writeFile(path(`${directory}/0/piece${run}-${n}`), Math.ceil(largeSize(scale) / PIECES))
    }
  },
}

/** An empty layer. */
export const EMPTY: LowerLayers = { name: 'empty', count: 1, build() {} }
