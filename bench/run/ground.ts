/** The folders of unions on one medium: lower layers that are built once, all others fresh for every mount. */

import * as fs from 'node:fs'
import type { Layers } from '../systems/system.js'
import { WARM_UP_LAYER } from '../workloads/warm-up.js'
import { isWarmedUp, type Lowers, type Place, type Workload } from '../workloads/workload.js'
import type { Medium, Scratch } from './scratch.js'

export interface Prepared {
  /** Where the lower layers are; their paths are relative to it. */
  folder: string
  layers: Layers
  place: Place
}

export class Ground {
  readonly #scratch: Scratch
  readonly #medium: Medium
  readonly #scale: number
  readonly #top: string
  readonly #built = new Set<string>()

  constructor(scratch: Scratch, medium: Medium, scale: number) {
    this.#scratch = scratch
    this.#medium = medium
    this.#scale = scale
    this.#top = scratch.makeMedium(medium, scale)
  }

  /** Folders for one mount. The ones of the mount before are removed. */
  prepare(workload: Workload): Prepared {
    const folder = this.#build(workload.lowers)
    const needsLayer = isWarmedUp(workload) && !workload.lowers.warmUp
    const warmUp = needsLayer ? [`${this.#build(WARM_UP_LAYER)}/0`] : []
    const run = `${this.#top}/run`
    fs.rmSync(run, { recursive: true, force: true })
    fs.mkdirSync(run)
    const [upper, work, mountpoint, scratch] = ['upper', 'work', 'mnt', 'scratch'].map(
      name => `${run}/${name}`,
    ) as [string, string, string, string]
    for (const at of [upper, work, mountpoint, scratch]) fs.mkdirSync(at)
    this.#scratch.refresh(this.#medium)
    const lowers = Array.from({ length: workload.lowers.count }, (_, n) => String(n))
    return {
      folder,
      layers: { lowers: [...lowers, ...warmUp], upper, work, mountpoint },
      place: { root: mountpoint, lower: `${folder}/0`, scratch, scale: this.#scale },
    }
  }

  #build({ name, count, build }: Lowers): string {
    const folder = `${this.#top}/lowers/${name}`
    if (!this.#built.has(name)) {
      for (let n = 0; n < count; n++) fs.mkdirSync(`${folder}/${n}`, { recursive: true })
      build(folder, this.#scale)
      this.#built.add(name)
    }
    return folder
  }
}
