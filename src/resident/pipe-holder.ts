/**
 * The process by whose /proc/PID/fd clients open the pipe of requests. That is the server, but
 * where they could not: a process that has changed whom it acts for (setfsuid(2)) lets nobody look
 * into it from then on but who has CAP_SYS_PTRACE (kernel: commit_creds, set_dumpable), and clients
 * have no more capabilities than the server. Then another process holds the pipe, which does
 * nothing but end with the server.
 */

import { spawn } from 'node:child_process'

import { CAP_SYS_PTRACE } from '../sys/constants.js'
import { close } from '../sys/io.js'
import { hasAnyCap, hasCap } from '../sys/caps.js'
import { pathOf } from '../sys/descriptors.js'
import { startOf } from './processes.js'

export interface PipeHolder {
  pid: number
  start: string
  /** What clients open. */
  path: string
  /** Calls back when the process has ended. */
  onEnd: (ended: () => void) => void
  end: () => void
}

/** The number of the pipe in the other process. */
const FD = 3

/**
 * @param into is never closed: its number must not become another file's, which somebody would
 *   write to
 */
export const holdPipe = (
  into: number,
  needsAnother = !hasCap(CAP_SYS_PTRACE) && hasAnyCap(),
): PipeHolder =>
  needsAnother ? startHolder(into) : { ...named(process.pid, into), onEnd: () => {}, end: () => {} }

const named = (pid: number, fd: number): Pick<PipeHolder, 'pid' | 'start' | 'path'> => ({
  pid,
  start: startOf(pid) ?? '',
  path: pathOf(pid, fd),
})

/** @throws {Error} no process can be created */
const startHolder = (into: number): PipeHolder => {
  const child = spawn('/bin/sh', ['-c', 'read -r _', 'tsoverlay-pipe'], {
    stdio: ['pipe', 'ignore', 'ignore', into],
    detached: true,
    cwd: '/',
    env: {},
  })
  child.on('error', () => {}) // it has no number then
  child.stdin?.on('error', () => {}) // it was killed
  child.unref()
  const input = child.stdin as (NodeJS.WritableStream & { unref?: () => void }) | null
  input?.unref?.()
  close(into)
  if (child.pid === undefined) throw new Error('no process can be created')
  return {
    ...named(child.pid, FD),
    onEnd: ended => void child.once('exit', ended),
    end: () => void input?.end(),
  }
}
