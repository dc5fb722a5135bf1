/** What each of several clients does at the same time, on files of its own. */

import * as sys from '../measure/calls.js'
import { CHUNK, readFile, writeFile } from '../measure/files.js'
import { SMALL, treeFiles } from './layers.js'
import { scaled, type Place } from './workload.js'

/** Makes one client's part ready. */
export type Job = (place: Place, index: number, clients: number) => () => number

const over =
  (filesOf: (...args: Parameters<Job>) => string[], call: (file: sys.Path) => void): Job =>
  (...args) => {
    const files = filesOf(...args).map(sys.path)
    return () => {
      files.forEach(call)
      return files.length
    }
  }

const share = ({ root, scale }: Place, index: number, clients: number): string[] =>
  treeFiles(root, scale).filter((_, n) => n % clients === index)

export const jobs = {
  stat: over(share, sys.lstat),
  read: over(share, file => void readFile(file)),
  create: over(
    ({ root, scale }, index, clients) =>
      Array.from({ length: scaled(2000 / clients, scale) }, (_, n) => `${root}/c${index}/f${n}`),
    file => writeFile(file, SMALL),
  ),
  write: ({ root, scale }, index, clients) => {
    const at = sys.path(`${root}/written${index}`)
    const chunks = scaled(1024 / clients, scale)
    return () => {
      writeFile(at, chunks * CHUNK)
      return chunks
    }
  },
} satisfies Record<string, Job>

export type JobName = keyof typeof jobs
