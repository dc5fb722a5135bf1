/**
 * The directories of unions on one medium: the lower layers are built once, all other directories
 * are new for each mount.
 */

import * as fs from 'node:fs'
import type { Layers } from '../systems/system.js'
import { mountsAt, type MountPaths, type Workload } from '../works/work.js'
import type { Medium, Scratch } from './scratch.js'

export interface Prepared {
  /** The directory of the lower layers; their paths are relative to it. */
  directory: string
  /** One element for each mount. */
  layers: Layers[]
  place: MountPaths
}

export class Ground {
  readonly #scratch: Scratch
  readonly #medium: Medium
  readonly #scale: number
  readonly #run: string
  readonly #lowers: string
  readonly #built = new Set<string>()
  #count = 0

  constructor(scratch: Scratch, medium: Medium, scale: number) {
    this.#scratch = scratch
    this.#medium = medium
    this.#scale = scale
    const top = scratch.makeMedium(medium, scale)
    this.#run = `${top}/run`
    this.#lowers = `${top}/lowers`
  }

  /**
   * Prepares a turn of a file system: builds the lower layers if they are missing, and drops them
   * from the caches.
   */
  begin({ lowers: { name, count, build } }: Workload): void {
    const directory = `${this.#lowers}/${name}`
    if (!this.#built.has(name)) {
      for (let n = 0; n < count; n++) fs.mkdirSync(`${directory}/${n}`, { recursive: true })
      build(directory, this.#scale)
      this.#built.add(name)
    }
    this.#scratch.refresh(this.#medium)
  }

  /** Creates the directories for the mounts of one workload. */
  prepare(described: Workload): Prepared {
    const { lowers } = described
    const top = `${this.#run}/${this.#count++}`
    const directory = `${this.#lowers}/${lowers.name}`
    const names = Array.from({ length: lowers.count }, (_, n) => String(n))
    const layers = Array.from({ length: mountsAt(described, this.#scale) }, (_, n) => {
      const [upper, work, mountpoint] = ['upper', 'work', 'mnt'].map(
        name => `${top}/${n}/${name}`,
      ) as [string, string, string]
      for (const at of [upper, work, mountpoint]) fs.mkdirSync(at, { recursive: true })
      return { lowers: names, upper, work, mountpoint }
    })
    const roots = layers.map(({ mountpoint }) => mountpoint)
    const scratch = `${top}/scratch`
    fs.mkdirSync(scratch)
    const place = {
      root: roots[0] ?? '',
      roots,
      lower: `${directory}/0`,
      scratch,
      scale: this.#scale,
    }
    return { directory, layers, place }
  }

  /** Removes the directories after a turn. */
  end(): void {
    fs.rmSync(this.#run, { recursive: true, force: true })
  }
}
