/** Converts errors to messages and exit statuses. */

import { MountError } from '../errors.js'
import { ExitCode } from './exit-codes.js'

/** The exit status for an error. */
export const statusOf = (error: unknown): ExitCode =>
  error instanceof MountError
    ? error.code === 'EINVAL' && error.path === undefined
      ? ExitCode.USAGE
      : ExitCode.FAILED
    : ExitCode.INTERNAL

/** The stack of an error, because an error of the program is reported with its stack. */
export const stackOf = (error: unknown): string =>
  error instanceof Error ? (error.stack ?? error.message) : String(error)

/** The line that reports an error to the user. */
export const lineOf = (error: unknown): string =>
  `tsoverlay: ${error instanceof MountError ? error.message : stackOf(error)}`
