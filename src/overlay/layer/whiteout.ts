/** Recognises whiteouts and opaque directories in all the forms that layers contain. */

import { fstatx, renameat2, statxat } from '../../sys/at.js'
import { RENAME_EXCHANGE, S_IFMT, S_IFREG } from '../../sys/constants.js'
import { E } from '../../sys/errno.js'
import { close } from '../../sys/io.js'
import { geteuid } from '../../sys/proc.js'
import { Stat } from '../../sys/stat.js'
import { openOpaqueFile } from './opaque-file.js'
import type { RealDir } from './layer.js'
import { isXattrRefusal, XattrBit, type OverlayXattrs } from './overlay-xattrs.js'
import type { ByteString, Result } from '../ops.js'
import { listReal } from '../../sys/real-dir.js'
import type { LayerContext } from './context.js'

export const DOT_WHITEOUT = '.wh.'
/** NAME_MAX - strlen(".wh.") */
const MAX_HIDDEN_NAME = 251
/** After this number of single probes, the directory is listed as a whole. */
const MAX_PROBES = 12

const probe = new Stat()

/**
 * Whether a name has the form of a `.wh.` whiteout. Such a name is visible in the union if it is
 * not an active whiteout (`isActiveDotWhiteout`).
 */
export function isDotWhiteoutName(name: ByteString): boolean {
  return name.startsWith(DOT_WHITEOUT)
}

/**
 * Whether (fd, name), a name that begins with `.wh.`, exists and hides another name. It hides
 * nothing if a union created it, which then has set the ordinary xattr, or if it is itself a
 * whiteout.
 *
 * @param lower it is in a lower layer
 * @returns 1 or 0, or -errno
 */
export function isActiveDotWhiteout(
  u: Pick<LayerContext, 'xattrs'>,
  lower: boolean,
  fd: number,
  name: ByteString,
): Result {
  const exists = existence(statxat(fd, name, probe))
  if (exists <= 0 || probe.isWhiteout) return Math.min(exists, 0)
  const bits = u.xattrs.read(fd, name, lower)
  if (bits < 0) return bits
  return (bits & (XattrBit.ORDINARY | XattrBit.WHITEOUT)) === 0 ? 1 : 0
}

/**
 * Whether callers may create names that begin with `.wh.`: not if the union's own whiteouts have
 * such names.
 */
export const allowsDotNames = (u: LayerContext): boolean =>
  u.workdir !== null && u.workdir.form !== 'wh'

/**
 * Sets the ordinary xattr on an object, before it gets a name that begins with `.wh.`. The name
 * then hides nothing.
 *
 * @returns 0, or -EINVAL if the file system refuses the xattr
 */
export function setOrdinary(u: Pick<LayerContext, 'xattrs'>, fd: number, name: ByteString): Result {
  const result = u.xattrs.set(fd, name, 'ordinary', 'y')
  return isXattrRefusal(result) ? -E.EINVAL : result
}

/** Whether the directory has `.wh.NAME`: 1 or 0, or -errno. `fd` is the directory's descriptor. */
export function hasDotWhiteout(
  u: LayerContext,
  dir: RealDir,
  fd: number,
  name: ByteString,
): Result {
  if (name.length > MAX_HIDDEN_NAME) return 0
  let known = dir.dotWhiteouts
  if (known === undefined && ++dir.dotProbes > MAX_PROBES) known = scanDotWhiteouts(u, dir, fd)
  if (known !== undefined) return known.has(name) ? 1 : 0
  return isActiveDotWhiteout(dir.layer, !dir.layer.isUpper, fd, DOT_WHITEOUT + name)
}

/**
 * Errors that mean that the object can't exist, or that this process may not see it, count as "does
 * not exist".
 */
function existence(result: Result): Result {
  if (result >= 0) return 1
  const none = result === -E.ENOENT || result === -E.ENOTDIR || result === -E.EACCES
  return none || result === -E.ENAMETOOLONG || result === -E.ELOOP ? 0 : result
}

