/** Recognising whiteouts and opaque directories, in all the forms that layers come with. */

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
/** So many single probes in a directory, then it is read whole. */
const MAX_PROBES = 12

const probe = new Stat()

/**
 * Whether a name is one of the marks' own; such names exist in the union where they hide nothing
 * (`isActiveDotWhiteout`).
 */
export function isDotWhiteoutName(name: ByteString): boolean {
  return name.startsWith(DOT_WHITEOUT)
}

/**
 * Whether a name that begins with `.wh.` is there and says that another one is deleted. It does not
 * where it was made through a union, which has marked the object, or is itself a whiteout.
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
  const there = existence(statxat(fd, name, probe))
  if (there <= 0 || probe.isWhiteout) return Math.min(there, 0)
  const bits = u.xattrs.read(fd, name, lower)
  if (bits < 0) return bits
  return (bits & (XattrBit.ORDINARY | XattrBit.WHITEOUT)) === 0 ? 1 : 0
}

/**
 * Whether a union that writes can have names that begin with `.wh.`: not where its own whiteouts
 * have them.
 */
export const allowsDotNames = (u: LayerContext): boolean =>
  u.workdir !== null && u.workdir.form !== 'wh'

/**
 * Marks an object as one whose name hides nothing, before it gets a name that begins with `.wh.`.
 *
 * @returns 0, or -EINVAL where it can't be marked
 */
export function setOrdinary(u: Pick<LayerContext, 'xattrs'>, fd: number, name: ByteString): Result {
  const result = u.xattrs.set(fd, name, 'ordinary', 'y')
  return isXattrRefusal(result) ? -E.EINVAL : result
}

/** Whether the directory has `.wh.NAME`: 1 or 0, or -errno. `fd` is the directory's. */
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

/** What cannot be there, or is kept from whoever asks, counts as not there. */
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
    // It may be searched, but not listed: each name is asked for.
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
 * Whether a real object is a whiteout: char 0/0, or an empty regular file with `overlay.whiteout`.
 * Only who lists a directory goes by its mark `opaque=x`, as one that looks up a name has the
 * attributes at hand (kernel: ovl_path_is_whiteout). In the upper layer marks with the other prefix
 * are those of a union that has its upper layer in this one.
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
 * A whiteout and something else change places. The whiteout is named first: fuse-overlayfs, as the
 * file system of an upper layer, takes no directory there where the other one is a hard link.
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
 * Whether a mark counts that hides what is merged with a directory: where its owner could have
 * moved that directory, or what is in it, away. In a directory with the sticky bit others can make
 * names, but not take away those of others.
 *
 * @param mark its attributes
 * @param within those of the directory that the mark is in
 * @param hidden the owner of the directory that it hides the rest of
 */
function mayHide(mark: Stat, within: Stat, hidden: number): boolean {
  if ((within.mode & STICKY) === 0) return true
  return [0, geteuid(), within.uid, hidden].includes(mark.uid)
}

/**
 * Whether the directory (fd, name) holds the mark `.wh..wh..opq`: 1 or 0, or -errno. `fd` is its
 * parent's.
 */
export function hasOpaqueFile(
  u: Pick<LayerContext, 'xattrs'>,
  lower: boolean,
  fd: number,
  name: ByteString,
): Result {
  const mark = openOpaqueFile(fd, name)
  if (mark < 0) return existence(mark)
  const stated = fstatx(mark, probe)
  const bits = stated < 0 ? stated : u.xattrs.read(mark, '', lower)
  close(mark)
  if (bits < 0) return bits
  if (probe.isWhiteout || (bits & (XattrBit.ORDINARY | XattrBit.WHITEOUT)) !== 0) return 0
  const within = statxat(fd, name, directory)
  return within < 0 ? within : Number(mayHide(probe, directory, directory.uid))
}

/**
 * Whether the directory NAME, which is there, has a `.wh.NAME` beside it, which hides what lower
 * layers have of it: 1 or 0, or -errno.
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
