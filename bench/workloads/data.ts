/** The bytes of large files: in order, at random, appended, mapped, copied up, cut off. */

import * as sys from '../measure/calls.js'
import { CHUNK, inbox, outbox, readFile, writeFile } from '../measure/files.js'
import { EMPTY, LARGE, largeSize, PIECES } from './layers.js'
import {
  each,
  randomNumbers,
  scaled,
  step,
  type Place,
  type Step,
  type Workload,
} from './workload.js'

const readLarge: Step['prepare'] = ({ root, scale }) => {
  const at = sys.path(`${root}/large`)
  const size = largeSize(scale)
  return () => {
    const bytes = readFile(at)
    if (bytes !== size) throw new Error(`read ${bytes} bytes of ${size}`)
    return size / CHUNK
  }
}

const writeLarge =
  (name: string, sync: boolean): Step['prepare'] =>
  ({ root, scale }) => {
    const at = sys.path(`${root}/${name}`)
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

const readRandom: Step['prepare'] = ({ root, scale }) => {
  const offsets = randomOffsets(scale)
  const at = sys.path(`${root}/large`)
  return () => {
    const fd = sys.open(at, sys.O.RDONLY)
    for (const offset of offsets)
      if (sys.pread(fd, pageIn, offset) !== PAGE) throw new Error('read too little')
    sys.close(fd)
    return offsets.length
  }
}

/** Over a file that is all there and synced before the clock starts. */
const writeRandom: Step['prepare'] = ({ root, scale }) => {
  const offsets = randomOffsets(scale)
  const at = sys.path(`${root}/upper`)
  writeFile(at, largeSize(scale), true)
  return () => {
    const fd = sys.open(at, sys.O.WRONLY)
    for (const offset of offsets) sys.pwrite(fd, pageOut, offset)
    sys.close(fd)
    return offsets.length
  }
}

const LINE = 100
const appendOpen: Step['prepare'] = ({ root, scale }) => {
  const count = scaled(4000, scale)
  const at = sys.path(`${root}/log`)
  return () => {
    const fd = sys.open(at, sys.O.WRONLY | sys.O.CREAT | sys.O.APPEND)
    for (let n = 0; n < count; n++) sys.write(fd, outbox, LINE)
    sys.close(fd)
    return count
  }
}

const appendReopened: Step['prepare'] = ({ root, scale }) => {
  const count = scaled(1000, scale)
  const at = sys.path(`${root}/reopened`)
  return () => {
    for (let n = 0; n < count; n++) {
      const fd = sys.open(at, sys.O.WRONLY | sys.O.CREAT | sys.O.APPEND)
      sys.write(fd, outbox, LINE)
      sys.close(fd)
    }
    return count
  }
}

const readMap: Step['prepare'] = ({ root, scale }) => {
  const at = sys.path(`${root}/large`)
  const size = largeSize(scale)
  return () => {
    const fd = sys.open(at, sys.O.RDONLY)
    sys.readMapped(fd, size)
    sys.close(fd)
    return size / PAGE
  }
}

const openWith =
  (flags: number) =>
  (file: sys.Path): void =>
    sys.close(sys.open(file, flags))

const pieces = ({ root }: Place): string[] =>
  Array.from({ length: PIECES }, (_, n) => `${root}/piece${n}`)

export const data: Workload[] = [
  {
    name: 'sequential',
    lowers: LARGE,
    steps: [
      step('read-cold', 'read 128 MiB of a lower file, cold', readLarge),
      step('read-warm', 'read 128 MiB of a lower file, warm', readLarge),
      step('write', 'write 128 MiB', writeLarge('written', false)),
      step('write-sync', 'write 128 MiB and fsync', writeLarge('synced', true)),
    ],
  },
  {
    name: 'random-read',
    lowers: LARGE,
    steps: [
      step('cold', 'read 4 KiB at random in a lower file, cold', readRandom),
      step('warm', 'read the same pages again', readRandom),
    ],
  },
  {
    name: 'random-write',
    lowers: EMPTY,
    steps: [step('write', 'write 4 KiB at random in an upper file', writeRandom)],
  },
  {
    name: 'append',
    lowers: EMPTY,
    steps: [
      step('open', 'append 100 bytes to an open file', appendOpen),
      step('reopened', 'open, append 100 bytes, close', appendReopened),
    ],
  },
  {
    name: 'mmap',
    lowers: LARGE,
    steps: [
      step('cold', 'read 128 MiB of a lower file through a mapping, cold', readMap),
      step('warm', 'read 128 MiB of a lower file through a mapping, warm', readMap),
    ],
  },
  {
    name: 'truncate',
    lowers: LARGE,
    steps: [
      step(
        'open',
        'open with O_TRUNC of 8 MiB lower files',
        each(pieces, openWith(sys.O.WRONLY | sys.O.TRUNC)),
      ),
    ],
  },
]
