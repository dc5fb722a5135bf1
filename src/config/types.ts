/** Types of option values that the library, the command line and the server share. */

/** The io mode: the way of file data. See docs/DATA-MODES.md. */
export type IoMode = 'auto' | 'passthrough' | 'cached'

/** The implementation of the FUSE protocol. See docs/DATA-MODES.md, "Transports". */
export type Transport = 'kernel' | 'fuse-native'

/** A word for a mount flag, as in mount(8). */
export type MountFlag =
  | 'ro'
  | 'rw'
  | 'nosuid'
  | 'suid'
  | 'nodev'
  | 'dev'
  | 'noexec'
  | 'exec'
  | 'noatime'
  | 'atime'
  | 'nodiratime'
  | 'diratime'
  | 'relatime'
  | 'norelatime'
  | 'strictatime'
  | 'nostrictatime'
  | 'lazytime'
  | 'nolazytime'
  | 'sync'
  | 'async'
  | 'dirsync'
  | 'nosymfollow'
  | 'symfollow'
