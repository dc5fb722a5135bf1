/**
 * Features of a mount that can be disabled or limited. Structured clone can copy it to the union's
 * thread.
 */

export interface Tuning {
  /** The kernel writes dirty pages back later, in `cached` mode. */
  readonly writeback: boolean
  /** Extended attributes can be read and set. */
  readonly xattrs: boolean
  /** POSIX ACLs can be read and set, and the kernel enforces them. */
  readonly acl: boolean
  /** Report a link count of 1 for every directory. */
  readonly staticNlink: boolean
  /** Bytes of data in the largest WRITE request. */
  readonly maxWrite: number
  /**
   * Open and close files without OPEN and RELEASE requests, in `cached` mode. The mount enables it
   * by itself if it changes no result.
   */
  readonly noOpen: boolean
}

export const PAGE = 4096

/** The pipe size that an unprivileged process may set (the default of fs.pipe-max-size). */
export const PIPE_SIZE = 1024 * 1024

/**
 * Bytes of data in the largest request. With a page for its header, the request fits into a pipe.
 * The kernel's own limit (fs.fuse.max_pages_limit) is one page more.
 */
export const MAX_IO = PIPE_SIZE - PAGE

/** The kernel raises a smaller limit to this one. */
export const MIN_WRITE = 4096

export const defaultTuning: Tuning = {
  writeback: true,
  xattrs: true,
  acl: true,
  staticNlink: false,
  maxWrite: MAX_IO,
  noOpen: false,
}
