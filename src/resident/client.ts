/**
 * The process that asks for a mount, a shell of whatever name that runs tsoverlay.sh. It writes its
 * number and nothing else; all that it wants is read from /proc. That it is the one who asks is
 * shown by the pipe of requests, which it has open as long as it waits: who may open that may look
 * into the server.
 */

import { readlinkSync, statSync } from 'node:fs'
import { basename, resolve } from 'node:path'

import { hasOpen } from '../sys/descriptors.js'
import { close } from '../sys/io.js'
import { hasEnded, pidfdOpen, pidfdSignal } from '../sys/pidfd.js'
import { identityOf, placeOf, type Identity } from './identity.js'
import { readProc, startOf } from './processes.js'

export interface Called {
  /** What the script was called as, without directories. */
  name: string
  args: readonly string[]
  env: Readonly<Record<string, string>>
}

/** A process that has asked. */
export class Client {
  readonly pid: number
  /** When it was started: with `pid` it names the process. Empty: this one may not know. */
  readonly start: string
  readonly #pidfd: number
  readonly #pipe: string

  private constructor(pid: number, start: string, pidfd: number, pipe: string) {
    this.pid = pid
    this.start = start
    this.#pidfd = pidfd
    this.#pipe = pipe
  }

  /**
   * Undefined: no such process, or none that waits for an answer.
   * @param pipe where the number was read, as /proc/PID/fd names it
   */
  static find(pid: number, pipe: string): Client | undefined {
    // It has the pipe open as well.
    if (pid === process.pid) return undefined
    // First: what /proc tells of the number from here on is told of this process, as long as it
    // lives.
    const pidfd = pidfdOpen(pid)
    if (pidfd < 0) return undefined
    const client = new Client(pid, startOf(pid) ?? '', pidfd, pipe)
    if (client.waits()) return client
    close(pidfd)
    return undefined
  }

  /**
   * Whether it still waits: it lives, and has the pipe open. A process that may not be looked into,
   * such as one with more capabilities, is taken at its word if it runs a script: it has no
   * identity, and so is told to start a server of its own.
   */
  waits(): boolean {
    return (hasOpen(this.pid, this.#pipe) ?? this.#isScript) && !this.hasEnded
  }

  /** By what everybody may know. */
  get #isScript(): boolean {
    return scriptOf(words(readProc(this.pid, 'cmdline'))) !== undefined
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
      const command = words(readProc(this.pid, 'cmdline'))
      const script = scriptOf(command)
      if (script === undefined) return undefined
      const path = script.startsWith('/') ? script : resolve(this.here() ?? '/', script)
      if (fileKey(path) !== launcher) return undefined
      const env = words(readProc(this.pid, 'environ')).map(
        line => [line.replace(/=.*$/s, ''), line.replace(/^[^=]*=/, '')] as const,
      )
      return { name: basename(script), args: command.slice(2), env: Object.fromEntries(env) }
    } catch {
      return undefined
    }
  }

  /**
   * Its working directory by name. Undefined where the name leads elsewhere: it was removed, moved
   * or is hidden by a mount.
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

/** What a shell runs. */
const scriptOf = ([, word = '']: readonly string[]): string | undefined =>
  word === '' || word.startsWith('-') ? undefined : word

/** Words that end in NUL. */
const words = (text: string | undefined): string[] => text?.replace(/\0$/, '').split('\0') ?? []

/** `dev:ino`, which names a file. */
export const fileKey = (path: string): string => {
  const stat = statSync(path, { bigint: true })
  return `${stat.dev}:${stat.ino}`
}
