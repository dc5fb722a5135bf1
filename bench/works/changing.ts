/** Creating, changing and removing: files of the upper layer, copy-ups, whole trees. */

import * as sys from '../measure/calls.js'
import { inDirectory, outbox, removeBelow, writeFile } from '../measure/files.js'
import {
  EMPTY,
  FILES_PER_DIRECTORY,
  SMALL,
  topOf,
  TREE,
  treeFiles,
  treeDirectories,
} from './layers.js'
import { run as runProgram } from './programs/tools.js'
import { each, scaled, step, type MountPaths, type Step, type Workload } from './work.js'

/** New files of a run, in a directory of their own. */
const newFiles =
  (name: string, count = 1000) =>
  ({ root, scale }: MountPaths, run: number): string[] =>
    Array.from({ length: scaled(count, scale) }, (_, n) => `${root}/new${run}/${name}${n}`)

const create =
  (count?: number, sync = false): Step['prepare'] =>
  (place, run) => {
    const directory = sys.path(`${place.root}/new${run}`)
    const files = newFiles('f', count)(place, run).map(sys.path)
    return () => {
      sys.mkdir(directory)
      for (const file of files) writeFile(file, SMALL, sync)
      return files.length
    }
  }

const rename: Step['prepare'] = (place, run) => {
  const to = newFiles('renamed')(place, run).map(sys.path)
  return each(newFiles('f'), (file, n) => sys.rename(file, to[n] ?? file))(place, run)
}

/** A quarter of the tree. */
const someFiles = ({ root, scale }: MountPaths, run: number): string[] =>
  treeFiles(root, scale, run, FILES_PER_DIRECTORY / 4)

const LINE = 100
const append = (file: sys.Path): void => {
  const fd = sys.open(file, sys.O.WRONLY | sys.O.APPEND)
  sys.write(fd, outbox, LINE)
  sys.close(fd)
}

const removeTree: Step['prepare'] = ({ root, scale }, run) => {
  const expected = treeDirectories(root, scale).length * (FILES_PER_DIRECTORY + 1)
  return () => {
    const count = inDirectory(topOf(root, run), removeBelow)
    if (count !== expected) throw new Error(`rm -r removed ${count} names of ${expected}`)
    return count
  }
}

const tarOut: Step['prepare'] = ({ root, scale, scratch }, run) => {
  const count = treeFiles(root, scale).length
  return () => {
    // The output goes to a file, because tar does not read file data if the output is /dev/null.
    runProgram(['tar', '-cf', `${scratch}/out.tar`, '-C', topOf(root, run), '.'])
    return count
  }
}

const tarIn: Step['prepare'] = ({ root, lower, scale, scratch }, run) => {
  const count = treeFiles(root, scale).length
  runProgram(['tar', '-cf', `${scratch}/in.tar`, '-C', topOf(lower), '.'])
  const into = `${root}/unpacked${run}`
  return () => {
    sys.mkdir(sys.path(into))
    runProgram(['tar', '-xf', `${scratch}/in.tar`, '-C', into])
    return count
  }
}

export const changing: Workload[] = [
  {
    name: 'create',
    lowers: EMPTY,
    steps: [
      step('create', 'create 1,000 files of 4 KiB', create()),
      step(
        'chmod',
        'chmod of them',
        each(newFiles('f'), file => sys.chmod(file, 0o600)),
      ),
      step('rename', 'rename of them', rename),
      step('unlink', 'unlink of them', each(newFiles('renamed'), sys.unlink)),
    ],
  },
  {
    name: 'chmod-lower',
    lowers: TREE,
    steps: [
      step(
        'chmod',
        'chmod of 500 lower files',
        each(someFiles, file => sys.chmod(file, 0o600)),
      ),
    ],
  },
  {
    name: 'append-lower',
    lowers: TREE,
    steps: [step('append', 'append a line to 500 lower files', each(someFiles, append))],
  },
  {
    name: 'unlink-lower',
    lowers: TREE,
    steps: [step('unlink', 'unlink of 500 lower files', each(someFiles, sys.unlink))],
  },
  {
    name: 'rm-lower',
    lowers: TREE,
    steps: [step('rm', 'rm -r of a lower tree of 2,000 files', removeTree)],
  },
  {
    name: 'untar',
    programs: ['tar'],
    lowers: TREE,
    steps: [step('untar', 'untar of 2,000 files', tarIn)],
  },
  {
    name: 'tar',
    programs: ['tar'],
    lowers: TREE,
    steps: [step('tar', 'tar of a lower tree of 2,000 files', tarOut)],
  },
  {
    name: 'fsync',
    lowers: EMPTY,
    steps: [step('fsync', 'create, fsync and close 100 files', create(100, true))],
  },
]
