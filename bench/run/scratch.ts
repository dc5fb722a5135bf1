/**
 * The benchmark's temporary directory: a tmpfs, or a file system in a loop image. When the process
 * ends (except by SIGKILL) it removes the mounts below the directory and the directory.
 */

import { execFileSync, spawnSync } from 'node:child_process'
import * as fs from 'node:fs'
import * as path from 'node:path'
import { MNT, umount } from '../measure/calls.js'
import { countServers, signalServers } from '../measure/processes.js'
import { mountsBelow } from './environment.js'

/** The commands that create a file system in an image. */
const MAKE = {
  // Without these options the tables would be initialised in the background, during measurements.
  ext4: ['mkfs.ext4', '-q', '-F', '-E', 'lazy_itable_init=0,lazy_journal_init=0'],
  xfs: ['mkfs.xfs', '-q', '-f', '-m', 'reflink=1'],
  btrfs: ['mkfs.btrfs', '-q', '-f'],
} as const

export type Image = keyof typeof MAKE
export type Medium = 'tmpfs' | Image

/** The program that this medium needs. */
export const makerOf = (image: Image): string => MAKE[image][0]

export const MEDIA: readonly Medium[] = ['tmpfs', 'ext4', 'xfs', 'btrfs']

/** Enough for the layers and for the output of each workload at scale 1. */
const IMAGE_MIB = 6144

const quiet = (program: string, ...args: string[]): void => {
  execFileSync(program, args, { stdio: ['ignore', 'ignore', 'inherit'] })
}

/** Blocks without the event loop, because the process is ending. */
const sleepSync = (ms: number): void => {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms)
}

export class Scratch {
  readonly top: string
  /** A unique name for the resident server, control groups, and directories in /run. */
  readonly name: string
  readonly #tasks: (() => void)[] = []

  constructor(directory: string) {
    this.top = fs.realpathSync(fs.mkdtempSync(`${directory}/tsoverlay-bench-`))
    this.name = path.basename(this.top)
    process.on('exit', this.#remove)
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
      process.on(signal, () => process.exit(130))
  }

  /**
   * Registers a task that runs after everything has been unmounted, such as removing files in other
   * places.
   */
  atEnd(task: () => void): void {
    this.#tasks.push(task)
  }

  /**
   * Creates the file system to work on. Access times are off, because reading would otherwise write
   * the layers.
   */
  makeMedium(medium: Medium, scale: number): string {
    const directory = `${this.top}/${medium}`
    fs.mkdirSync(directory)
    if (medium !== 'tmpfs') {
      const image = `${this.top}/${medium}.img`
      fs.closeSync(fs.openSync(image, 'w'))
      fs.truncateSync(image, Math.ceil(IMAGE_MIB * Math.max(1, scale)) * 2 ** 20)
      const [program, ...args] = MAKE[medium]
      quiet(program, ...args, image)
    }
    this.#mount(medium)
    return directory
  }

  /**
   * Drops a medium from the caches and writes all its dirty data, without touching the caches of
   * the rest of the machine. A tmpfs stays as it is. Nothing may be mounted on the medium.
   */
  refresh(medium: Medium): void {
    if (medium === 'tmpfs') return
    quiet('umount', `${this.top}/${medium}`)
    this.#mount(medium)
  }

  #mount(medium: Medium): void {
    const directory = `${this.top}/${medium}`
    if (medium !== 'tmpfs')
      quiet('mount', '-o', 'loop,noatime', `${this.top}/${medium}.img`, directory)
    else quiet('mount', '-t', 'tmpfs', '-o', 'noatime,mode=755,size=90%', 'tmpfs', directory)
  }

  /** It runs at process exit, so all of it is synchronous. */
  readonly #remove = (): void => {
    // It is repeated, because a running command may mount after the first attempt.
    for (let tries = 0; tries < 600; tries++) {
      const mounts = [this.top, `/run/${this.name}.podman`].flatMap(mountsBelow)
      for (const point of mounts) {
        if (umount(point) === 0) continue
        // The mount is busy because a process works in it. FORCE aborts requests that wait for an
        // answer.
        umount(point, MNT.FORCE)
        umount(point, MNT.DETACH)
      }
      const left = countServers()
      if (left === 0 && mounts.length === 0) break
      if (tries === 10) signalServers('SIGTERM')
      if (tries >= 300) signalServers('SIGKILL')
      sleepSync(10)
    }
    for (const task of this.#tasks) task()
    for (const at of [this.top, `/run/${this.name}.podman`, `/run/${this.name}`])
      spawnSync('rm', ['-rf', '--one-file-system', at], { stdio: 'inherit' })
  }
}
