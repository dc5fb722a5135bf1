/** Reading trees and small files of the lower layer, without changes. */

import * as fs from 'node:fs'
import * as sys from '../measure/calls.js'
import { inDirectory, readFile, walk } from '../measure/files.js'
import { FILES_PER_DIRECTORY, SMALL, topOf, TREE, treeFiles, treeDirectories } from './layers.js'
import { each, step, type Step, type Workload } from './work.js'

/** Checks the number of names that a walk over the tree of a run has found. */
const walkBy =
  (walked: (top: string) => number): Step['prepare'] =>
  ({ root, scale }, run) => {
    const expected = treeDirectories(root, scale).length * (FILES_PER_DIRECTORY + 1)
    return () => {
      const count = walked(topOf(root, run))
      if (count !== expected) throw new Error(`the walk found ${count} names of ${expected}`)
      return count
    }
  }

export const walkTree = walkBy(top => inDirectory(top, walk))

/**
 * As JavaScript programs do it: lists the names, then calls lstat on each path, which also requests
 * the birth time.
 */
const walkAsNode = (directory: string): number => {
  let count = 0
  for (const name of fs.readdirSync(directory)) {
    count++
    const at = `${directory}/${name}`
    if (fs.lstatSync(at).isDirectory()) count += walkAsNode(at)
  }
  return count
}

export const readSmall = each(
  ({ root, scale }, run) => treeFiles(root, scale, run),
  file => {
    const bytes = readFile(file)
    if (bytes !== SMALL) throw new Error(`read ${bytes} bytes of ${SMALL}`)
  },
)

const statMissing = each(
  ({ root, scale }, run) => treeFiles(root, scale, run).map(file => `${file}.missing`),
  sys.lstatMissing,
)

export const reading: Workload[] = [
  {
    name: 'walk',
    lowers: TREE,
    steps: [
      step('walk', 'walk with stat of 2,000 files', walkTree),
      step('again', 'the same walk again', walkTree),
    ],
  },
  {
    name: 'walk-node',
    lowers: TREE,
    steps: [step('walk', "the same by Node's lstat, which asks for birth", walkBy(walkAsNode))],
  },
  {
    name: 'read',
    lowers: TREE,
    steps: [
      step('read', 'read 2,000 files of 4 KiB', readSmall),
      step('again', 'read them again', readSmall),
    ],
  },
  {
    name: 'missing',
    lowers: TREE,
    steps: [
      step('stat', 'stat of 2,000 missing names', statMissing),
      step('again', 'stat of them again', statMissing),
    ],
  },
]
