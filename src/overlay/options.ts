/** The configuration of a union. It can be sent to a worker thread (structured clone). */

export type RedirectDir = 'on' | 'off' | 'follow' | 'nofollow'
export type WhiteoutForm = 'auto' | 'char' | 'xattr' | 'wh'

/** Maps `length` ids: those from `disk` in the layers to those from `shown` in the union. */
export interface IdRange {
  disk: number
  shown: number
  length: number
}

/** The owners that the union shows, if they differ from those on disk. */
export interface OwnerOptions {
  /** Undefined: the union shows the user ids on disk. */
  uids?: readonly IdRange[]
  gids?: readonly IdRange[]
  /** The union shows every object as owned by this user. */
  squashUid?: number
  squashGid?: number
}

export type XattrPermissions = 0 | 1 | 2

export interface UnionOptions {
  /** Paths of the lower layers, top first; at least one. */
  lower: string[]
  /** The path of the writable layer. Without it the union is read-only. */
  upper?: string
  /**
   * A directory on the upper layer's file system, used only by this union. Required with `upper`.
   */
  work?: string
  /** As the kernel's option. Default: `off`, which follows existing redirects. */
  redirectDir: RedirectDir
  /** The form of whiteouts. `auto`: the kernel's character device 0/0, if it can be created. */
  whiteout: WhiteoutForm
  /** Keep hard links intact over copy-up and remount, with the kernel's `workdir/index`. */
  index: boolean
  /** Users other than the mounter may use the union (allow_other). */
  shared: boolean
  /**
   * Use the prefix `user.overlay.` instead of `trusted.overlay.`. `auto`: if `trusted.` cannot be
   * written.
   */
  userxattr: boolean | 'auto'
  /**
   * Never sync; keeps the kernel's `incompat/volatile` directory in the workdir while the union is
   * mounted.
   */
  volatile: boolean
  /** false: never sync, without `incompat/volatile`. */
  fsync: boolean
  /** Serve the union read-only although it has an upper layer. */
  readOnly: boolean
  /** Keep owner, mode and type in an xattr: 1 `security.`, 2 `user.`; 0: in the inode. */
  xattrPermissions: XattrPermissions
  /**
   * Do not wait for another process that is about to release a layer's lock. A server of several
   * unions must not block.
   */
  impatient?: boolean
  /** Default: the owners on disk. */
  owners?: OwnerOptions
}
