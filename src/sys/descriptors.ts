/** What other processes have open, as far as /proc lets this one look. Layers are never reached this way. */

import {
  closeSync,
  constants,
  fstatSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  writeSync,
  type BigIntStats,
} from 'node:fs'

import { O_CLOEXEC, O_PATH } from './constants.js'

const pathOf = (pid: number, fd: string): string => `/proc/${pid}/fd/${fd}`

/** The numbers of a process' descriptors, and what they lead to; none where it is gone, or somebody else's. */
export const descriptorsOf = (pid: number): [fd: string, target: string][] => {
  let fds: string[]
  try {
    fds = readdirSync(`/proc/${pid}/fd`)
  } catch {
    return []
  }
  const found: [string, string][] = []
  for (const fd of fds) {
    try {
      found.push([fd, readlinkSync(pathOf(pid, fd))])
    } catch {
      // closed meanwhile
    }
  }
  return found
}

/** Of what is read there, in bytes: another user's process can have a file of any size. */
const MOST_TEXT = 16 * 1024 * 1024

/**
 * The text of a file that is open there; the caller knows that it is one in memory. Undefined: it is closed by now, or something else: what
 * a descriptor leads to can be made to look like anything, and to open a FIFO may take for ever.
 */
export const readDescriptor = (pid: number, fd: string): string | undefined => {
  let seen = -1
  try {
    seen = openSync(pathOf(pid, fd), O_PATH | O_CLOEXEC)
    const stat = fstatSync(seen)
    if (!stat.isFile() || stat.size > MOST_TEXT) return undefined
    return readFileSync(`/proc/self/fd/${seen}`, 'utf8')
  } catch {
    return undefined
  } finally {
    if (seen >= 0) closeSync(seen)
  }
}

/**
 * Writes a line into a pipe that is open there. False: it is no pipe, or not that of the process' own user, or full. Another user's process
 * may have open what root alone may write to, so nothing else is opened for that.
 */
export const tellPipe = (pid: number, fd: number, line: string): boolean => {
  let seen = -1
  let into = -1
  try {
    seen = openSync(pathOf(pid, String(fd)), O_PATH | O_CLOEXEC)
    const stat = fstatSync(seen)
    if (!stat.isFIFO() || stat.uid !== statSync(`/proc/${pid}`).uid) return false
    into = openSync(`/proc/self/fd/${seen}`, constants.O_WRONLY | constants.O_NONBLOCK | O_CLOEXEC)
    return writeSync(into, line) === line.length
  } catch {
    return false
  } finally {
    if (seen >= 0) closeSync(seen)
    if (into >= 0) closeSync(into)
  }
}

/** fstat(2) of what is open there. Undefined: it is closed by now. */
export const statDescriptor = (pid: number, fd: string): BigIntStats | undefined => {
  try {
    return statSync(pathOf(pid, fd), { bigint: true })
  } catch {
    return undefined
  }
}
