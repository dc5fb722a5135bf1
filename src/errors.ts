/**
 * Errors of mounting, for the caller of `mount`. Errors of requests are numbers (-errno, see
 * ops.ts).
 */

/** A mount failed. `message` is one line: it names the option, the path and the remedy. */
export class MountError extends Error {
  override readonly name = 'MountError'
  /** The option at fault (`lowerdir`, `upperdir`, `workdir`, `mountpoint`, …), if any. */
  readonly option: string | undefined
  /** The path at fault, if any. */
  readonly path: string | undefined
  /** The name of the errno behind it (`ENOENT`, `EBUSY`, …), if any. */
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
