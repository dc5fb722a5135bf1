/**
 * Errors that are shown to whoever asked for a mount. Errors of requests are numbers (see ops.ts).
 */

/**
 * A mount that can't be made: which option, which path, and what to do about it. `message` is one
 * line that holds all of that.
 */
export class MountError extends Error {
  override readonly name = 'MountError'
  /**
   * The option at fault (`lowerdir`, `upperdir`, `workdir`, `mountpoint`, …), where there is one.
   */
  readonly option: string | undefined
  /** The path at fault, where there is one. */
  readonly path: string | undefined
  /** The errno name behind it (`ENOENT`, `EBUSY`, …), where there is one. */
  readonly code: string | undefined

  constructor(
    message: string,
    about: { option?: string; path?: string; code?: string; cause?: unknown } = {},
  ) {
    super(message, about.cause === undefined ? undefined : { cause: about.cause })
    this.option = about.option
    this.path = about.path
    this.code = about.code
  }
}
