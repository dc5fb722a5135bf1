/** Copy-up of one very large file, and how long it delays other clients. */

import { once } from 'node:events'
import * as fs from 'node:fs'
import { Worker } from 'node:worker_threads'
import * as sys from '../measure/calls.js'
import { CHUNK, writeFile } from '../measure/files.js'
import type { Look } from './copy-up-bystander.js'
import {
  scaled,
  step,
  type LowerLayers,
  type MountPaths,
  type Step,
  type Workload,
} from './work.js'

const sizeOf = (scale: number): number => scaled((256 << 20) / CHUNK, scale) * CHUNK

/**
 * More files than the second client stats during the copy-up, so that each stat is the first one of
 * its file.
 */
const OTHERS = 10_000

/** A file that is not sparse, and other files. */
const HUGE: LowerLayers = {
  name: 'huge',
  count: 1,
  build(directory, scale) {
    writeFile(sys.path(`${directory}/0/huge`), sizeOf(scale))
    fs.mkdirSync(`${directory}/0/others`)
    for (let n = 0; n < scaled(OTHERS, scale); n++)
      fs.closeSync(fs.openSync(`${directory}/0/others/file${n}`, 'w'))
  },
}

const copyUp = ({ root }: MountPaths): (() => number) => {
  const at = sys.path(`${root}/huge`)
  const byte = Buffer.alloc(1)
  return () => {
    // Opening for writing copies the file up. Without open requests (noopen) closing writes the
    // byte back, which copies it up.
    const fd = sys.open(at, sys.O.RDWR)
    sys.pwrite(fd, byte, 0)
    sys.close(fd)
    return 1
  }
}

/** The time is the longest stat of a second client. */
const wait: Step['prepare'] = async place => {
  const work = copyUp(place)
  const shared = new SharedArrayBuffer(8)
  const files = scaled(OTHERS, place.scale)
  const workerData: Look = { directory: `${place.root}/others`, files, shared }
  const bystander = new Worker(new URL('copy-up-bystander.js', import.meta.url), { workerData })
  await once(bystander, 'message')
  const signals = new Int32Array(shared)
  const give = (signal: number): void => {
    Atomics.store(signals, signal, 1)
    Atomics.notify(signals, signal)
  }
  return async () => {
    const worst = once(bystander, 'message') as Promise<[number]>
    give(0)
    work()
    give(1)
    return { operations: 1, ms: (await worst)[0] }
  }
}

export const copyUps: Workload[] = [
  {
    name: 'copy-up',
    lowers: HUGE,
    runs: 1,
    steps: [step('write', 'copy-up of 256 MiB by writing a byte', copyUp)],
  },
  {
    name: 'copy-up-wait',
    lowers: HUGE,
    runs: 1,
    steps: [step('wait', 'meanwhile, the longest stat of another client', wait)],
  },
]
