/** Looking at trees and small files of the lower layer, without changing anything. */

import * as sys from '../measure/calls.js'
import { inFolder, readFile, walk } from '../measure/files.js'
import { FILES_PER_FOLDER, SMALL, topOf, TREE, treeFiles, treeFolders } from './layers.js'
import { each, step, type Step, type Workload } from './workload.js'

const walkTree: Step['prepare'] = ({ root, scale }) => {
  const expected = treeFolders(root, scale).length * (FILES_PER_FOLDER + 1)
  return () => {
    const count = inFolder(topOf(root), walk)
    if (count !== expected) throw new Error(`the walk found ${count} names of ${expected}`)
    return count
  }
}

const readSmall = each(
  ({ root, scale }) => treeFiles(root, scale),
  file => {
    const bytes = readFile(file)
    if (bytes !== SMALL) throw new Error(`read ${bytes} bytes of ${SMALL}`)
  },
)

const statMissing = each(
  ({ root, scale }) => treeFiles(root, scale).map(file => `${file}.missing`),
  sys.lstatMissing,
)

export const reading: Workload[] = [
  {
    name: 'walk',
    lowers: TREE,
    steps: [
      step('cold', 'walk with stat, cold', walkTree),
      step('warm', 'walk with stat, warm', walkTree),
    ],
  },
  {
    name: 'first',
    lowers: TREE,
    fresh: true,
    steps: [
      step('walk', 'the first work of a mount: walk with stat', walkTree),
      step('read', 'after that: open, read, close 4 KiB files', readSmall),
    ],
  },
  {
    name: 'read-small',
    lowers: TREE,
    steps: [
      step('cold', 'open, read, close 4 KiB files, cold', readSmall),
      step('warm', 'open, read, close 4 KiB files, warm', readSmall),
    ],
  },
  {
    name: 'missing',
    lowers: TREE,
    steps: [
      step('different', 'stat of missing names, each for the first time', statMissing),
      step('again', 'stat of the same missing names again', statMissing),
    ],
  },
]
