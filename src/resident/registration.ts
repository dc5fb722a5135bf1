/**
 * Registers a server so that clients find it: in a directory of its own (runtime-directory.ts) a
 * file `pid` names the process and the path of its request pipe. There is one directory for each
 * kind of client, and only the first server registers in it. The directory is created and removed
 * as a whole, by rename(2), under a lock on its parent directory.
 *
 * Clients open the pipe through /proc/PID/fd, so the kernel checks their ptrace(2) access. This
 * covers restrictions that /proc does not show: a process in a Landlock domain can't reach a server
 * outside of it.
 */

import {
  constants,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { dirname } from 'node:path'

import { LOCK_EX, LOCK_NB, O_CLOEXEC } from '../sys/constants.js'
import { close, flock } from '../sys/io.js'
import { pipe } from '../sys/splice.js'
import { holdPipe, type PipeHolder } from './pipe-holder.js'
import { startOf } from './processes.js'
import { prepareDirectory } from './runtime-directory.js'

/** The lock is held for a few system calls only, unless its holder is stopped. */
const LOCK_TRIES = 50
const LOCK_MS = 2

export interface Registered {
  pid: number
  /** The server was started by `server start`, and stays. */
  stays: boolean
  /** The start time of the process. */
  start: string
}

/** The live server that has registered in a directory, if any. */
export const registeredIn = (directory: string): Registered | undefined => {
  try {
    const [pid, start = '', kind] = readFileSync(`${directory}/pid`, 'latin1').split('\n')
    const found = { pid: Number(pid), start, stays: kind === STAYS }
    return startOf(found.pid) === start && start !== '' ? found : undefined
  } catch {
    return undefined
  }
}

const STAYS = 'stays'

const cell = new Int32Array(new SharedArrayBuffer(4))

const openDirectory = (path: string): number =>
  openSync(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW | O_CLOEXEC)

/**
 * Runs `change` with the directory `top` locked against other servers.
 * @returns false if it is locked for too long
 */
const withLock = (top: string, change: () => void): boolean => {
  const fd = openDirectory(top)
  try {
    for (let tries = 0; flock(fd, LOCK_EX | LOCK_NB) < 0; tries++) {
      if (tries >= LOCK_TRIES) return false
      Atomics.wait(cell, 0, 0, LOCK_MS)
    }
    change()
    return true
  } finally {
    close(fd) // this releases the lock
  }
}

/** The request pipe. */
interface RequestPipe {
  /**
   * The read end. This process or the holder keeps the write end open, so the read end never
   * reaches the end of the file.
   */
  from: number
  /** The pipe's name in /proc/PID/fd. */
  name: string
  holder: PipeHolder
}

const createPipe = (): RequestPipe => {
  const ends = pipe()
  if (typeof ends === 'number') throw new Error('no pipe can be made')
  const [from, into] = ends
  return { from, name: readlinkSync(`/proc/self/fd/${from}`), holder: holdPipe(into) }
}

export class Registration {
  readonly directory: string
  /** The descriptor that requests are read from. */
  readonly from: number
  /** The pipe's name in /proc/PID/fd. */
  readonly pipe: string
  readonly #kind: string
  readonly #holder: PipeHolder
  /** The inode of the directory, which stays the same when it is renamed. */
  readonly #inode: bigint

  private constructor(
    directory: string,
    kind: string,
    inode: bigint,
    { from, name, holder }: RequestPipe,
  ) {
    this.directory = directory
    this.from = from
    this.pipe = name
    this.#kind = kind
    this.#inode = inode
    this.#holder = holder
  }

  /**
   * Registers this process.
   * @param directory the result of serverDirectory
   * @param stays whether it was started by `server start`
   * @param unanswered the process id of a server that did not answer; this process replaces it
   * @returns a text: why it can't register
   */
  static create(directory: string, stays = false, unanswered = 0): Registration | string {
    const top = dirname(directory)
    const why = prepareDirectory(top)
    if (why !== undefined) return `${top} ${why}`
    // Clients ignore this name.
    const temporary = `${top}/.new-${process.pid}`
    let result: Registration | string = `${top} is locked`
    try {
      mkdirSync(temporary, { mode: 0o700 })
      const requests = createPipe()
      const kind = stays ? STAYS : 'lingers'
      writePid(temporary, kind, requests.holder)
      withLock(top, () => {
        const other = registeredIn(directory)
        // A replaced server that only lingers ends when its mounts have ended.
        const isReplaceable = other?.pid === unanswered || (stays && other?.stays === false)
        if (other !== undefined && !isReplaceable) {
          result = `process ${other.pid} has registered`
          return
        }
        removeDirectory(directory)
        renameSync(temporary, directory)
        result = new Registration(directory, kind, inodeOf(directory), requests)
      })
      if (typeof result === 'string') {
        close(requests.from)
        requests.holder.end()
      }
    } catch (error) {
      result = error instanceof Error ? error.message : String(error)
    }
    if (typeof result === 'string') rmSync(temporary, { recursive: true, force: true })
    return result
  }

  /**
   * Whether the directory still belongs to this server. Another server replaces a server that does
   * not answer.
   */
  get isCurrent(): boolean {
    try {
      return inodeOf(this.directory) === this.#inode
    } catch {
      return false
    }
  }

  /** Calls `lost` when clients can't reach the pipe any more. */
  onLost(lost: () => void): void {
    this.#holder.onEnd(lost)
  }

  /**
   * Hides this server from further clients. Clients that have already read the `pid` file can send
   * requests until `end`.
   */
  hide(): void {
    this.#change(() => {
      if (this.isCurrent) writePid(this.directory, this.#kind)
    })
  }

  /**
   * Removes the directory if it still belongs to this server. The reader of the requests closes the
   * pipe.
   */
  end(): void {
    this.#change(() => {
      if (this.isCurrent) removeDirectory(this.directory)
    })
    this.#holder.end()
  }

  /** Another server may replace the directory at any time, but not while it is locked. */
  #change(change: () => void): void {
    try {
      withLock(dirname(this.directory), change)
    } catch {
      // the parent directory is gone
    }
  }
}

const inodeOf = (path: string): bigint => lstatSync(path, { bigint: true }).ino

/** Writes the `pid` file atomically. Without a holder the file names no pipe. */
const writePid = (directory: string, kind: string, holder?: PipeHolder): void => {
  const lines = [process.pid, startOf('self'), kind]
  if (holder !== undefined) lines.push(holder.pid, holder.start, holder.path)
  writeFileSync(`${directory}/.pid`, `${lines.join('\n')}\n`, { mode: 0o600, flag: 'wx' })
  renameSync(`${directory}/.pid`, `${directory}/pid`)
}

/** Removes the directory atomically. */
const removeDirectory = (directory: string): void => {
  const old = `${dirname(directory)}/.old-${process.pid}`
  try {
    renameSync(directory, old)
  } catch {
    return // it does not exist
  }
  rmSync(old, { recursive: true, force: true })
}
