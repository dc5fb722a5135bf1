/** Copy-up of one very large file, and what it lets others wait. */

import { once } from 'node:events'
import * as fs from 'node:fs'
import { Worker } from 'node:worker_threads'
import * as sys from '../measure/calls.js'
import { CHUNK, writeFile } from '../measure/files.js'
import type { Look } from './copy-up-bystander.js'
import { scaled, step, type Lowers, type Place, type Step, type Work } from './work.js'

const sizeOf = (scale: number): number => scaled((256 << 20) / CHUNK, scale) * CHUNK

/**
 * More than a second client looks at while the file is copied up, so that each look is the first
 * one.
 */
const OTHERS = 10_000

/** A file that is not sparse, and others. */
const HUGE: Lowers = {
  name: 'huge',
  count: 1,
  build(directory, scale) {
    writeFile(sys.path(`${directory}/0/huge`), sizeOf(scale))
    fs.mkdirSync(`${directory}/0/others`)
    for (let n = 0; n < scaled(OTHERS, scale); n++)
      fs.closeSync(fs.openSync(`${directory}/0/others/file${n}`, 'w'))
  },
}

const copyUp = ({ root }: Place): (() => number) => {
  const at = sys.path(`${root}/huge`)
  const byte = Buffer.alloc(1)
  return () => {
    // Opening is enough elsewhere; where nobody is told of that, closing writes the byte back.
    const fd = sys.open(at, sys.O.RDWR)
    sys.pwrite(fd, byte, 0)
    sys.close(fd)
    return 1
  }
}

/** The time is that of the longest look of a second client. */
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

export const copyUps: Work[] = [
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
