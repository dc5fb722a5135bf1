/**
 * What a copy has besides its data: owner, mode, extended attributes with ACLs and capabilities,
 * times, and the marks of its origin. Analogous to the second half of fs/overlayfs/copy_up.c.
 */

import { fchmod, fchmodat, fchown, fchownat, futimens, openat, utimensat } from '../../sys/at.js'
import {
  FS_NOATIME_FL,
  FS_SYNC_FL,
  O_NONBLOCK,
  O_RDONLY,
  S_IFDIR,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
} from '../../sys/constants.js'
import { E } from '../../sys/errno.js'
import { close, getFlags, setFlags } from '../../sys/io.js'
import type { Stat } from '../../sys/stat.js'
import {
  fsetxattr,
  getxattrValue,
  listxattrNames,
  removexattrat,
  setxattrat,
} from '../../sys/xattr.js'
import { ACL_ACCESS, ACL_DEFAULT } from '../owner/acl.js'
import { diskValue, holdsIds } from '../owner/xattr-ids.js'
import type { Layer } from '../layer/layer.js'
import { setNlinkMark } from './nlink.js'
import { isXattrRefusal } from '../layer/overlay-xattrs.js'
import { Protect, type Node } from '../inode/node.js'
import type { ByteString, Result } from '../ops.js'
import { encodeOrigin, encodeForIndex } from '../layer/origin.js'
import {
  chmodOnDisk,
  hasCredibleOverride,
  isOverridden,
  writeOverride,
  storedName,
  visibleName,
} from '../owner/stat-override.js'
import { openRead } from '../layer/real-dir.js'
import type { Union } from '../union.js'

/**
 * Owner, mode, xattrs with ACLs, times and origin from a lower object to its copy.
 *
 * @param st the lower object's attributes
 * @param dstName '' for a file that is open, not only with O_PATH
 * @param src the lower object, where it is open for reading
 * @param born the mode that the copy was made with, in the work directory; -1: nothing is known of
 *   the copy
 *
 * Analogous to copy_up.c:ovl_copy_up_metadata().
 */
export function copyMetadata(
  u: Union,
  st: Stat,
  layer: Layer,
  srcFd: number,
  srcName: ByteString,
  dstFd: number,
  dstName: ByteString,
  node: Node,
  src = -1,
  born = -1,
): Result {
  const isLink = (st.mode & S_IFMT) === S_IFLNK
  let result: Result
  if (u.override && u.upper !== null) {
    result = copyOverridden(u, u.upper, st, layer, srcFd, srcName, dstFd, dstName)
  } else {
    result = born >= 0 && isOwnedAs(u, st) ? 0 : chown(dstFd, dstName, st.uid, st.gid)
    // An owner that the user namespace does not know (kernel: ovl_copy_up_one).
    if (result < 0) return result === -E.EINVAL ? -E.EOVERFLOW : result
    result = u.bare === node.id ? 0 : copyXattrs(u, layer, srcFd, srcName, dstFd, dstName)
  }
  if (result < 0) return result
  const type = st.mode & S_IFMT
  const single = type === S_IFDIR || st.nlink === 1 || (u.work?.indexFd ?? -1) >= 0
  const marked = u.xattrs.fitsAllTypes || type === S_IFREG || type === S_IFDIR
  let origin: ReturnType<typeof encodeOrigin> = null
  if (single && marked)
    origin = (st.nlink === 1 || type === S_IFDIR ? encodeOrigin : encodeForIndex)(
      layer,
      src >= 0 ? src : srcFd,
      src >= 0 ? '' : srcName,
    )
  if (typeof origin === 'number') return origin
  if (origin !== null) {
    result = setAttribute(dstFd, dstName, u.xattrs.names.origin, origin)
    if (result < 0 && !isXattrRefusal(result)) return result
    // It holds before the copy has its first name, and however many it has got when something
    // fails.
    if (result >= 0 && node.links !== null && (u.work?.indexFd ?? -1) >= 0)
      result = setNlinkMark(u, dstFd, dstName, 'L', node.nlinkAdjust)
    if (result < 0 && !isXattrRefusal(result)) return result
  }
  if (node.protect !== 0 && (type === S_IFREG || type === S_IFDIR)) {
    result = saveProtect(u, dstFd, dstName, node.protect)
    if (result < 0) return result
  }
  // After the marks: `user.` attributes take the right to write.
  if (!isLink && !u.override) {
    const mode = st.mode & 0o7777
    if (mode !== born) {
      result = dstName === '' ? fchmod(dstFd, mode) : fchmodat(dstFd, dstName, mode)
      if (result < 0) return result
    }
  }
  if (type === S_IFREG || type === S_IFDIR) {
    result = copyFlags(u, srcFd, srcName, dstFd, dstName, src)
    if (result < 0) return result
  }
  return dstName === ''
    ? futimens(dstFd, st.atimeSec, st.atimeNsec, st.mtimeSec, st.mtimeNsec)
    : utimensat(dstFd, dstName, st.atimeSec, st.atimeNsec, st.mtimeSec, st.mtimeNsec)
}

const chown = (fd: number, name: ByteString, uid: number, gid: number): Result =>
  name === '' ? fchown(fd, uid, gid) : fchownat(fd, name, uid, gid)

/** Whether a file that is made in the work directory has this owner and group from the start. */
function isOwnedAs(u: Union, st: Stat): boolean {
  const newborn = u.work?.newborn
  return newborn !== undefined && newborn.uid === st.uid && newborn.gid === st.gid
}

/**
 * The mode to make a copy's temporary file with: that of the lower file, if the new one gets it,
 * and if its owner may write to it with that. Set-id bits come last, after the owner.
 */
