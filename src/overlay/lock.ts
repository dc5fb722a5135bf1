/**
 * The lock that keeps two unions from writing into one upper or work folder, and the search for its
 * holder. The lock is flock(2) on the folders themselves: nothing is created, and it ends with the
 * process however that ends.
 */

import { readFileSync } from 'node:fs'

import { MountError } from '../errors.js'
import { LOCK_EX, LOCK_NB } from '../sys/constants.js'
import { E, errnoMessage, errnoName } from '../sys/errno.js'
import { flock } from '../sys/io.js'
import { fstatx } from '../sys/at.js'
import { Stat } from '../sys/stat.js'
import { fuseMountsOf, masterOf } from './servers.js'

/** Who holds a lock. */
export interface Holder {
  /** 0: a process of another pid namespace. */
  pid: number
  /** Where it has FUSE mounts, as its own mount namespace names them. */
  mountpoints: string[]
}

/**
 * How long to wait for a holder whose mount is gone already: umount(8) returns before the server has
 * closed its files.
 */
const PATIENCE_MS = 3000
const POLL_MS = 10

/**
 * Locks both folders of a writable union; the locks live as long as the descriptors.
 *
 * @param upperFd a descriptor of the upper layer, not O_PATH
 * @param workFd a descriptor of the work folder, not O_PATH
 * @throws {MountError} EBUSY: a live mount has one of them
 */
export const lockUpper = (upperFd: number, workFd: number, upper: string, work: string): void => {
  lock(upperFd, 'upperdir', upper)
  lock(workFd, 'workdir', work)
}

const lock = (fd: number, option: string, path: string): void => {
  const until = Date.now() + PATIENCE_MS
  for (;;) {
    const result = flock(fd, LOCK_EX | LOCK_NB)
    if (result >= 0) return
    if (result !== -E.EAGAIN) {
      throw new MountError(
        `${option}=${path} can't be locked: ${errnoMessage(-result)}; choose a folder on a file system that has flock(2)`,
        { option, path, code: errnoName(-result) },
      )
    }
    const holder = findHolder(fd)
    if ((holder !== undefined && holder.mountpoints.length > 0) || Date.now() >= until) {
      throw inUse(option, path, holder)
    }
    pause(POLL_MS)
  }
}

const inUse = (option: string, path: string, holder: Holder | undefined): MountError => {
  const [who, wayOut] =
    holder === undefined || holder.pid === 0
      ? ['another process', 'end that first']
      : holder.mountpoints.length > 0
        ? [
            `process ${holder.pid}, mounted on ${holder.mountpoints.join(' or ')}`,
            `unmount that first: tsoverlay umount ${holder.mountpoints[0]}`,
          ]
        : [
            `process ${holder.pid}, which has no mount any more but still serves open files`,
            `close those files or end the process`,
          ]
  return new MountError(
    `${option}=${path} is in use by ${who}; ${wayOut}, or choose another folder`,
    { option, path, code: 'EBUSY' },
  )
}

const cell = new Int32Array(new SharedArrayBuffer(4))
const pause = (ms: number): void => void Atomics.wait(cell, 0, 0, ms)

/** Who holds the flock of the file behind `fd`, as far as /proc tells. */
export const findHolder = (fd: number): Holder | undefined => {
  const stat = new Stat()
  if (fstatx(fd, stat) < 0) return undefined
  let locks: string
  try {
    locks = readFileSync('/proc/locks', 'latin1')
  } catch {
    return undefined
  }
  const pid = lockOwner(locks, stat.devMajor, stat.devMinor, String(stat.ino))
  if (pid === undefined) return undefined
  return pid === 0
    ? { pid, mountpoints: [] }
    : { pid: masterOf(pid), mountpoints: fuseMountsOf(pid) }
}

/**
 * The process id in /proc/locks that holds a flock on a file. The device is a preference, not a
 * condition: btrfs shows another one there than stat(2) does.
 */
export const lockOwner = (
  locks: string,
  major: number,
  minor: number,
  ino: string,
): number | undefined => {
  let sameInode: number | undefined
  for (const line of locks.split('\n')) {
    const fields = /^\d+: FLOCK\s+\S+\s+\S+\s+(-?\d+) ([0-9a-f]+):([0-9a-f]+):(\d+) /.exec(line)
    if (fields?.[4] !== ino) continue
    const pid = Math.max(0, Number(fields[1]))
    const devices = [fields[2], fields[3]].map(hex => Number.parseInt(hex ?? '', 16))
    if (devices[0] === major && devices[1] === minor) return pid
    sameInode ??= pid
  }
  return sameInode
}
