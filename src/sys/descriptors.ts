/**
 * What other processes have open, as far as /proc lets this one look. Layers are never reached this
 * way.
 */

import {
  closeSync,
  constants,
  fstatSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  statSync,
  writeSync,
} from 'node:fs'

import { O_CLOEXEC, O_PATH } from './constants.js'
import { close } from './io.js'
import { namedDescriptor } from './pidfd.js'

/** By which another process opens what is open there. */
export const pathOf = (pid: number, fd: string | number): string => `/proc/${pid}/fd/${fd}`

/**
 * The numbers of a process' descriptors, and what they lead to; none where it is gone, or somebody
 * else's.
 */
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
 * The text of a file in memory (memfd_create(2)) that is open there. Undefined: it is closed by
 * now, or something else. A file of any file system can have such a name, and to ask one in
 * userspace even for a size may take for ever; so the mount is asked for first.
 */
export const readDescriptor = (pid: number, fd: string): string | undefined => {
  let seen = -1
  let file = -1
  try {
    seen = openSync(pathOf(pid, fd), O_PATH | O_CLOEXEC)
    if (mountOf(seen) !== mountOfMemory()) return undefined
    file = openSync(`/proc/self/fd/${seen}`, constants.O_RDONLY | O_CLOEXEC)
    // Not what is there by the time that it is read: it can grow.
    const { size } = fstatSync(file)
    if (size > MOST_TEXT) return undefined
    const text = Buffer.alloc(size)
    return text.toString('utf8', 0, readSync(file, text, 0, size, 0))
  } catch {
    return undefined
  } finally {
    for (const one of [seen, file]) if (one >= 0) closeSync(one)
  }
}

/**
 * The mount that a descriptor of this process was reached through; its file system is not asked.
 */
const mountOf = (fd: number): string | undefined =>
  /^mnt_id:\s*(\d+)/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1'))?.[1]

let memory: string | undefined

/** The one mount of all files in memory. */
const mountOfMemory = (): string | undefined => {
  if (memory !== undefined) return memory
  const fd = namedDescriptor('tsoverlay-mount')
  if (fd < 0) return undefined
  memory = mountOf(fd)
  close(fd) // Node warns of what it closes and has not opened
  return memory
}

/**
 * Writes a line into a pipe that is open there. False: it is no pipe, or not that of the process'
 * own user, or full. Another user's process may have open what root alone may write to, so nothing
 * else is opened for that.
 */
export const tellPipe = (pid: number, fd: number, line: string): boolean => {
  let seen = -1
  let into = -1
  try {
    seen = openSync(pathOf(pid, String(fd)), O_PATH | O_CLOEXEC)
    // Of no file system: nobody else's answers when it is looked at.
    if (!readlinkSync(`/proc/self/fd/${seen}`).startsWith('pipe:[')) return false
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

/**
 * Whether a process has something open, by the name that /proc/PID/fd tells. Undefined: it may not
 * be looked into, or is gone. Another process of the same user may have its numbers listed, and not
 * what they lead to.
 */
export const hasOpen = (pid: number, target: string): boolean | undefined => {
  try {
    return readdirSync(`/proc/${pid}/fd`).some(fd => targetOf(pid, fd) === target)
  } catch {
    return undefined
  }
}

/** Undefined: it is closed by now. */
const targetOf = (pid: number, fd: string): string | undefined => {
  try {
    return readlinkSync(pathOf(pid, fd))
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined
    throw error
  }
}