function scanDotWhiteouts(u: LayerContext, dir: RealDir, fd: number): Set<ByteString> | undefined {
  const found = new Set<ByteString>()
  const result: Result = listReal(fd, '', name => {
    if (
      isDotWhiteoutName(name) &&
      isActiveDotWhiteout(dir.layer, !dir.layer.isUpper, fd, name) !== 0
    )
      found.add(name.slice(DOT_WHITEOUT.length))
    return true
  })
  if (result === -E.EACCES) {
    // The directory may be searched, but not listed. Probe for each name from now on.
    dir.dotProbes = -Infinity
    return undefined
  }
  if (result < 0) {
    u.log.warn({ layer: dir.layer.path, errno: -result }, 'cannot read a directory of a layer')
    return undefined
  }
  return (dir.dotWhiteouts = found)
}

/**
 * Whether a real object is a whiteout: a character device 0/0, or an empty regular file with the
 * whiteout xattr. A lookup has the attributes at hand and needs no `opaque=x` on the directory.
 * Only a listing depends on that (kernel: ovl_path_is_whiteout). In the upper layer only the
 * union's own prefix counts: xattrs with the other prefix belong to a union whose upper layer lies
 * in this union.
 *
 * @param st its attributes
 * @param lower it is in a lower layer
 * @returns 1 or 0, or -errno
 */
export function isWhiteout(
  xattrs: OverlayXattrs,
  fd: number,
  name: ByteString,
  st: Stat,
  lower: boolean,
): Result {
  if (st.isWhiteout) return 1
  if ((st.mode & S_IFMT) !== S_IFREG || st.size !== 0) return 0
  return xattrs.isWhiteout(fd, name, lower)
}

/**
 * Exchanges a whiteout with another object. The whiteout must be the first argument: fuse-overlayfs
 * as the file system of the upper layer refuses a directory there if the other object is a hard
 * link.
 */
export const exchangeWhiteout = (
  fd: number,
  whiteout: ByteString,
  otherFd: number,
  other: ByteString,
): Result => renameat2(fd, whiteout, otherFd, other, RENAME_EXCHANGE)

const STICKY = 0o1000
const directory = new Stat()

/**
 * Whether a `.wh.` file may hide the lower contents of a directory. Its owner must be a user that
 * could have moved that directory or its contents away. In a directory with the sticky bit, other
 * users can create names but can't remove each other's names.
 *
 * @param file the attributes of the `.wh.` file
 * @param within the attributes of the directory that contains the `.wh.` file
 * @param hidden the owner of the directory whose lower contents it hides
 */
function mayHide(file: Stat, within: Stat, hidden: number): boolean {
  if ((within.mode & STICKY) === 0) return true
  return [0, geteuid(), within.uid, hidden].includes(file.uid)
}

/**
 * Whether the directory (fd, name) contains the opaque file `.wh..wh..opq`: 1 or 0, or -errno. `fd`
 * is the parent's descriptor.
 */
export function hasOpaqueFile(
  u: Pick<LayerContext, 'xattrs'>,
  lower: boolean,
  fd: number,
  name: ByteString,
): Result {
  const opaqueFd = openOpaqueFile(fd, name)
  if (opaqueFd < 0) return existence(opaqueFd)
  const stated = fstatx(opaqueFd, probe)
  const bits = stated < 0 ? stated : u.xattrs.read(opaqueFd, '', lower)
  close(opaqueFd)
  if (bits < 0) return bits
  if (probe.isWhiteout || (bits & (XattrBit.ORDINARY | XattrBit.WHITEOUT)) !== 0) return 0
  const within = statxat(fd, name, directory)
  return within < 0 ? within : Number(mayHide(probe, directory, directory.uid))
}

/**
 * Whether the existing directory NAME has a `.wh.NAME` beside it, which hides the lower contents of
 * NAME: 1 or 0, or -errno.
 */
export function isHiddenByDotWhiteout(
  u: LayerContext,
  dir: RealDir,
  fd: number,
  name: ByteString,
): Result {
  const hidden = hasDotWhiteout(u, dir, fd, name)
  if (hidden <= 0) return hidden
  let result = statxat(fd, name, directory)
  if (result < 0) return result
  const { uid } = directory
  result = statxat(fd, DOT_WHITEOUT + name, probe)
  if (result < 0) return existence(result)
  result = fstatx(fd, directory)
  return result < 0 ? result : Number(mayHide(probe, directory, uid))
}
