/** Copy-up of one very large file, and what it lets others wait. */

import { once } from 'node:events'
import * as fs from 'node:fs'
import { Worker } from 'node:worker_threads'
import * as sys from '../measure/calls.js'
import { CHUNK, writeFile } from '../measure/files.js'
import type { Medium } from '../run/scratch.js'
import type { Look } from './copy-up-bystander.js'
import { run } from './programs/tools.js'
import { scaled, step, type Lowers, type Step, type Workload } from './workload.js'

const sizeOf = (mib: number, scale: number): number => scaled((mib << 20) / CHUNK, scale) * CHUNK

/** More than a second client looks at while the file is copied up, so that each look is the first one. */
const OTHERS = 10_000

/** A file that is not sparse, and others. */
const lowersOf = (mib: number): Lowers => ({
  name: `huge-${mib}`,
  count: 1,
  build(folder, scale) {
    writeFile(sys.path(`${folder}/0/huge`), sizeOf(mib, scale))
    fs.mkdirSync(`${folder}/0/others`)
    for (let n = 0; n < scaled(OTHERS, scale); n++)
      fs.closeSync(fs.openSync(`${folder}/0/others/file${n}`, 'w'))
  },
})

const copyUp: Step['prepare'] = async ({ root, scale }) => {
  const at = sys.path(`${root}/huge`)
  const byte = Buffer.alloc(1)
  const shared = new SharedArrayBuffer(8)
  const workerData: Look = { folder: `${root}/others`, files: scaled(OTHERS, scale), shared }
  const bystander = new Worker(new URL('copy-up-bystander.js', import.meta.url), { workerData })
  await once(bystander, 'message')
  const signals = new Int32Array(shared)
  return async () => {
    const worst = once(bystander, 'message') as Promise<[number]>
    Atomics.store(signals, 0, 1)
    Atomics.notify(signals, 0)
    // Opening is enough elsewhere; where nobody is told of that, closing writes the byte back.
    const fd = sys.open(at, sys.O.RDWR)
    sys.pwrite(fd, byte, 0)
    sys.close(fd)
    Atomics.store(signals, 1, 1)
    Atomics.notify(signals, 1)
    return { operations: 1, also: { wait: (await worst)[0] } }
  }
}

/** As `cp` would: what the medium can do without any union. It shares blocks where copying up may, and doesn't sync. */
const copy: Step['prepare'] = ({ lower, scratch }) => {
  const words = ['cp', '--sparse=auto', `${lower}/huge`, `${scratch}/copy`]
  return () => {
    run(words)
    return 1
  }
}

const workloadsOf = (
  name: string,
  mib: number,
  size: string,
  media: readonly Medium[],
): Workload[] => [
  {
    name: `copy-up-${name}`,
    lowers: lowersOf(mib),
    media,
    steps: [
      {
        ...step('open', `copy-up of a ${size} file by writing a byte`, copyUp),
        also: [{ name: 'wait', title: 'meanwhile, the longest stat of other files, one each ms' }],
      },
    ],
  },
  {
    name: `cp-${name}`,
    lowers: lowersOf(mib),
    media,
    programs: ['cp'],
    fresh: true,
    steps: [
      {
        ...step('cp', `for comparison: cp of the ${size} file beside the union`, copy),
        reference: true,
      },
    ],
  },
]

// A tmpfs takes memory.
export const copyUps: Workload[] = [
  ...workloadsOf('256m', 256, '256 MiB', ['tmpfs']),
  ...workloadsOf('1g', 1024, '1 GiB', ['ext4', 'xfs', 'btrfs']),
]
