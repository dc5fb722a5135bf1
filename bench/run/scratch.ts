/**
 * The folder in which everything happens: a tmpfs of its own, or a file system in a loop image. However the
 * process ends (short of SIGKILL) the mounts below it and the folder go.
 */

import { execFileSync, spawnSync } from 'node:child_process'
import * as fs from 'node:fs'
import { MNT, umount } from '../measure/calls.js'
import { kill, marked } from '../measure/processes.js'
import { mountsBelow } from './environment.js'

/** How a file system is made in an image. */
const MAKE = {
  // Initialised at once: it would be done in the background, while something is measured.
  ext4: ['mkfs.ext4', '-q', '-F', '-E', 'lazy_itable_init=0,lazy_journal_init=0'],
  xfs: ['mkfs.xfs', '-q', '-f', '-m', 'reflink=1'],
  btrfs: ['mkfs.btrfs', '-q', '-f'],
} as const

export type Image = keyof typeof MAKE
export type Medium = 'tmpfs' | Image

/** The program without which there is no such medium. */
export const makerOf = (image: Image): string => MAKE[image][0]

/** Enough for the layers, and for what a workload makes at scale 1. */
const IMAGE_MIB = 6144

const quiet = (program: string, ...args: string[]): void => {
  execFileSync(program, args, { stdio: ['ignore', 'ignore', 'inherit'] })
}

/** Waits without a loop that turns: for the end of the process. */
const waitHere = (ms: number): void => {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms)
}

export class Scratch {
  /** Its path; the marks of all processes that mount below it start with it. */
  readonly top: string

  constructor(folder: string) {
    this.top = fs.realpathSync(fs.mkdtempSync(`${folder}/tsoverlay-bench-`))
    process.on('exit', this.#remove)
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
      process.on(signal, () => process.exit(130))
  }

  /** Makes a file system to work on. Access times are off: layers would be written by being read. */
  makeMedium(medium: Medium, scale: number): string {
    const folder = `${this.top}/${medium}`
    fs.mkdirSync(folder)
    if (medium !== 'tmpfs') {
      const image = `${this.top}/${medium}.img`
      fs.closeSync(fs.openSync(image, 'w'))
      fs.truncateSync(image, Math.ceil(IMAGE_MIB * Math.max(1, scale)) * 2 ** 20)
      const [program, ...args] = MAKE[medium]
      quiet(program, ...args, image)
    }
    this.#mount(medium)
    return folder
  }

  /**
   * Makes what is on a medium cold and lets nothing that was written before be written later, without
   * touching the caches of the rest of the machine. A tmpfs is never cold.
   */
  refresh(medium: Medium): void {
    if (medium === 'tmpfs') return
    quiet('umount', `${this.top}/${medium}`)
    this.#mount(medium)
  }

  #mount(medium: Medium): void {
    const folder = `${this.top}/${medium}`
    if (medium !== 'tmpfs')
      quiet('mount', '-o', 'loop,noatime', `${this.top}/${medium}.img`, folder)
    else quiet('mount', '-t', 'tmpfs', '-o', 'noatime,mode=755,size=90%', 'tmpfs', folder)
  }

  /** At the end of the process, so all of it is synchronous. */
  readonly #remove = (): void => {
    // Several times: a command that is just mounting may be done only now.
    for (let tries = 0; tries < 600; tries++) {
      for (const point of mountsBelow(this.top)) {
        if (umount(point) === 0) continue
        // Busy: something works in it. FORCE ends the calls that wait for an answer.
        umount(point, MNT.FORCE)
        umount(point, MNT.DETACH)
      }
      const left = marked(this.top)
      if (left.length === 0 && mountsBelow(this.top).length === 0) break
      if (tries >= 300) left.forEach(kill)
      waitHere(10)
    }
    spawnSync('rm', ['-rf', '--one-file-system', this.top], { stdio: 'inherit' })
  }
}
