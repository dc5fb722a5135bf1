/**
 * The process whose /proc/PID/fd the clients use to open the request pipe. It normally is the
 * server. But the kernel makes a process non-dumpable when it changes its file system credentials
 * (setfsuid(2); kernel: commit_creds, set_dumpable). From then on only a process with
 * CAP_SYS_PTRACE can inspect it, and clients have no more capabilities than the server. In that
 * case a separate process holds the pipe. It does nothing else, and ends with the server.
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
  /** The path that clients open. */
  path: string
  /** Calls `ended` when the process has ended. */
  onEnd: (ended: () => void) => void
  end: () => void
}

/** The descriptor of the pipe in the holder process. */
const FD = 3

/**
 * @param writeEnd the write end. If this process is the holder it is never closed: its descriptor
 *   number must not be reused for another file, which a client would then write to.
 */
export const holdPipe = (
  writeEnd: number,
  needsAnother = !hasCap(CAP_SYS_PTRACE) && hasAnyCap(),
): PipeHolder =>
  needsAnother
    ? startHolder(writeEnd)
    : { ...describe(process.pid, writeEnd), onEnd: () => {}, end: () => {} }

const describe = (pid: number, fd: number): Pick<PipeHolder, 'pid' | 'start' | 'path'> => ({
  pid,
  start: startOf(pid) ?? '',
  path: pathOf(pid, fd),
})

/** @throws {Error} no process can be created */
const startHolder = (writeEnd: number): PipeHolder => {
  const child = spawn('/bin/sh', ['-c', 'read -r _', 'tsoverlay-pipe'], {
    stdio: ['pipe', 'ignore', 'ignore', writeEnd],
    detached: true,
    cwd: '/',
    env: {},
  })
  child.on('error', () => {}) // the pid is undefined then
  child.stdin?.on('error', () => {}) // the holder was killed
  child.unref()
  const input = child.stdin as (NodeJS.WritableStream & { unref?: () => void }) | null
  input?.unref?.()
  close(writeEnd)
  if (child.pid === undefined) throw new Error('no process can be created')
  return {
    ...describe(child.pid, FD),
    onEnd: ended => void child.once('exit', ended),
    end: () => void input?.end(),
  }
}
