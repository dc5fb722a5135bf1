/**
 * `overlay.nlink` on the inodes of `workdir/index`: the union's link count, relative to that of the
 * upper inode (`U+n`) or of the lower inode (`L+n`). Before the upper inode gains or loses a name
 * that counts in the union, the value must be a `U`. Before it gains a name that the lower inode
 * already has, the value must be an `L`. So the count is correct whether the step succeeds or
 * fails, and whenever the server is killed (kernel: fs/overlayfs/inode.c:ovl_set_nlink_upper,
 * ovl_set_nlink_lower).
 */

import type { ByteString, Result } from '../ops.js'
import type { InodeContext } from '../inode/context.js'

/**
 * Writes the nlink xattr of (fd, name). `adjust`: the union's link count minus that of the inode
 * that `base` selects.
 */
export function setNlinkXattr(
  u: InodeContext,
  fd: number,
  name: ByteString,
  base: 'U' | 'L',
  adjust: number,
): Result {
  return u.xattrs.set(fd, name, 'nlink', `${base}${adjust < 0 ? '' : '+'}${adjust}`)
}

/**
 * The difference between the union's link count and the upper inode's (kernel: ovl_get_nlink).
 *
 * @param value the xattr's value; null if the inode has none
 * @param upper the link count of the upper inode
 * @param lower the link count of the lower inode; null if it cannot be found. Then only the index
 *   entry is subtracted, since it is not a name in the union
 */
export function nlinkAdjust(value: string | null, upper: number, lower: number | null): number {
  const match = /^([UL])([+-]\d+)$/.exec((value ?? '').replace(/\0+$/, ''))
  if (match === null) return 0
  const adjust = Number(match[2])
  if (match[1] === 'U') return adjust
  return lower === null ? -1 : lower + adjust - upper
}

const MOST_LINKS = 0x7fff_ffff

/**
 * As `nlinkAdjust`, or 0 if the resulting count is impossible: the owner of the file may have
 * written the xattr (kernel: ovl_get_nlink).
 */
export function credibleAdjust(value: string | null, upper: number, lower: number | null): number {
  const adjust = nlinkAdjust(value, upper, lower)
  const links = upper + adjust
  return links > 0 && links <= MOST_LINKS ? adjust : 0
}
