/** Standard error of a server in the background, once the mount is live. */

import { closeSync, openSync } from 'node:fs'

import { MountError } from '../errors.js'
import { dup2 } from '../sys/io.js'

const STANDARD_ERROR = 2

/**
 * What `dropStandardError` puts there. It is opened before anything is mounted: a process that has
 * no descriptor left has no mount then either.
 * @throws {MountError} with the errno of open(2)
 */
export const openNowhere = (): number => {
  try {
    return openSync('/dev/null', 'r+')
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'EIO'
    throw new MountError(error instanceof Error ? error.message : String(error), { code })
  }
}

/**
 * Lets go of the terminal or pipe behind standard error; later lines go nowhere. In one step: the
 * union's thread opens files at the same time, and one that got the number 2 would be written to.
 * @param nowhere a descriptor of /dev/null, which is closed
 */
export const dropStandardError = (nowhere = openNowhere()): void => {
  dup2(nowhere, STANDARD_ERROR)
  closeSync(nowhere)
}
