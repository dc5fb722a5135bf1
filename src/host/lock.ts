/**
 * The lock that prevents two unions from writing to the same upper directory or workdir. It is
 * flock(2) on the directories themselves, so it creates no file, and the kernel releases it when
 * the process ends.
 */

import { fstatSync } from 'node:fs'

import { MountError } from '../errors.js'
import { LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN } from '../sys/constants.js'
import { E, errnoMessage, errnoName } from '../sys/errno.js'
import { flock } from '../sys/io.js'
import { fstatx } from '../sys/at.js'
import { Stat } from '../sys/stat.js'
import {
  holderOf,
  lockOwner,
  PATIENCE_MS,
  readLocks,
  awaitRelease,
  type Holder,
} from './lock-holder.js'

/**
 * Locks both directories of a writable union. The locks last as long as the descriptors.
 *
 * @param upperFd a descriptor of the upper layer, not O_PATH
 * @param workdirFd a descriptor of the workdir, not O_PATH
 * @param patience how long to wait for a holder that is about to release the lock, in milliseconds
 * @throws {MountError} EBUSY: a live mount uses one of them
 */
export const lockUpper = (
  upperFd: number,
  workdirFd: number,
  upper: string,
  workdir: string,
  patience = PATIENCE_MS,
): void => {
  lock(upperFd, 'upperdir', upper, patience)
  lock(workdirFd, 'workdir', workdir, patience)
}

/**
 * Locks the upper directory of a read-only union against writers. The final lock is shared, which
 * distinguishes it from a writer's. Two readers still exclude each other, as in kernel overlayfs
 * with `index=on`.
 *
 * @param upperFd a descriptor of the upper layer, not O_PATH; the lock lasts as long as the
 *   descriptor
 * @param workdirFd a descriptor of the workdir, whose lock is only tested; negative: it cannot be
 *   opened
 * @throws {MountError} EBUSY: a live mount uses one of them
 */
export const lockReader = (
  upperFd: number,
  workdirFd: number,
  upper: string,
  workdir: string,
  patience = PATIENCE_MS,
): void => {
  if (workdirFd >= 0) {
    lock(workdirFd, 'workdir', workdir, patience, true)
    // If this fails, the lock ends with the descriptor.
    void flock(workdirFd, LOCK_UN)
  }
  lock(upperFd, 'upperdir', upper, patience, true)
}

const lock = (fd: number, option: string, path: string, patience: number, reads = false): void => {
  const isHeld = (): boolean => {
    let result = flock(fd, LOCK_EX | LOCK_NB)
    if (result >= 0 && reads) result = flock(fd, LOCK_SH | LOCK_NB)
    if (result === -E.EAGAIN) return true
    // A read-only union on a filesystem without flock(2): no writer can lock it, either.
    if (result >= 0 || reads) return false
    throw new MountError(
      `${option}=${path} can't be locked: ${errnoMessage(-result)}; choose a directory on a file system that has flock(2)`,
      { option, path, code: errnoName(-result) },
    )
  }
  awaitRelease(
    patience,
    () => isHeld() && { wanted: { option, path, directory: path }, holder: findHolder(fd) },
  )
}

/** The holder of the flock on the file of `fd`, as far as /proc tells. */
export const findHolder = (fd: number): Holder | undefined => {
  const stat = new Stat()
  if (fstatx(fd, stat) < 0) return undefined
  const pid = lockOwner(readLocks(), stat.devMajor, stat.devMinor, String(stat.ino))
  if (pid === undefined) return undefined
  if (pid === 0) return { pid, mountpoints: [] }
  const { dev, ino } = fstatSync(fd, { bigint: true })
  return holderOf(pid, `${dev}:${ino}`)
}
