/**
 * Looks up a name in a single real directory, and reads the overlay xattrs of a directory found
 * there.
 */

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

/** The type of what a real directory has under a name. */
export const Found = {
  /** The name does not exist. Lower layers decide. */
  NOTHING: 0,
  /** A whiteout. The lookup ends here. */
  WHITEOUT: 1,
  /** Anything but a directory. */
  FILE: 2,
  DIRECTORY: 3,
} as const

/** The overlay xattrs of a directory. A caller of `readDirectoryXattrs` keeps the object. */
export class DirectoryXattrs {
  /** As `OverlayXattrs.read`. */
  bits = 0
  /** Lower layers are hidden. */
  opaque = false
  /** The redirect: the path of the directory in lower layers. '' if there is no redirect. */
  redirect: ByteString = ''
}

/**
 * Looks up the name in the real directory. Fills `st` with the attributes.
 *
 * @param last no layer below has the directory. A `.wh.` file would hide nothing then, so it is not
 *   probed for
 * @returns a value of `Found`, or -errno
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
    // A redirect may contain a name that is too long.
    if (result !== -E.ENOENT && result !== -E.ENOTDIR && result !== -E.ENAMETOOLONG) return result
    const hidden = last ? 0 : hasDotWhiteout(u, real, fd, name)
    return hidden < 0 ? hidden : hidden > 0 ? Found.WHITEOUT : Found.NOTHING
  }
  const whiteout = isWhiteout(real.layer.xattrs, fd, name, st, !real.layer.isUpper)
  if (whiteout !== 0) return whiteout < 0 ? whiteout : Found.WHITEOUT
  // Before any other check: a `.wh.` file that hides a name is not an object of the union.
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
 * Reads the overlay xattrs of a directory that was just found. Fills `out` and fields of `child`.
 *
 * @param real the parent of `child`, which has the name `name` there
 * @param last no layer below has the parent
 */
export function readDirectoryXattrs(
  u: LayerContext,
  child: RealDir,
  real: RealDir,
  name: ByteString,
  last: boolean,
  out: DirectoryXattrs,
): Result {
  out.bits = 0
  out.opaque = false
  out.redirect = ''
  const fd = u.fds.get(real)
  if (fd < 0) return fd
  const { xattrs, isUpper } = real.layer
  const lower = !isUpper
  const bits = xattrs.read(fd, name, lower)
  if (bits < 0) return bits
  out.bits = bits
  child.impure = (bits & XattrBit.IMPURE) !== 0
  if ((bits & XattrBit.OPAQUE) !== 0) {
    const value = xattrs.opaque(fd, name, lower)
    if (typeof value === 'number') return value
    if (value === 'y') out.opaque = true
    // An interrupted move may have left whiteouts by xattr in an opaque directory, too.
    child.xattrWhiteouts = value === 'x' || (!lower && u.workdir?.form === 'xattr')
  }
  if ((bits & XattrBit.REDIRECT) !== 0 && !out.opaque && !isLast(u, real, last)) {
    const redirect = readRedirect(u, real.layer, fd, name)
    if (typeof redirect === 'number') return redirect
    out.redirect = redirect
  }
  if (out.opaque || (last && out.redirect === '')) return 0
  let hidden = hasOpaqueFile(real.layer, lower, fd, name)
  if (hidden === 0) hidden = isHiddenByDotWhiteout(u, real, fd, name)
  out.opaque = hidden > 0
  return Math.min(hidden, 0)
}

/**
 * Whether no layer is left to which a redirect could lead. The redirect xattr is not read then
 * (kernel: ovl_lookup).
 */
const isLast = (u: LayerContext, { layer }: RealDir, last: boolean): boolean =>
  u.options.redirectDir === 'nofollow' ? last : layer.index === u.lowers.length
