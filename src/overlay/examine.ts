/** What one real folder has under a name, and the marks of a folder found there. */

import { statxat } from '../sys/at.js'
import { S_IFDIR, S_IFMT } from '../sys/constants.js'
import { E } from '../sys/errno.js'
import type { Stat } from '../sys/stat.js'
import type { RealDir } from './layer.js'
import { Mark } from './marks.js'
import type { ByteString, Result } from './ops.js'
import { amend } from './override.js'
import type { Union } from './union.js'
import { hasDotOpaque, hasDotWhiteout, isWhiteout } from './whiteout.js'

/** What one real folder has under a name. */
export const Found = {
  /** Nothing: lower layers decide. */
  NOTHING: 0,
  /** A whiteout: the name ends here. */
  WHITEOUT: 1,
  /** Anything but a folder. */
  FILE: 2,
  FOLDER: 3,
} as const

/** What `examine` learns of a folder beside its being there. */
interface FolderMarks {
  /** Lower layers do not shine through. */
  opaque: boolean
  /** Where to go on in lower layers instead of the same name; '' for none. */
  redirect: ByteString
}

/** Of the folder that `readFolderMarks` read last. */
export const folder: FolderMarks = { opaque: false, redirect: '' }

/** What `readFolderMarks` saw on the topmost folder, kept for `readProtect`. */
export const topMarks = { bits: 0 }

/**
 * What the real folder has under the name, attributes in `st`; or -errno.
 *
 * @param last there is no layer below that has the folder: a `.wh.` name would hide nothing, and is not asked for
 */
export function examine(u: Union, real: RealDir, name: ByteString, st: Stat, last = false): Result {
  const fd = u.fds.get(real)
  if (fd < 0) return fd === -E.ENOENT ? Found.NOTHING : fd
  const result = statxat(fd, name, st)
  if (result < 0) {
    if (result !== -E.ENOENT && result !== -E.ENOTDIR) return result
    return !last && hasDotWhiteout(u, real, fd, name) ? Found.WHITEOUT : Found.NOTHING
  }
  if (isWhiteout(fd, name, st)) return Found.WHITEOUT
  if (u.amends) {
    const amended = amend(real.layer, fd, name, st)
    if (amended < 0) return amended
  }
  return (st.mode & S_IFMT) === S_IFDIR ? Found.FOLDER : Found.FILE
}

/**
 * Reads the marks of a folder that was just found, into `folder` and the folder itself.
 *
 * @param real its parent, in which it is called `name`
 * @param last there is no layer below that has the parent
 */
export function readFolderMarks(
  u: Union,
  child: RealDir,
  real: RealDir,
  name: ByteString,
  last: boolean,
): Result {
  folder.opaque = false
  folder.redirect = ''
  const fd = u.fds.get(real)
  if (fd < 0) return fd
  const lower = !real.layer.isUpper
  const bits = u.marks.read(fd, name, lower)
  if (!lower) topMarks.bits = bits
  child.impure = (bits & Mark.IMPURE) !== 0
  if ((bits & Mark.OPAQUE) !== 0) {
    const value = u.marks.opaque(fd, name, lower)
    if (value === 'y') folder.opaque = true
    // A move that was cut short may have left one that hides nothing, in an opaque folder too.
    child.xattrWhiteouts = value === 'x' || (!lower && u.work?.form === 'xattr')
  }
  if ((bits & Mark.REDIRECT) !== 0) {
    folder.redirect = u.marks.value(fd, name, 'redirect', lower) ?? ''
    if (!isRedirect(folder.redirect)) return -E.EINVAL
  }
  if (!folder.opaque && (!last || folder.redirect !== ''))
    folder.opaque = hasDotOpaque(fd, name) || hasDotWhiteout(u, real, fd, name)
  return 0
}

/**
 * Whether it is a name or an absolute path (kernel: ovl_get_redirect_xattr). Nothing else may get where
 * names of layers are expected.
 */
export function isRedirect(value: ByteString): boolean {
  const [first, ...rest] = value.split('/')
  const names = first === '' ? rest : [first, ...rest]
  if (first !== '' && rest.length > 0) return false
  return names.every(name => name !== '' && name !== '.' && name !== '..')
}
