/** Detaches a background server from standard error after the mount is live. */

import { closeSync, openSync } from 'node:fs'

import { MountError } from '../errors.js'
import { dup2 } from '../sys/io.js'

const STANDARD_ERROR = 2

/**
 * Opens /dev/null for `detachStandardError`. It is opened before anything is mounted, so that a
 * process without a free descriptor fails before the mount exists.
 * @throws {MountError} with the errno of open(2)
 */
export const openDevNull = (): number => {
  try {
    return openSync('/dev/null', 'r+')
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'EIO'
    throw new MountError(error instanceof Error ? error.message : String(error), { code })
  }
}

/**
 * Replaces standard error, a terminal or pipe, by /dev/null. It must be atomic (dup2): the union's
 * thread opens files at the same time, and a file that got descriptor 2 would receive messages.
 * @param devNull a descriptor of /dev/null; it is closed
 */
export const detachStandardError = (devNull = openDevNull()): void => {
  dup2(devNull, STANDARD_ERROR)
  closeSync(devNull)
}
