/** What /proc says about processes. */

import { readdirSync, readFileSync, readlinkSync } from 'node:fs'

/** Bytes of a file of /proc/PID; undefined: the process is gone, or may not be looked into. */
export const readProc = (pid: number | 'self', name: string): string | undefined => {
  try {
    return readFileSync(`/proc/${pid}/${name}`, 'utf8')
  } catch {
    return undefined
  }
}

/**
 * When a process was started, in ticks since the machine was: with its number it names the process
 * for good.
 */
export const startOf = (pid: number | 'self'): string | undefined =>
  // The name of the program, in parentheses, may hold anything.
  readProc(pid, 'stat')
    ?.replace(/^.*\) /s, '')
    .split(' ')[19]

/**
 * Whether a process other than this one and its children lives in this one's user and mount
 * namespaces. Processes that this one may not look into do not count: they can't be its clients.
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
