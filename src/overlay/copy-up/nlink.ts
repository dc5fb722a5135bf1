/**
 * `overlay.nlink` on the inodes of `workdir/index`: the union's link count, relative to that of the
 * upper inode (`U+n`), or of the lower one (`L+n`). Before the upper inode gets or loses a name
 * that counts in the union, the mark is a `U`; before it gets a name that the lower inode has, it
 * is an `L`. So the count is right whether that succeeds or not, and whenever the server ends
 * (kernel: fs/overlayfs/inode.c:ovl_set_nlink_upper, ovl_set_nlink_lower).
 */

import type { ByteString, Result } from '../ops.js'
import type { Union } from '../union.js'

/**
 * Writes the mark of (fd, name). `adjust`: union links minus those of the inode that `base` names.
 */
export function setNlinkMark(
  u: Union,
  fd: number,
  name: ByteString,
  base: 'U' | 'L',
  adjust: number,
): Result {
  return u.xattrs.set(fd, name, 'nlink', `${base}${adjust < 0 ? '' : '+'}${adjust}`)
}

/**
 * What to add to the upper inode's link count to get the union's (kernel: ovl_get_nlink).
 *
 * @param value of the mark; null: there is none
 * @param upper link count of the upper inode
 * @param lower of the lower one, or null where that can't be found: then all that is known is that
 *   the index is no name
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
 * The same, or 0 where that makes a count that no file has: its owner may have written the mark
 * (kernel: ovl_get_nlink).
 */
export function credibleAdjust(value: string | null, upper: number, lower: number | null): number {
  const adjust = nlinkAdjust(value, upper, lower)
  const links = upper + adjust
  return links > 0 && links <= MOST_LINKS ? adjust : 0
}
