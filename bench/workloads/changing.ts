/** Creating, changing and removing: files of the upper layer, copy-ups, whole trees. */

import * as sys from '../measure/calls.js'
import { inFolder, removeBelow, writeFile } from '../measure/files.js'
import { EMPTY, FILES_PER_FOLDER, SMALL, topOf, TREE, treeFiles, treeFolders } from './layers.js'
import { run } from './programs/tools.js'
import { each, scaled, step, type Place, type Step, type Workload } from './workload.js'

const newFiles =
  (name: string, count = 2000) =>
  ({ root, scale }: Place): string[] =>
    Array.from({ length: scaled(count, scale) }, (_, n) => `${root}/new/${name}${n}`)

const createSmall: Step['prepare'] = place => {
  sys.mkdir(sys.path(`${place.root}/new`))
  return each(newFiles('f'), file => writeFile(file, SMALL))(place)
}

const renameCreated: Step['prepare'] = place => {
  const to = newFiles('renamed')(place).map(sys.path)
  return each(newFiles('f'), (file, n) => sys.rename(file, to[n] ?? file))(place)
}

const syncSmall: Step['prepare'] = place => {
  sys.mkdir(sys.path(`${place.root}/new`))
  return each(newFiles('f', 100), file => writeFile(file, SMALL, true))(place)
}

/** Removes all of the tree. */
const removeTree: Step['prepare'] = ({ root, scale }) => {
  const expected = treeFolders(root, scale).length * (FILES_PER_FOLDER + 1)
  return () => {
    const count = inFolder(topOf(root), removeBelow)
    if (count !== expected) throw new Error(`rm -r removed ${count} names of ${expected}`)
    return count
  }
}

/** Builds the same tree in the mount, then removes it. */
const removeNewTree: Step['prepare'] = place => {
  sys.mkdir(sys.path(topOf(place.root)))
  for (const folder of treeFolders(place.root, place.scale)) sys.mkdir(sys.path(folder))
  for (const file of treeFiles(place.root, place.scale)) writeFile(sys.path(file), SMALL)
  return removeTree(place)
}

const tarOut: Step['prepare'] = ({ root, scale, scratch }) => {
  const count = treeFiles(root, scale).length
  return () => {
    // Into a file: tar does not read what goes to /dev/null.
    run(['tar', '-cf', `${scratch}/out.tar`, '-C', topOf(root), '.'])
    return count
  }
}

const tarIn: Step['prepare'] = ({ root, lower, scale, scratch }) => {
  const count = treeFiles(root, scale).length
  run(['tar', '-cf', `${scratch}/in.tar`, '-C', topOf(lower), '.'])
  sys.mkdir(sys.path(`${root}/unpacked`))
  return () => {
    run(['tar', '-xf', `${scratch}/in.tar`, '-C', `${root}/unpacked`])
    return count
  }
}

export const changing: Workload[] = [
  {
    name: 'upper-files',
    lowers: TREE,
    steps: [
      step('create', 'create 4 KiB files', createSmall),
      step(
        'chmod',
        'chmod of created files',
        each(newFiles('f'), file => sys.chmod(file, 0o600)),
      ),
      step('rename', 'rename of created files', renameCreated),
      step('unlink', 'unlink of created files', each(newFiles('renamed'), sys.unlink)),
    ],
  },
  {
    name: 'lower-files',
    lowers: TREE,
    steps: [
      step(
        'copy-up',
        'copy-up of 4 KiB files by chmod',
        each(
          ({ root, scale }) => treeFiles(root, scale, 0, 10),
          file => sys.chmod(file, 0o600),
        ),
      ),
      step(
        'unlink',
        'unlink of lower files',
        each(({ root, scale }) => treeFiles(root, scale, 20, 30), sys.unlink),
      ),
    ],
  },
  { name: 'rm-lower', lowers: TREE, steps: [step('rm', 'rm -r of a lower tree', removeTree)] },
  { name: 'rm-upper', lowers: EMPTY, steps: [step('rm', 'rm -r of an upper tree', removeNewTree)] },
  {
    name: 'tar',
    programs: ['tar'],
    lowers: TREE,
    steps: [
      step('out', 'tar of a lower tree, cold', tarOut),
      step('in', 'untar into the upper layer', tarIn),
    ],
  },
  {
    name: 'fsync',
    lowers: EMPTY,
    steps: [step('small', 'create, fsync and close 4 KiB files', syncSmall)],
  },
]
