/** Recognising whiteouts and opaque folders, in all the forms that layers come with. */

import { statxat } from '../sys/at.js'
import { S_IFMT, S_IFREG } from '../sys/constants.js'
import { E } from '../sys/errno.js'
import { getxattrat } from '../sys/xattr.js'
import { Stat } from '../sys/stat.js'
import { DOT_OPAQUE } from './dot-opaque.js'
import type { RealDir } from './layer.js'
import { TRUSTED_PREFIX, USER_PREFIX } from './marks.js'
import type { ByteString, Result } from './ops.js'
import { listReal } from './tree.js'
import type { Union } from './union.js'

export const DOT_WHITEOUT = '.wh.'
/** NAME_MAX - strlen(".wh.") */
const LONGEST_HIDDEN = 251
/** So many single probes in a folder, then it is read whole. */
const PROBES = 12

const probe = new Stat()
const nothing = Buffer.allocUnsafeSlow(16)

/** Whether a name is one of the marks' own; such names do not exist in the union. */
export function isDotWhiteoutName(name: ByteString): boolean {
  return name.startsWith(DOT_WHITEOUT)
}

/** Whether the folder has `.wh.NAME`. `fd` is the folder's. */
export function hasDotWhiteout(u: Union, dir: RealDir, fd: number, name: ByteString): boolean {
  if (name.length > LONGEST_HIDDEN) return false
  let known = dir.dotWhiteouts
  if (known === undefined && ++dir.dotProbes > PROBES) known = scanDotWhiteouts(u, dir, fd)
  if (known !== undefined) return known.has(name)
  return statxat(fd, DOT_WHITEOUT + name, probe) >= 0
}

function scanDotWhiteouts(u: Union, dir: RealDir, fd: number): Set<ByteString> | undefined {
  const found = new Set<ByteString>()
  const result: Result = listReal(fd, '', name => {
    if (isDotWhiteoutName(name)) found.add(name.slice(DOT_WHITEOUT.length))
    return true
  })
  if (result === -E.EACCES) {
    // It may be searched, but not listed: each name is asked for.
    dir.dotProbes = -Infinity
    return undefined
  }
  if (result < 0) {
    u.log.warn({ layer: dir.layer.path, errno: -result }, 'cannot read a folder of a layer')
    return undefined
  }
  return (dir.dotWhiteouts = found)
}

/**
 * Whether a real object is a whiteout: char 0/0, or an empty regular file with `overlay.whiteout`. Only
 * who lists a folder goes by its mark `opaque=x`, as one that looks up a name has the attributes at hand
 * (kernel: ovl_path_is_whiteout).
 *
 * @param st its attributes
 */
export function isWhiteout(fd: number, name: ByteString, st: Stat): boolean {
  if (st.isWhiteout) return true
  if ((st.mode & S_IFMT) !== S_IFREG || st.size !== 0) return false
  return (
    getxattrat(fd, name, TRUSTED_PREFIX + 'whiteout', nothing) >= 0 ||
    getxattrat(fd, name, USER_PREFIX + 'whiteout', nothing) >= 0
  )
}

/** Whether the folder (fd, name) holds the mark `.wh..wh..opq`. `fd` is its parent's. */
export function hasDotOpaque(fd: number, name: ByteString): boolean {
  return statxat(fd, name + '/' + DOT_OPAQUE, probe) >= 0
}