export function modeToMake(u: Union, mode: number): number {
  const plain = (mode & 0o7600) === 0o600 && !u.override
  return plain && u.work?.newborn.keepsMode === true ? mode & 0o777 : 0o600
}

/** Owner and mode, where the upper layer keeps them in an attribute, and the other attributes. */
function copyOverridden(
  u: Union,
  upper: Layer,
  st: Stat,
  layer: Layer,
  srcFd: number,
  srcName: ByteString,
  dstFd: number,
  dstName: ByteString,
): Result {
  const { uid, gid, mode } = st
  let result = copyXattrs(u, layer, srcFd, srcName, dstFd, dstName)
  if (result < 0) return result
  if (isOverridden(upper, mode & S_IFMT)) {
    result = writeOverride(upper, dstFd, dstName, uid, gid, mode, st.rdevMajor, st.rdevMinor)
    if (result < 0 || (mode & S_IFMT) === S_IFLNK) return result
    return chmodOnDisk(dstFd, dstName, mode)
  }
  result = fchownat(dstFd, dstName, uid, gid)
  return result === -E.EINVAL ? -E.EOVERFLOW : result
}

const COPIED_FLAGS = FS_SYNC_FL | FS_NOATIME_FL

/**
 * The inode flags that a copy keeps; a file system that has none is no fault.
 *
 * Analogous to copy_up.c:ovl_copy_fileattr().
 */
function copyFlags(
  u: Union,
  srcFd: number,
  srcName: ByteString,
  dstFd: number,
  dstName: ByteString,
  open: number,
): Result {
  let src = open >= 0 ? open : openRead(srcFd, srcName || '.', O_NONBLOCK)
  if (src === -E.EMFILE || src === -E.ENFILE) {
    // The source's directory was used last, so that it stays open.
    u.fds.shrink()
    src = openRead(srcFd, srcName || '.', O_NONBLOCK)
  }
  // An ordinary user's union copies what it may not read, too, but for a file's data.
  if (src < 0) return src === -E.EACCES ? 0 : src
  const kept = getFlags(src)
  if (open < 0) close(src)
  if (kept < 0) return hasNoFlags(kept) ? 0 : kept
  if ((kept & COPIED_FLAGS) === 0) return 0
  const dst = dstName === '' ? dstFd : openat(dstFd, dstName, O_RDONLY | O_NONBLOCK)
  if (dst < 0) return dst
  // Added to what the new one has: a file system does not let go of all of its flags.
  const own = getFlags(dst)
  const result = own < 0 ? own : setFlags(dst, own | (kept & COPIED_FLAGS))
  if (dst !== dstFd) close(dst)
  return hasNoFlags(result) ? 0 : result
}

/** A file system that has no inode flags, or not these. */
const hasNoFlags = (result: Result): boolean =>
  result === -E.ENOTTY || result === -E.EINVAL || result === -E.EOPNOTSUPP || result === -E.ENOSYS

/** What an attribute of a lower layer is called in the upper one; '' where it stays behind. */
function carriedName(u: Union, layer: Layer, attr: ByteString): ByteString {
  const { xattrs } = layer
  // A name that hides nothing keeps to that.
  if (attr === xattrs.names.ordinary) return u.xattrs.names.ordinary
  if (xattrs.isPrivate(attr)) return ''
  const visible = xattrs.unescape(u.override ? visibleName(layer, attr) : attr)
  if (visible === '') return ''
  return u.xattrs.escape(u.override ? storedName(u.upper, visible) : visible)
}

const setAttribute = (fd: number, name: ByteString, attr: ByteString, value: Uint8Array): Result =>
  name === '' ? fsetxattr(fd, attr, value, 0) : setxattrat(fd, name, attr, value, 0)

/** Writes `overlay.protattr` (kernel: ovl_set_protattr). */
export function saveProtect(u: Union, fd: number, name: ByteString, protect: number): Result {
  const value =
    ((protect & Protect.APPEND) !== 0 ? 'a' : '') + ((protect & Protect.IMMUTABLE) !== 0 ? 'i' : '')
  if (value !== '') return u.xattrs.set(fd, name, 'protattr', value)
  const result = removexattrat(fd, name, u.xattrs.names.protattr)
  return result === -E.ENODATA ? 0 : result
}

function copyXattrs(
  u: Union,
  layer: Layer,
  srcFd: number,
  srcName: ByteString,
  dstFd: number,
  dstName: ByteString,
): Result {
  const names = listxattrNames(srcFd, srcName)
  if (typeof names === 'number') return names === -E.EOPNOTSUPP ? 0 : names
  for (const attr of names) {
    const stored = carriedName(u, layer, attr)
    if (stored === '') continue
    // In the copy it would be the mounter's word.
    if (layer.checksOverrides && visibleName(layer, attr) !== attr)
      if (!hasCredibleOverride(layer, srcFd, srcName)) continue
    const value = getxattrValue(srcFd, srcName, attr)
    if (typeof value === 'number') {
      if (value === -E.ENODATA) continue
      return value
    }
    const { mountIdmap } = layer
    const kept = mountIdmap !== null && holdsIds(attr) ? diskValue(mountIdmap, attr, value) : value
    if (typeof kept === 'number') return -E.EOVERFLOW
    const result = setAttribute(dstFd, dstName, stored, kept)
    if (result >= 0) continue
    // Kernel: ovl_must_copy_xattr(). What grants or takes rights must not get lost, the rest may.
    const must = attr === ACL_ACCESS || attr === ACL_DEFAULT || attr.startsWith('security.')
    if (result !== -E.EOPNOTSUPP || must) return result
  }
  return 0
}
