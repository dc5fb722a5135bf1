/** What /proc says about one process. */

import { readFileSync } from 'node:fs'

/** Bytes of a file of /proc/PID; undefined: the process is gone, or may not be looked into. */
export const readProc = (pid: number | 'self', name: string): string | undefined => {
  try {
    return readFileSync(`/proc/${pid}/${name}`, 'utf8')
  } catch {
    return undefined
  }
}

/** When a process was started, in ticks since the machine was: with its number it names the process for good. */
export const startOf = (pid: number | 'self'): string | undefined =>
  // The name of the program, in parentheses, may hold anything.
  readProc(pid, 'stat')
    ?.replace(/^.*\) /s, '')
    .split(' ')[19]
