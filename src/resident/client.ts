/**
 * The client: a process that asks for a mount, which is a shell that runs tsoverlay.sh under one of
 * its names. It writes only its process id; the server reads the rest from /proc. The client keeps
 * the request pipe open while it waits, which identifies it: a process that can open this pipe also
 * has ptrace access to the server.
 */

import { readlinkSync, statSync } from 'node:fs'
import { basename, resolve } from 'node:path'

import { hasOpen } from '../sys/descriptors.js'
import { close } from '../sys/io.js'
import { hasEnded, pidfdOpen, pidfdSignal } from '../sys/pidfd.js'
import { identityOf, directoryKey, type Identity } from './identity.js'
import { readProc, startOf } from './processes.js'

export interface Invocation {
  /** The name under which the script was invoked, without directories. */
  name: string
  args: readonly string[]
  env: Readonly<Record<string, string>>
}

/** A process that has sent a request. */
export class Client {
  readonly pid: number
  /**
   * The start time; together with `pid` it identifies the process. Empty if this server may not
   * read it.
   */
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
   * @returns undefined if the process does not exist or does not wait for an answer
   * @param pipe the name of the request pipe in /proc/PID/fd
   */
  static find(pid: number, pipe: string): Client | undefined {
    // This process has the pipe open, too.
    if (pid === process.pid) return undefined
    // The pidfd comes first: while that process lives, /proc/PID describes it and no other process.
    const pidfd = pidfdOpen(pid)
    if (pidfd < 0) return undefined
    const client = new Client(pid, startOf(pid) ?? '', pidfd, pipe)
    if (client.isWaiting()) return client
    close(pidfd)
    return undefined
  }

  /**
   * Whether the client still waits: it lives and has the pipe open. The server may be unable to
   * inspect it, for example if it has more capabilities. Then it is enough that it runs a script:
   * its identity is unreadable, so it is told to start a server of its own.
   */
  isWaiting(): boolean {
    return (hasOpen(this.pid, this.#pipe) ?? this.#isScript) && !this.hasEnded
  }

  /** Decided from /proc/PID/cmdline, which every process may read. */
  get #isScript(): boolean {
    return scriptOf(splitWords(readProc(this.pid, 'cmdline'))) !== undefined
  }

  get hasEnded(): boolean {
    return hasEnded(this.#pidfd)
  }

  identity(): Identity | undefined {
    return identityOf(this.pid)
  }

  /** The client's umask(2). */
  get umask(): number | undefined {
    const mask = /^Umask:\s*([0-7]+)$/m.exec(readProc(this.pid, 'status') ?? '')?.[1]
    return mask === undefined ? undefined : Number.parseInt(mask, 8)
  }

  get cgroup(): string | undefined {
    return readProc(this.pid, 'cgroup')
  }

  /**
   * The client's invocation.
   * @param launcher `dev:ino` of the launcher script
   * @returns undefined if the client does not run the launcher script of this package
   */
  invocation(launcher: string): Invocation | undefined {
    try {
      const command = splitWords(readProc(this.pid, 'cmdline'))
      const script = scriptOf(command)
      if (script === undefined) return undefined
      const path = script.startsWith('/') ? script : resolve(this.cwd() ?? '/', script)
      if (fileKey(path) !== launcher) return undefined
      const env = splitWords(readProc(this.pid, 'environ')).map(
        line => [line.replace(/=.*$/s, ''), line.replace(/^[^=]*=/, '')] as const,
      )
      return { name: basename(script), args: command.slice(2), env: Object.fromEntries(env) }
    } catch {
      return undefined
    }
  }

  /**
   * The path of the client's working directory. Undefined if the path leads elsewhere because the
   * directory was removed, moved or covered by a mount.
   * @param isSafe says whether a path is safe to access
   */
  cwd(isSafe: (path: string) => boolean = () => true): string | undefined {
    try {
      const link = `/proc/${this.pid}/cwd`
      const name = readlinkSync(link)
      return isSafe(name) && directoryKey(name) === directoryKey(link) ? name : undefined
    } catch {
      return undefined
    }
  }

  /** @returns 0, or -ESRCH if the client has ended */
  signal(signal: number): number {
    return pidfdSignal(this.#pidfd, signal)
  }

  close(): void {
    close(this.#pidfd)
  }
}

/** The script that a shell runs. */
const scriptOf = ([, word = '']: readonly string[]): string | undefined =>
  word === '' || word.startsWith('-') ? undefined : word

/** Splits a list of words that end with NUL. */
const splitWords = (text: string | undefined): string[] =>
  text?.replace(/\0$/, '').split('\0') ?? []

/** `dev:ino`, which identifies a file. */
export const fileKey = (path: string): string => {
  const stat = statSync(path, { bigint: true })
  return `${stat.dev}:${stat.ino}`
}
