/**
 * How a server makes itself known: a folder of its own (runtime-folder.ts) with `control`, the FIFO of requests, and `pid`. There is
 * one for each kind of client; who comes second stays unknown. The folder comes and goes as a whole, by rename(2),
 * and while it changes the folder above is locked.
 */

import {
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { basename, dirname } from 'node:path'

import { mknodat } from '../sys/at.js'
import { LOCK_EX, LOCK_NB, O_CLOEXEC, S_IFIFO } from '../sys/constants.js'
import { close, flock } from '../sys/io.js'
import type { Fifo } from './client.js'
import { startOf } from './processes.js'
import { prepareFolder } from './runtime-folder.js'

/** A lock is held for the time of a few system calls, unless its holder is stopped. */
const LOCK_TRIES = 50
const LOCK_MS = 2

export interface Registered {
  pid: number
  /** It was started by `server start`, and stays. */
  stays: boolean
  /** When it was started. */
  start: string
}

/** Who has registered in a folder, and lives. */
export const registeredIn = (folder: string): Registered | undefined => {
  try {
    const [pid, start = '', kind] = readFileSync(`${folder}/pid`, 'latin1').split('\n')
    const found = { pid: Number(pid), start, stays: kind === STAYS }
    return startOf(found.pid) === start && start !== '' ? found : undefined
  } catch {
    return undefined
  }
}

const STAYS = 'stays'

const cell = new Int32Array(new SharedArrayBuffer(4))

const openFolder = (path: string): number =>
  openSync(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW | O_CLOEXEC)

/** Runs `change` while no other server changes the folder above. False: it is locked for too long. */
const locked = (top: string, change: () => void): boolean => {
  const fd = openFolder(top)
  try {
    for (let tries = 0; flock(fd, LOCK_EX | LOCK_NB) < 0; tries++) {
      if (tries >= LOCK_TRIES) return false
      Atomics.wait(cell, 0, 0, LOCK_MS)
    }
    change()
    return true
  } finally {
    close(fd) // and with it the lock
  }
}

export class Registration {
  readonly folder: string
  /** The descriptor that requests are read from. It is open for writing as well: so it never comes to an end. */
  readonly fd: number
  readonly fifo: Fifo

  private constructor(folder: string, fd: number) {
    this.folder = folder
    this.fd = fd
    this.fifo = fstatSync(fd, { bigint: true })
  }

  /**
   * Registers this process.
   * @param folder of serverFolder
   * @param stays it was started by `server start`
   * @param unanswered the process of a server that has not answered, whose place is taken
   * @returns why it can't be
   */
  static make(folder: string, stays = false, unanswered = 0): Registration | string {
    const top = dirname(folder)
    const why = prepareFolder(top)
    if (why !== undefined) return `${top} ${why}`
    // A name that no client looks for.
    const fresh = `${top}/.new-${process.pid}`
    let made: Registration | string = `${top} is locked`
    try {
      mkdirSync(fresh, { mode: 0o700 })
      const fd = openFifo(`${fresh}/control`)
      const lines = [process.pid, startOf('self'), stays ? STAYS : 'lingers', '']
      writeFileSync(`${fresh}/pid`, lines.join('\n'), { mode: 0o600 })
      locked(top, () => {
        const other = registeredIn(folder)
        // One that only lingers ends without its place, when its mounts have.
        const yields = other?.pid === unanswered || (stays && other?.stays === false)
        if (other !== undefined && !yields) {
          made = `process ${other.pid} has registered`
          return
        }
        discard(folder)
        renameSync(fresh, folder)
        made = new Registration(folder, fd)
      })
      if (typeof made === 'string') closeSync(fd)
    } catch (error) {
      made = error instanceof Error ? error.message : String(error)
    }
    if (typeof made === 'string') rmSync(fresh, { recursive: true, force: true })
    return made
  }

  /** Whether clients still find this server. Another one takes the place of one that does not answer. */
  get isKnown(): boolean {
    try {
      const { dev, ino } = lstatSync(`${this.folder}/control`, { bigint: true })
      return dev === this.fifo.dev && ino === this.fifo.ino
    } catch {
      return false
    }
  }

  /** Lets no further client find this server. Those that have found it may still ask, until `end`. */
  hide(): void {
    this.#change(() => {
      if (this.isKnown) rmSync(`${this.folder}/control`, { force: true })
    })
  }

  /** Takes the folder away, if it is still this server's. Who reads requests closes the FIFO. */
  end(): void {
    this.#change(() => {
      if (registeredIn(this.folder)?.pid === process.pid) discard(this.folder)
    })
  }

  /** Another server may take the place at any time, but not meanwhile. */
  #change(change: () => void): void {
    try {
      locked(dirname(this.folder), change)
    } catch {
      // the folder above is gone
    }
  }
}

const openFifo = (path: string): number => {
  const folder = openFolder(dirname(path))
  const result = mknodat(folder, basename(path), S_IFIFO | 0o600, 0, 0)
  close(folder)
  if (result < 0) throw new Error(`${path} can't be made`)
  return openSync(path, constants.O_RDWR | constants.O_NONBLOCK | constants.O_NOFOLLOW | O_CLOEXEC)
}

/** In one step for those who look for it. */
const discard = (folder: string): void => {
  const old = `${dirname(folder)}/.old-${process.pid}`
  try {
    renameSync(folder, old)
  } catch {
    return // there is none
  }
  rmSync(old, { recursive: true, force: true })
}
