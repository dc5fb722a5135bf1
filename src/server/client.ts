/**
 * The process that asks for a mount, a shell of whatever name that runs tsoverlay.sh. It writes its number and nothing else; all that it wants is read
 * from /proc. That it is the one who asks is shown by the FIFO of requests, which it has open as long as it waits: nobody but
 * this user can open it.
 */

import { readlinkSync, statSync, type BigIntStats } from 'node:fs'
import { basename, resolve } from 'node:path'

import { descriptorsOf, statDescriptor } from '../sys/descriptors.js'
import { close } from '../sys/io.js'
import { hasEnded, pidfdOpen, pidfdSignal } from '../sys/pidfd.js'
import { identityOf, placeOf, type Identity } from './identity.js'
import { readProc, startOf } from './processes.js'

/** Device and inode of the FIFO of requests. */
export type Fifo = Pick<BigIntStats, 'dev' | 'ino'>

export interface Called {
  /** What the script was called as, without folders. */
  name: string
  args: readonly string[]
  env: Readonly<Record<string, string>>
}

/** A process that has asked. */
export class Client {
  readonly pid: number
  /** When it was started: with `pid` it names the process. */
  readonly start: string
  readonly #pidfd: number
  readonly #fifo: Fifo

  private constructor(pid: number, start: string, pidfd: number, fifo: Fifo) {
    this.pid = pid
    this.start = start
    this.#pidfd = pidfd
    this.#fifo = fifo
  }

  /**
   * Undefined: no such process, or none that waits for an answer.
   * @param fifo where the number was read
   */
  static find(pid: number, fifo: Fifo): Client | undefined {
    // It has the FIFO open as well.
    if (pid === process.pid) return undefined
    // First: what /proc tells of the number from here on is told of this process, as long as it lives.
    const pidfd = pidfdOpen(pid)
    if (pidfd < 0) return undefined
    const start = startOf(pid)
    if (start !== undefined) {
      const client = new Client(pid, start, pidfd, fifo)
      if (client.waits()) return client
    }
    close(pidfd)
    return undefined
  }

  /** Whether it still waits: it lives, and has the FIFO open. */
  waits(): boolean {
    return (
      descriptorsOf(this.pid).some(([fd, target]) => this.#isFifo(fd, target)) && !this.hasEnded
    )
  }

  #isFifo(fd: string, target: string): boolean {
    // Another kind of file may lie on a file system that does not answer.
    if (!/\/control( \(deleted\))?$/.test(target)) return false
    const stat = statDescriptor(this.pid, fd)
    return stat?.ino === this.#fifo.ino && stat.dev === this.#fifo.dev
  }

  get hasEnded(): boolean {
    return hasEnded(this.#pidfd)
  }

  identity(): Identity | undefined {
    return identityOf(this.pid)
  }

  /** What its files are created without, as umask(2) has it. */
  get umask(): number | undefined {
    const mask = /^Umask:\s*([0-7]+)$/m.exec(readProc(this.pid, 'status') ?? '')?.[1]
    return mask === undefined ? undefined : Number.parseInt(mask, 8)
  }

  get cgroup(): string | undefined {
    return readProc(this.pid, 'cgroup')
  }

  /**
   * What it was called with. Undefined where it does not run the launcher of this package.
   * @param launcher `dev:ino` of the script
   */
  called(launcher: string): Called | undefined {
    try {
      const [, script = '', ...args] = words(readProc(this.pid, 'cmdline'))
      if (script === '' || script.startsWith('-')) return undefined
      const path = script.startsWith('/') ? script : resolve(this.here() ?? '/', script)
      if (fileKey(path) !== launcher) return undefined
      const env = words(readProc(this.pid, 'environ')).map(
        line => [line.replace(/=.*$/s, ''), line.replace(/^[^=]*=/, '')] as const,
      )
      return { name: basename(script), args, env: Object.fromEntries(env) }
    } catch {
      return undefined
    }
  }

  /**
   * Its working directory by name. Undefined where the name leads elsewhere: it was removed, moved or is hidden by a mount.
   * @param isSafe says whether a path may be looked at
   */
  here(isSafe: (path: string) => boolean = () => true): string | undefined {
    try {
      const link = `/proc/${this.pid}/cwd`
      const name = readlinkSync(link)
      return isSafe(name) && placeOf(name) === placeOf(link) ? name : undefined
    } catch {
      return undefined
    }
  }

  /** 0 or -ESRCH: it has ended. */
  signal(signal: number): number {
    return pidfdSignal(this.#pidfd, signal)
  }

  close(): void {
    close(this.#pidfd)
  }
}

/** Words that end in NUL. */
const words = (text: string | undefined): string[] => text?.replace(/\0$/, '').split('\0') ?? []

/** `dev:ino`, which names a file. */
export const fileKey = (path: string): string => {
  const stat = statSync(path, { bigint: true })
  return `${stat.dev}:${stat.ino}`
}
