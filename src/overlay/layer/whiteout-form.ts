/** Finds the form of whiteout that can be written in an upper layer. */

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
 * Whether `make` creates an object that satisfies `check`: 1 or 0, or -errno. The object is removed
 * again.
 */
function canCreate(
  fd: number,
  name: ByteString,
  make: () => Result,
  check: (st: Stat) => boolean,
): Result {
  let result = make()
  if (result >= 0) result = statxat(fd, name, probed)
  const can = result >= 0 && check(probed)
  const removed = unlinkat(fd, name)
  if (isPassing(result)) return result
  return can && removed < 0 ? removed : Number(can)
}

/**
 * Chooses the first form of whiteout that can be written and read back. In another union no device
 * 0/0 can be created, because it would be a whiteout there (kernel: ovl_mknod). Some unions also
 * refuse names that begin with `.wh.`.
 *
 * @returns the form, or -errno
 */
export function chooseForm(
  fd: number,
  xattrs: OverlayXattrs,
  log: Logger,
): Exclude<WhiteoutForm, 'auto'> | Result {
  // A union below would interpret the other forms as its own whiteouts.
  if (xattrs.infix === 'tsoverlay.') return 'xattr'
  const device = (): Result => mknodat(fd, PROBE, S_IFCHR, 0, 0)
  const deviceResult = canCreate(fd, PROBE, device, st => st.isWhiteout)
  if (deviceResult !== 0) return deviceResult < 0 ? deviceResult : 'char'
  const xattrResult = xattrs.canSet(fd)
  if (xattrResult !== 0) return xattrResult < 0 ? xattrResult : 'xattr'
  const marker = DOT_WHITEOUT + PROBE
  const create = (): Result => createMarkerFile(fd, marker)
  const fileResult = canCreate(fd, marker, create, () => true)
  if (fileResult !== 0) return fileResult < 0 ? fileResult : 'wh'
  log.warn(
    {},
    'no form of whiteout can be written here: objects of lower layers can be changed, but not deleted or renamed',
  )
  // The xattr form fails before anything is changed. RENAME_WHITEOUT would remove the name without
  // a whiteout, and the lower object would appear.
  return 'xattr'
}
