/** What a union is made of. All of it can be sent to a worker thread (structured clone). */

export type RedirectDir = 'on' | 'off' | 'follow' | 'nofollow'
export type WhiteoutForm = 'auto' | 'char' | 'xattr' | 'wh'

/** `length` ids, from `disk` on in the layers and from `shown` on in the union. */
export interface IdRange {
  disk: number
  shown: number
  length: number
}

/** Whom files are shown to belong to, other than on disk. */
export interface OwnerOptions {
  /** None: user ids are those on disk. */
  uids?: readonly IdRange[]
  gids?: readonly IdRange[]
  /** Everything is shown to belong to this user. */
  squashUid?: number
  squashGid?: number
}

export type XattrPermissions = 0 | 1 | 2

export interface UnionOptions {
  /** Lower layers, top first; at least one. Paths of directories. */
  lower: string[]
  /** The writable layer; without it the union is read-only. */
  upper?: string
  /** A directory on the upper's file system, for the union alone; required with `upper`. */
  work?: string
  /** As the kernel's option. Default: `off`, which still follows redirects that are there. */
  redirectDir: RedirectDir
  /** How deletions are written. `auto`: the kernel's char 0/0 device where it can be made. */
  whiteout: WhiteoutForm
  /** Keep hard links whole over copy-up and remount, in the kernel's `workdir/index`. */
  index: boolean
  /** Others than the mounter may use the union (allow_other). */
  shared: boolean
  /**
   * Use the `user.overlay.` prefix instead of `trusted.overlay.`. `auto`: where that can't be
   * written.
   */
  userxattr: boolean | 'auto'
  /** Never sync; leaves the kernel's `incompat/volatile` mark while mounted. */
  volatile: boolean
  /** false: never sync, and leave no mark. */
  fsync: boolean
  /** Serve without writing, although there is an upper. */
  readOnly: boolean
  /** Keep owner, mode and type in an attribute: 1 `security.`, 2 `user.`; 0: in the inode. */
  xattrPermissions: XattrPermissions
  /**
   * Wait for no other process that is about to let go of a directory. Who serves others as well
   * must not wait.
   */
  impatient?: boolean
  /** Default: owners are those on disk. */
  owners?: OwnerOptions
}
