/** Exit statuses of the command line, as in mount(8) and umount(8). */
export const ExitCode = {
  OK: 0,
  /** Wrong invocation: an unknown command, a missing argument, or an invalid option value. */
  USAGE: 1,
  /** An internal error: the server died of an exception. */
  INTERNAL: 2,
  /**
   * Unmounted, but the server still serves the mount, because it exists in another place. umount(8)
   * has no such status.
   */
  STILL_SERVED: 3,
  /** Interrupted before the mount was live; nothing is mounted. */
  INTERRUPTED: 8,
  /** The mount or unmount has failed. */
  FAILED: 32,
} as const

export type ExitCode = (typeof ExitCode)[keyof typeof ExitCode]
