/**
 * Translates struct fsxattr of FS_IOC_FSGETXATTR from and to the flags of FS_IOC_GETFLAGS, as
 * fs/file_attr.c:fileattr_fill_flags() and fileattr_fill_xflags() do.
 */

import {
  FS_APPEND_FL,
  FS_DAX_FL,
  FS_IMMUTABLE_FL,
  FS_NOATIME_FL,
  FS_NODUMP_FL,
  FS_PROJINHERIT_FL,
  FS_SYNC_FL,
} from '../../sys/constants.js'

/** struct fsxattr {u32 xflags, extsize, nextents, projid, cowextsize; u8 pad[8]} */
export const FSX_SIZE = 28

/** FS_XFLAG_* and the corresponding FS_*_FL */
const PAIRS: readonly (readonly [xflag: number, flag: number])[] = [
  [0x8, FS_IMMUTABLE_FL],
  [0x10, FS_APPEND_FL],
  [0x20, FS_SYNC_FL],
  [0x40, FS_NOATIME_FL],
  [0x80, FS_NODUMP_FL],
  [0x200, FS_PROJINHERIT_FL],
  [0x8000, FS_DAX_FL],
]
const XFLAGS = PAIRS.reduce((set, [xflag]) => set | xflag, 0)

/** FS_XFLAG_* of an inode with these FS_*_FL. */
export const fsxOfFlags = (flags: number): number =>
  PAIRS.reduce((set, [xflag, flag]) => ((flags & flag) !== 0 ? set | xflag : set), 0)

/**
 * The new FS_*_FL of an inode: flags that have an FS_XFLAG_* counterpart come from `xflags`, others
 * stay as in `now`.
 */
export const flagsOfFsx = (xflags: number, now: number): number =>
  PAIRS.reduce((set, [xflag, flag]) => ((xflags & xflag) !== 0 ? set | flag : set & ~flag), now) >>>
  0

/** Whether there are FS_XFLAG_* without a counterpart. */
export const otherFsx = (xflags: number): boolean => (xflags & ~XFLAGS) !== 0
