/** Exit statuses of the command line. The numbers are those of mount(8) and umount(8). */
export const ExitCode = {
  OK: 0,
  /** Wrong invocation: an unknown command, a missing argument, an option's value that can't be. */
  USAGE: 1,
  /** A fault of the program itself: the server died of an error. */
  INTERNAL: 2,
  /**
   * Unmounted, but the server has not ended: the same mount lives on elsewhere. umount(8) has no
   * such status.
   */
  STILL_SERVED: 3,
  /** Interrupted while the mount was being made; there is none. */
  INTERRUPTED: 8,
  /** The mount could not be made, or could not be taken away. */
  FAILED: 32,
} as const

export type ExitCode = (typeof ExitCode)[keyof typeof ExitCode]
