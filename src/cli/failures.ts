/** What the user is told of an error. */

import { MountError } from '../errors.js'
import { ExitCode } from './exit-codes.js'

/** The exit status for an error. */
export const statusOf = (error: unknown): ExitCode =>
  error instanceof MountError
    ? error.code === 'EINVAL' && error.path === undefined
      ? ExitCode.USAGE
      : ExitCode.FAILED
    : ExitCode.INTERNAL

/** A fault of the program comes with its stack. */
export const stackOf = (error: unknown): string =>
  error instanceof Error ? (error.stack ?? error.message) : String(error)

/** The line that tells of it. */
export const lineOf = (error: unknown): string =>
  `tsoverlay: ${error instanceof MountError ? error.message : stackOf(error)}`
