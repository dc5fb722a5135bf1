/**
 * How a server makes itself known: a directory of its own (runtime-directory.ts) with a file `pid`,
 * which tells the process and where the pipe of requests is open. There is one for each kind of
 * client; who comes second stays unknown. The directory comes and goes as a whole, by rename(2),
 * and while it changes the directory above is locked.
 *
 * Clients open the pipe by /proc/PID/fd. So the kernel asks what it asks of ptrace(2), in their
 * name: who is confined in ways that /proc does not tell, such as a Landlock domain, reaches no
 * server outside of it.
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

/** Who has registered in a directory, and lives. */
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
 * Runs `change` while no other server changes the directory above. False: it is locked for too
 * long.
 */
const locked = (top: string, change: () => void): boolean => {
  const fd = openDirectory(top)
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

/** Where requests go. */
interface Pipe {
  /**
   * The descriptor that requests are read from. The other end stays open: so it never comes to an
   * end.
   */
  from: number
  /** As /proc/PID/fd names it. */
  name: string
  holder: PipeHolder
}

const makePipe = (): Pipe => {
  const ends = pipe()
  if (typeof ends === 'number') throw new Error('no pipe can be made')
  const [from, into] = ends
  return { from, name: readlinkSync(`/proc/self/fd/${from}`), holder: holdPipe(into) }
}

export class Registration {
  readonly directory: string
  /** The descriptor that requests are read from. */
  readonly from: number
  /** What it leads to, as /proc/PID/fd tells it. */
  readonly pipe: string
  readonly #kind: string
  readonly #holder: PipeHolder
  /** The directory, which keeps its number when it is renamed. */
  readonly #inode: bigint

  private constructor(
    directory: string,
    kind: string,
    inode: bigint,
    { from, name, holder }: Pipe,
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
   * @param directory of serverDirectory
   * @param stays it was started by `server start`
   * @param unanswered the process of a server that has not answered, whose place is taken
   * @returns why it can't be
   */
  static make(directory: string, stays = false, unanswered = 0): Registration | string {
    const top = dirname(directory)
    const why = prepareDirectory(top)
    if (why !== undefined) return `${top} ${why}`
    // A name that no client looks for.
    const fresh = `${top}/.new-${process.pid}`
    let made: Registration | string = `${top} is locked`
    try {
      mkdirSync(fresh, { mode: 0o700 })
      const requests = makePipe()
      const kind = stays ? STAYS : 'lingers'
      writePid(fresh, kind, requests.holder)
      locked(top, () => {
        const other = registeredIn(directory)
        // One that only lingers ends without its place, when its mounts have.
        const yields = other?.pid === unanswered || (stays && other?.stays === false)
        if (other !== undefined && !yields) {
          made = `process ${other.pid} has registered`
          return
        }
        discard(directory)
        renameSync(fresh, directory)
        made = new Registration(directory, kind, inodeOf(directory), requests)
      })
      if (typeof made === 'string') {
        close(requests.from)
        requests.holder.end()
      }
    } catch (error) {
      made = error instanceof Error ? error.message : String(error)
    }
    if (typeof made === 'string') rmSync(fresh, { recursive: true, force: true })
    return made
  }

  /**
   * Whether the directory is still this server's. Another one takes the place of one that does not
   * answer.
   */
  get isKnown(): boolean {
    try {
      return inodeOf(this.directory) === this.#inode
    } catch {
      return false
    }
  }

  /** Calls back when clients can't reach the pipe any more. */
  onLost(lost: () => void): void {
    this.#holder.onEnd(lost)
  }

  /**
   * Lets no further client find this server. Those that have found it may still ask, until `end`.
   */
  hide(): void {
    this.#change(() => {
      if (this.isKnown) writePid(this.directory, this.#kind)
    })
  }

  /** Takes the directory away, if it is still this server's. Who reads requests closes the pipe. */
  end(): void {
    this.#change(() => {
      if (this.isKnown) discard(this.directory)
    })
    this.#holder.end()
  }

  /** Another server may take the place at any time, but not meanwhile. */
  #change(change: () => void): void {
    try {
      locked(dirname(this.directory), change)
    } catch {
      // the directory above is gone
    }
  }
}

const inodeOf = (path: string): bigint => lstatSync(path, { bigint: true }).ino

/** In one step for those who read it. Without a holder clients find no pipe. */
const writePid = (directory: string, kind: string, holder?: PipeHolder): void => {
  const lines = [process.pid, startOf('self'), kind]
  if (holder !== undefined) lines.push(holder.pid, holder.start, holder.path)
  writeFileSync(`${directory}/.pid`, `${lines.join('\n')}\n`, { mode: 0o600, flag: 'wx' })
  renameSync(`${directory}/.pid`, `${directory}/pid`)
}

/** In one step for those who look for it. */
const discard = (directory: string): void => {
  const old = `${dirname(directory)}/.old-${process.pid}`
  try {
    renameSync(directory, old)
  } catch {
    return // there is none
  }
  rmSync(old, { recursive: true, force: true })
}
