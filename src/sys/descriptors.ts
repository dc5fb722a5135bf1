/**
 * Open descriptors of other processes, as far as /proc shows them. Layers are never reached this
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

/** The path by which another process can open a descriptor of process `pid`. */
export const pathOf = (pid: number, fd: string | number): string => `/proc/${pid}/fd/${fd}`

/**
 * A process's descriptors and their targets. Empty if the process has ended, or belongs to another
 * user.
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

/**
 * Maximum size in bytes of a file that is read: another user's process can offer a file of any
 * size.
 */
const MAX_TEXT = 16 * 1024 * 1024

/**
 * The text of another process's in-memory file (memfd_create(2)). Undefined: it is closed, or is
 * not such a file. A file of any filesystem can have a name like that, and a userspace filesystem
 * may block even a query of the size forever. So the mount is checked first.
 */
export const readDescriptor = (pid: number, fd: string): string | undefined => {
  let seen = -1
  let file = -1
  try {
    seen = openSync(pathOf(pid, fd), O_PATH | O_CLOEXEC)
    if (mountOf(seen) !== mountOfMemory()) return undefined
    file = openSync(`/proc/self/fd/${seen}`, constants.O_RDONLY | O_CLOEXEC)
    // The size is limited first, because the file can grow before the read.
    const { size } = fstatSync(file)
    if (size > MAX_TEXT) return undefined
    const text = Buffer.alloc(size)
    return text.toString('utf8', 0, readSync(file, text, 0, size, 0))
  } catch {
    return undefined
  } finally {
    for (const one of [seen, file]) if (one >= 0) closeSync(one)
  }
}

/** The mount id of a descriptor of this process. The query does not reach the filesystem. */
const mountOf = (fd: number): string | undefined =>
  /^mnt_id:\s*(\d+)/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1'))?.[1]

let memory: string | undefined

/** The mount that all in-memory files share. */
const mountOfMemory = (): string | undefined => {
  if (memory !== undefined) return memory
  const fd = namedDescriptor('tsoverlay-mount')
  if (fd < 0) return undefined
  memory = mountOf(fd)
  close(fd) // Node warns if it closes a descriptor that it has not opened
  return memory
}

/**
 * Writes a line into a pipe of another process. False: the descriptor is not a pipe, or is not
 * owned by the process's user, or the pipe is full. The checks are necessary because another user's
 * process may have a file open that only root may write to.
 */
export const writeToPipe = (pid: number, fd: number, line: string): boolean => {
  let seen = -1
  let into = -1
  try {
    seen = openSync(pathOf(pid, String(fd)), O_PATH | O_CLOEXEC)
    // A pipe belongs to no mounted filesystem, so fstat(2) on it cannot block.
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
 * Whether a process has an object open, given by its name in /proc/PID/fd. Undefined: access is
 * denied, or the process has ended. Of another process of the same user, the numbers may be
 * readable but not the targets.
 */
export const hasOpen = (pid: number, target: string): boolean | undefined => {
  try {
    return readdirSync(`/proc/${pid}/fd`).some(fd => targetOf(pid, fd) === target)
  } catch {
    return undefined
  }
}

/** Undefined: it was closed meanwhile. */
const targetOf = (pid: number, fd: string): string | undefined => {
  try {
    return readlinkSync(pathOf(pid, fd))
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined
    throw error
  }
}
