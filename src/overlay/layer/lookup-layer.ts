/** What one real directory has under a name, and the marks of a directory found there. */

import { statxat } from '../../sys/at.js'
import { S_IFDIR, S_IFMT } from '../../sys/constants.js'
import { E } from '../../sys/errno.js'
import type { Stat } from '../../sys/stat.js'
import type { RealDir } from './layer.js'
import { XattrBit } from './overlay-xattrs.js'
import type { ByteString, Result } from '../ops.js'
import { applyOverride } from './stat-override.js'
import type { LayerContext } from './context.js'
import { readRedirect } from './redirect-value.js'
import {
  hasOpaqueFile,
  hasDotWhiteout,
  isActiveDotWhiteout,
  isHiddenByDotWhiteout,
  isDotWhiteoutName,
  isWhiteout,
} from './whiteout.js'

/** What one real directory has under a name. */
export const Found = {
  /** Nothing: lower layers decide. */
  NOTHING: 0,
  /** A whiteout: the name ends here. */
  WHITEOUT: 1,
  /** Anything but a directory. */
  FILE: 2,
  DIRECTORY: 3,
} as const

/** What `examine` learns of a directory beside its being there. */
interface DirectoryXattrs {
  /** Lower layers do not shine through. */
  opaque: boolean
  /** Where to go on in lower layers instead of the same name; '' for none. */
  redirect: ByteString
}

/** Of the directory that `readDirectoryXattrs` read last. */
export const directoryXattrs: DirectoryXattrs = { opaque: false, redirect: '' }

/** What `readDirectoryXattrs` saw on the topmost directory, kept for `readProtect`. */
export const topXattrs = { bits: 0 }

/**
 * What the real directory has under the name, attributes in `st`; or -errno.
 *
 * @param last there is no layer below that has the directory: a `.wh.` name would hide nothing, and
 *   is not asked for
 */
export function lookupInDirectory(
  u: LayerContext,
  real: RealDir,
  name: ByteString,
  st: Stat,
  last = false,
): Result {
  const fd = u.fds.get(real)
  if (fd < 0) return fd === -E.ENOENT ? Found.NOTHING : fd
  const result = statxat(fd, name, st)
  if (result < 0) {
    // A redirect may say a name that is too long.
    if (result !== -E.ENOENT && result !== -E.ENOTDIR && result !== -E.ENAMETOOLONG) return result
    const hidden = last ? 0 : hasDotWhiteout(u, real, fd, name)
    return hidden < 0 ? hidden : hidden > 0 ? Found.WHITEOUT : Found.NOTHING
  }
  const whiteout = isWhiteout(real.layer.xattrs, fd, name, st, !real.layer.isUpper)
  if (whiteout !== 0) return whiteout < 0 ? whiteout : Found.WHITEOUT
  // Before anything else is asked of it: it is no object of the union.
  if (isDotWhiteoutName(name)) {
    const hides = isActiveDotWhiteout(real.layer, !real.layer.isUpper, fd, name)
    if (hides !== 0) return hides < 0 ? hides : Found.NOTHING
  }
  if (u.appliesOverrides) {
    const amended = applyOverride(real.layer, fd, name, st)
    if (amended < 0) return amended
  }
  return (st.mode & S_IFMT) === S_IFDIR ? Found.DIRECTORY : Found.FILE
}

/**
 * Reads the marks of a directory that was just found, into `directory` and the directory itself.
 *
 * @param real its parent, in which it is called `name`
 * @param last there is no layer below that has the parent
 */
export function readDirectoryXattrs(
  u: LayerContext,
  child: RealDir,
  real: RealDir,
  name: ByteString,
  last: boolean,
): Result {
  directoryXattrs.opaque = false
  directoryXattrs.redirect = ''
  const fd = u.fds.get(real)
  if (fd < 0) return fd
  const { xattrs, isUpper } = real.layer
  const lower = !isUpper
  const bits = xattrs.read(fd, name, lower)
  if (bits < 0) return bits
  if (!lower) topXattrs.bits = bits
  child.impure = (bits & XattrBit.IMPURE) !== 0
  if ((bits & XattrBit.OPAQUE) !== 0) {
    const value = xattrs.opaque(fd, name, lower)
    if (typeof value === 'number') return value
    if (value === 'y') directoryXattrs.opaque = true
    // A move that was cut short may have left one that hides nothing, in an opaque directory too.
    child.xattrWhiteouts = value === 'x' || (!lower && u.workdir?.form === 'xattr')
  }
  if ((bits & XattrBit.REDIRECT) !== 0 && !directoryXattrs.opaque && !isLast(u, real, last)) {
    const redirect = readRedirect(u, real.layer, fd, name)
    if (typeof redirect === 'number') return redirect
    directoryXattrs.redirect = redirect
  }
  if (directoryXattrs.opaque || (last && directoryXattrs.redirect === '')) return 0
  let hidden = hasOpaqueFile(real.layer, lower, fd, name)
  if (hidden === 0) hidden = isHiddenByDotWhiteout(u, real, fd, name)
  directoryXattrs.opaque = hidden > 0
  return Math.min(hidden, 0)
}

/**
 * Whether no layer is left in which a redirect could lead anywhere: then it is not looked at
 * (kernel: ovl_lookup).
 */
const isLast = (u: LayerContext, { layer }: RealDir, last: boolean): boolean =>
  u.options.redirectDir === 'nofollow' ? last : layer.index === u.lowers.length
