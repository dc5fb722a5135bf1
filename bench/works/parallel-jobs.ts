/** The work of each of several simultaneous clients, on files of its own. */

import * as sys from '../measure/calls.js'
import { CHUNK, inDirectory, readFile, walk, writeFile } from '../measure/files.js'
import { SMALL, topOf, treeFiles } from './layers.js'
import { scaled, type MountPaths } from './work.js'

/** One client of several. */
export interface Part {
  place: MountPaths
  run: number
  index: number
  clients: number
}

/** Prepares the work of one client. */
export type Job = (part: Part) => () => number

const share = ({ place: { root, scale }, run, index, clients }: Part): string[] =>
  treeFiles(root, scale, run).filter((_, n) => n % clients === index)

const over =
  (call: (file: sys.Path) => void): Job =>
  part => {
    const files = share(part).map(sys.path)
    return () => {
      files.forEach(call)
      return files.length
    }
  }

const create: Job = ({ place: { root, scale }, run, index, clients }) => {
  const directory = sys.path(`${root}/c${run}-${index}`)
  const files = Array.from({ length: scaled(1000 / clients, scale) }, (_, n) =>
    sys.path(`${root}/c${run}-${index}/f${n}`),
  )
  return () => {
    sys.mkdir(directory)
    for (const file of files) writeFile(file, SMALL)
    return files.length
  }
}

const read = over(file => void readFile(file))

export type JobName = 'stat' | 'read' | 'create' | 'write' | 'all'

export const jobs: Readonly<Record<JobName, Job>> = {
  stat: over(sys.lstat),
  read,
  create,
  write: ({ place: { root, scale }, run, index, clients }) => {
    const at = sys.path(`${root}/written${run}-${index}`)
    const chunks = scaled(1024 / clients, scale)
    return () => {
      writeFile(at, chunks * CHUNK)
      return chunks
    }
  },
  /** Each client works in a mount of its own. */
  all: ({ place, run, index, clients }) => {
    const alone: Part = { place: { ...place, root: place.roots[index] ?? '' }, run, index, clients }
    const [reading, creating] = [read(alone), create(alone)]
    const top = topOf(alone.place.root, run)
    return () => inDirectory(top, walk) + reading() + creating()
  },
}
