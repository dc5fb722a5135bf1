/** What a mount can be made to go without, or with less of. Can be sent to the union's thread. */

export interface Tuning {
  /** Let the kernel write pages later, in `cached` mode. */
  readonly writeback: boolean
  /** Show and take extended attributes. */
  readonly xattrs: boolean
  /** Show and take POSIX ACLs, and have the kernel enforce them. */
  readonly acl: boolean
  /** Say of every directory that it has one link. */
  readonly staticNlink: boolean
  /** Bytes of data in the largest WRITE request. */
  readonly maxWrite: number
  /**
   * Open and close files without a message, in `cached` mode. Of itself this is so where it changes
   * nothing.
   */
  readonly noOpen: boolean
}

export const PAGE = 4096

/** What everybody may ask for (fs.pipe-max-size). */
export const PIPE_SIZE = 1024 * 1024

/**
 * Bytes of data in the largest request: with a page for its header it fits into a pipe. The
 * kernel's own limit (fs.fuse.max_pages_limit) is one page more.
 */
export const MAX_IO = PIPE_SIZE - PAGE

/** The kernel takes a smaller number for this one. */
export const MIN_WRITE = 4096

export const defaultTuning: Tuning = {
  writeback: true,
  xattrs: true,
  acl: true,
  staticNlink: false,
  maxWrite: MAX_IO,
  noOpen: false,
}
