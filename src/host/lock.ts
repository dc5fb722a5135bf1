/**
 * The lock that keeps two unions from writing into one upper or work directory. The lock is
 * flock(2) on the directories themselves: nothing is created, and it ends with the process however
 * that ends.
 */

import { fstatSync } from 'node:fs'

import { MountError } from '../errors.js'
import { LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN } from '../sys/constants.js'
import { E, errnoMessage, errnoName } from '../sys/errno.js'
import { flock } from '../sys/io.js'
import { fstatx } from '../sys/at.js'
import { Stat } from '../sys/stat.js'
import { holderOf, lockOwner, PATIENCE_MS, readLocks, wait, type Holder } from './lock-holder.js'

/**
 * Locks both directories of a writable union; the locks live as long as the descriptors.
 *
 * @param upperFd a descriptor of the upper layer, not O_PATH
 * @param workFd a descriptor of the work directory, not O_PATH
 * @param patience how long to wait for a holder that is about to let go, in milliseconds
 * @throws {MountError} EBUSY: a live mount has one of them
 */
export const lockUpper = (
  upperFd: number,
  workFd: number,
  upper: string,
  work: string,
  patience = PATIENCE_MS,
): void => {
  lock(upperFd, 'upperdir', upper, patience)
  lock(workFd, 'workdir', work, patience)
}

/**
 * Locks the upper directory of a union that only reads: nobody writes there meanwhile. The lock is
 * a shared one, which tells such a union from one that writes; two of them exclude each other all
 * the same, as in kernel overlayfs with `index=on`.
 *
 * @param upperFd a descriptor of the upper layer, not O_PATH; the lock lives as long as that
 * @param workFd a descriptor of the work directory, which is only looked at; negative: it can't be
 *   opened
 * @throws {MountError} EBUSY: a live mount has one of them
 */
export const lockReader = (
  upperFd: number,
  workFd: number,
  upper: string,
  work: string,
  patience = PATIENCE_MS,
): void => {
  if (workFd >= 0) {
    lock(workFd, 'workdir', work, patience, true)
    // Else it goes with the descriptor.
    void flock(workFd, LOCK_UN)
  }
  lock(upperFd, 'upperdir', upper, patience, true)
}

const lock = (fd: number, option: string, path: string, patience: number, reads = false): void => {
  const isHeld = (): boolean => {
    let result = flock(fd, LOCK_EX | LOCK_NB)
    if (result >= 0 && reads) result = flock(fd, LOCK_SH | LOCK_NB)
    if (result === -E.EAGAIN) return true
    // A reader on a file system without flock(2): nobody can write there, either.
    if (result >= 0 || reads) return false
    throw new MountError(
      `${option}=${path} can't be locked: ${errnoMessage(-result)}; choose a directory on a file system that has flock(2)`,
      { option, path, code: errnoName(-result) },
    )
  }
  wait(
    patience,
    () => isHeld() && { wanted: { option, path, directory: path }, holder: findHolder(fd) },
  )
}

/** Who holds the flock of the file behind `fd`, as far as /proc tells. */
export const findHolder = (fd: number): Holder | undefined => {
  const stat = new Stat()
  if (fstatx(fd, stat) < 0) return undefined
  const pid = lockOwner(readLocks(), stat.devMajor, stat.devMinor, String(stat.ino))
  if (pid === undefined) return undefined
  if (pid === 0) return { pid, mountpoints: [] }
  const { dev, ino } = fstatSync(fd, { bigint: true })
  return holderOf(pid, `${dev}:${ino}`)
}
