/** Standard error of a server in the background, once the mount is live. */

import { closeSync, openSync } from 'node:fs'

import { dup2 } from '../sys/io.js'

const STANDARD_ERROR = 2

/**
 * Lets go of the terminal or pipe behind standard error; later lines go nowhere. In one step: the union's
 * thread opens files at the same time, and one that got the number 2 would be written to.
 */
export const dropStandardError = (): void => {
  const nowhere = openSync('/dev/null', 'r+')
  dup2(nowhere, STANDARD_ERROR)
  closeSync(nowhere)
}
