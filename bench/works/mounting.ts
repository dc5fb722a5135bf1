/** Mounting, and many simultaneous mounts. */

import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import * as sys from '../measure/calls.js'
import { inDirectory, readFile } from '../measure/files.js'
import type { Load } from './load.js'
import { topOf, TREE, treeFiles } from './layers.js'
import { together } from './parallel.js'
import { readSmall } from './reading.js'
import { step, type Step, type Workload } from './work.js'

const IDLE_MS = 5000
const READ_EACH = 20

/** Lists the tree of each mount and reads some files. */
const lookIntoEach: Step['prepare'] = ({ roots, scale }, run) => {
  const each = roots.map(root => ({
    top: topOf(root, run),
    files: treeFiles(root, scale, run).slice(0, READ_EACH).map(sys.path),
  }))
  return () => {
    for (const { top, files } of each) {
      inDirectory(top, dir => sys.readDir(dir, () => {}))
      for (const file of files) readFile(file)
    }
    return roots.length
  }
}

/** The number of iterations in the other mount before the clock starts. */
const UNDER_WAY = 1000

/**
 * A second client works in the first mount continuously; the time is that of the work in the second
 * mount.
 */
const underLoad: Step['prepare'] = async (place, run) => {
  const [busy = '', root = ''] = place.roots
  const work = await readSmall({ ...place, root }, run)
  const shared = new SharedArrayBuffer(8)
  const workerData: Load = { root: busy, run, scale: place.scale, shared }
  const load = new Worker(new URL('load.js', import.meta.url), { workerData })
  const ended = once(load, 'exit')
  await once(load, 'message')
  const [asked, stop] = [new Int32Array(shared, 0, 1), new Int32Array(shared, 4, 1)]
  return async () => {
    load.postMessage('start')
    while (Atomics.load(asked, 0) < UNDER_WAY) await new Promise(done => setTimeout(done, 1))
    const before = performance.now()
    const operations = (await work()) as number
    const ms = performance.now() - before
    Atomics.store(stop, 0, 1)
    await ended
    return { operations, ms }
  }
}

const idle = (mounts: number): Workload => ({
  name: `idle-${mounts}`,
  lowers: TREE,
  mounts,
  turns: 3,
  mountTitle: `mount ${mounts} unions, and 5 s without work`,
  idleMs: IDLE_MS,
  steps: [],
})

const load = (name: string, how: string): Workload => ({
  name,
  lowers: TREE,
  mounts: 2,
  steps: [step('read', `read 2,000 files while another mount is busy${how}`, underLoad)],
})

export const mounting: Workload[] = [
  {
    name: 'mount',
    lowers: TREE,
    turns: 20,
    mountTitle: 'mount, until the first answer',
    steps: [],
  },
  idle(20),
  idle(100),
  {
    name: 'look-100',
    lowers: TREE,
    mounts: 100,
    turns: 3,
    steps: [step('look', 'in each of 100 mounts: list, read 20 files', lookIntoEach)],
  },
  {
    name: 'busy-10',
    lowers: TREE,
    mounts: 10,
    steps: [step('busy', '10 mounts busy at once', together(10, 'all'))],
  },
  load('load', ''),
  { ...load('load-own', ', --own-server'), ownServer: true },
]
