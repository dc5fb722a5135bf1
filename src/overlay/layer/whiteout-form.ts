/** Which form of whiteout can be written in an upper layer. */

import { mknodat, statxat, unlinkat } from '../../sys/at.js'
import { S_IFCHR } from '../../sys/constants.js'
import { isPassing } from '../../sys/errno.js'
import { Stat } from '../../sys/stat.js'
import type { Logger } from '../../log.js'
import { createMarkerFile } from './opaque-file.js'
import type { OverlayXattrs } from './overlay-xattrs.js'
import type { ByteString, Result } from '../ops.js'
import type { WhiteoutForm } from '../options.js'
import { DOT_WHITEOUT } from './whiteout.js'

const PROBE = '#probe'
const probed = new Stat()

/**
 * Whether `make` makes something that looks as it should: 1 or 0, or -errno. It is taken away
 * again.
 */
function canCreate(fd: number, name: ByteString, make: () => Result, check: () => boolean): Result {
  let result = make()
  if (result >= 0) result = statxat(fd, name, probed)
  const can = result >= 0 && check()
  const removed = unlinkat(fd, name)
  if (isPassing(result)) return result
  return can && removed < 0 ? removed : Number(can)
}

/**
 * The first form of whiteout that can be written and is read back. In another union no device 0/0
 * can be made, since it would be a whiteout there (kernel: ovl_mknod), nor in some of them a name
 * that begins with `.wh.`.
 *
 * @returns the form, or -errno
 */
export function chooseForm(
  fd: number,
  xattrs: OverlayXattrs,
  log: Logger,
): Exclude<WhiteoutForm, 'auto'> | Result {
  // The union below, when there is one, takes the other forms for its own.
  if (xattrs.infix === 'tsoverlay.') return 'xattr'
  const device = (): Result => mknodat(fd, PROBE, S_IFCHR, 0, 0)
  const devices = canCreate(fd, PROBE, device, () => probed.isWhiteout)
  if (devices !== 0) return devices < 0 ? devices : 'char'
  const attributes = xattrs.canSet(fd)
  if (attributes !== 0) return attributes < 0 ? attributes : 'xattr'
  const mark = DOT_WHITEOUT + PROBE
  const create = (): Result => createMarkerFile(fd, mark)
  const marked = canCreate(fd, mark, create, () => true)
  if (marked !== 0) return marked < 0 ? marked : 'wh'
  log.warn(
    {},
    'no form of whiteout can be written here: what a lower layer has can be changed, but not deleted or renamed',
  )
  // It fails before anything is changed; RENAME_WHITEOUT would leave a hole that shows what lies
  // below.
  return 'xattr'
}
