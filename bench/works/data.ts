/** The data of large files: sequential, random, appended, mapped, truncated. */

import * as sys from '../measure/calls.js'
import { CHUNK, inbox, outbox, readFile, writeFile } from '../measure/files.js'
import { EMPTY, LARGE, LARGE_RUNS, largeSize, PIECES } from './layers.js'
import {
  each,
  randomNumbers,
  scaled,
  step,
  type MountPaths,
  type Step,
  type Workload,
} from './work.js'

const readLarge: Step['prepare'] = ({ root, scale }, run) => {
  const at = sys.path(`${root}/large${run}`)
  const size = largeSize(scale)
  return () => {
    const bytes = readFile(at)
    if (bytes !== size) throw new Error(`read ${bytes} bytes of ${size}`)
    return size / CHUNK
  }
}

const writeLarge =
  (name: string, sync = false): Step['prepare'] =>
  ({ root, scale }, run) => {
    const at = sys.path(`${root}/${name}${run}`)
    const size = largeSize(scale)
    return () => {
      writeFile(at, size, sync)
      return size / CHUNK
    }
  }

const PAGE = 4096
const randomOffsets = (scale: number): number[] =>
  randomNumbers(scaled(4000, scale), largeSize(scale) / PAGE).map(page => page * PAGE)
const pageIn = inbox.subarray(0, PAGE)
const pageOut = outbox.subarray(0, PAGE)

const readRandom: Step['prepare'] = ({ root, scale }, run) => {
  const offsets = randomOffsets(scale)
  const at = sys.path(`${root}/large${run}`)
  return () => {
    const fd = sys.open(at, sys.O.RDONLY)
    for (const offset of offsets)
      if (sys.pread(fd, pageIn, offset) !== PAGE) throw new Error('read too little')
    sys.close(fd)
    return offsets.length
  }
}

const writeRandom: Step['prepare'] = ({ root, scale }, run) => {
  const offsets = randomOffsets(scale)
  const at = sys.path(`${root}/upper${run}`)
  return () => {
    const fd = sys.open(at, sys.O.WRONLY)
    for (const offset of offsets) sys.pwrite(fd, pageOut, offset)
    sys.close(fd)
    return offsets.length
  }
}

const LINE = 100
const appendOpen: Step['prepare'] = ({ root, scale }, run) => {
  const count = scaled(4000, scale)
  const at = sys.path(`${root}/log${run}`)
  return () => {
    const fd = sys.open(at, sys.O.WRONLY | sys.O.CREAT | sys.O.APPEND)
    for (let n = 0; n < count; n++) sys.write(fd, outbox, LINE)
    sys.close(fd)
    return count
  }
}

const appendReopened: Step['prepare'] = ({ root, scale }, run) => {
  const count = scaled(1000, scale)
  const at = sys.path(`${root}/reopened${run}`)
  return () => {
    for (let n = 0; n < count; n++) {
      const fd = sys.open(at, sys.O.WRONLY | sys.O.CREAT | sys.O.APPEND)
      sys.write(fd, outbox, LINE)
      sys.close(fd)
    }
    return count
  }
}

const readMap: Step['prepare'] = ({ root, scale }, run) => {
  const at = sys.path(`${root}/large${run}`)
  const size = largeSize(scale)
  return () => {
    const fd = sys.open(at, sys.O.RDONLY)
    sys.readMapped(fd, size)
    sys.close(fd)
    return size / PAGE
  }
}

const pieces = ({ root }: MountPaths, run: number): string[] =>
  Array.from({ length: PIECES }, (_, n) => `${root}/piece${run}-${n}`)

export const data: Workload[] = [
  {
    name: 'read-large',
    lowers: LARGE,
    runs: LARGE_RUNS,
    steps: [
      step('read', 'read a lower file of 128 MiB', readLarge),
      step('again', 'read it again', readLarge),
    ],
  },
  {
    name: 'write-large',
    lowers: EMPTY,
    runs: LARGE_RUNS,
    steps: [
      step('write', 'write 128 MiB', writeLarge('written')),
      step('sync', 'write 128 MiB and fsync', writeLarge('synced', true)),
    ],
  },
  {
    name: 'random-read',
    lowers: LARGE,
    runs: LARGE_RUNS,
    steps: [
      step('read', 'read 4,000 pages of a lower file at random', readRandom),
      step('again', 'read them again', readRandom),
    ],
  },
  {
    name: 'random-write',
    lowers: EMPTY,
    runs: LARGE_RUNS,
    steps: [
      step('file', '', writeLarge('upper', true)),
      step('write', 'write 4,000 pages of an upper file at random', writeRandom),
    ],
  },
  {
    name: 'append',
    lowers: EMPTY,
    steps: [
      step('reopened', 'open, append a line, close, 1,000 times', appendReopened),
      step('open', 'append 4,000 lines to an open file', appendOpen),
    ],
  },
  {
    name: 'mmap',
    lowers: LARGE,
    runs: LARGE_RUNS,
    steps: [
      step('read', 'read 128 MiB through a mapping', readMap),
      step('again', 'read them again', readMap),
    ],
  },
  {
    name: 'truncate',
    lowers: LARGE,
    runs: LARGE_RUNS,
    steps: [
      step(
        'open',
        'open 16 lower files of 8 MiB with O_TRUNC',
        each(pieces, file => sys.close(sys.open(file, sys.O.WRONLY | sys.O.TRUNC))),
      ),
    ],
  },
]
