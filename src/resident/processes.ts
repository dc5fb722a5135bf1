/** Reads information about processes from /proc. */

import { readdirSync, readFileSync, readlinkSync } from 'node:fs'

/** Reads a file of /proc/PID; undefined if the process has ended or can't be inspected. */
export const readProc = (pid: number | 'self', name: string): string | undefined => {
  try {
    return readFileSync(`/proc/${pid}/${name}`, 'utf8')
  } catch {
    return undefined
  }
}

/**
 * The start time of a process, in clock ticks since boot. The process id and the start time
 * identify a process uniquely.
 */
export const startOf = (pid: number | 'self'): string | undefined =>
  // The program's name, in parentheses, may contain any character.
  readProc(pid, 'stat')
    ?.replace(/^.*\) /s, '')
    .split(' ')[19]

/**
 * Whether another process, except this process' children, is in the same user and mount namespaces.
 * Processes that can't be inspected do not count: they can't be clients of this server.
 */
export const hasNeighbours = (): boolean => {
  const own = namespacesOf('self')
  return (
    own === undefined ||
    readdirSync('/proc').some(
      name =>
        /^[1-9]\d*$/.test(name) &&
        Number(name) !== process.pid &&
        namespacesOf(Number(name)) === own &&
        parentOf(Number(name)) !== process.pid,
    )
  )
}

const namespacesOf = (pid: number | 'self'): string | undefined => {
  try {
    return readlinkSync(`/proc/${pid}/ns/user`) + readlinkSync(`/proc/${pid}/ns/mnt`)
  } catch {
    return undefined
  }
}

const parentOf = (pid: number): number =>
  Number(
    readProc(pid, 'stat')
      ?.replace(/^.*\) /s, '')
      .split(' ')[1],
  )
