/**
 * Copies everything but the data: owner, mode, xattrs including ACLs and capabilities, times, and
 * the origin xattr. Mirrors the second half of fs/overlayfs/copy_up.c.
 */

import { fchmod, fchmodat, fchownat, futimens, openat, utimensat } from '../../sys/at.js'
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
import { setNlinkXattr } from './nlink.js'
import { isXattrRefusal } from '../layer/overlay-xattrs.js'
import { Protect } from '../inode/node.js'
import type { ByteString, Result } from '../ops.js'
import { encodeOrigin, encodeForIndex } from '../layer/origin.js'
import {
  chmodOnDisk,
  hasCredibleOverride,
  isOverridden,
  writeOverride,
  storedName,
  visibleName,
} from '../layer/stat-override.js'
import { openRead } from '../../sys/real-dir.js'
import type { CopyUpContext } from './context.js'
import type { Copy } from './copy.js'

/**
 * Copies owner, mode, xattrs including ACLs, times and the origin from a lower object to its copy.
 *
 * Mirrors copy_up.c:ovl_copy_up_metadata().
 */
export function copyMetadata(u: CopyUpContext, c: Copy): Result {
  const { node, layer, sourceStat: st, srcFd, srcName, openSrc, dstFd, dstName, createdMode } = c
  const isLink = (st.mode & S_IFMT) === S_IFLNK
  let result: Result
  if (u.override && u.upper !== null) {
    result = copyOverridden(u, u.upper, c)
  } else {
    result =
      createdMode >= 0 && hasDefaultOwner(u, st) ? 0 : fchownat(dstFd, dstName, st.uid, st.gid)
    // The user namespace has no mapping for the owner (kernel: ovl_copy_up_one).
    if (result < 0) return result === -E.EINVAL ? -E.EOVERFLOW : result
    result = u.nodeWithoutXattrs === node.id ? 0 : copyXattrs(u, c)
  }
  if (result < 0) return result
  const type = st.mode & S_IFMT
  const single = type === S_IFDIR || st.nlink === 1 || (u.workdir?.indexFd ?? -1) >= 0
  const takesXattrs = u.xattrs.fitsAllTypes || type === S_IFREG || type === S_IFDIR
  let origin: ReturnType<typeof encodeOrigin> = null
  if (single && takesXattrs)
    origin = (st.nlink === 1 || type === S_IFDIR ? encodeOrigin : encodeForIndex)(
      layer,
      openSrc >= 0 ? openSrc : srcFd,
      openSrc >= 0 ? '' : srcName,
    )
  if (typeof origin === 'number') return origin
  if (origin !== null) {
    result = setXattr(dstFd, dstName, u.xattrs.names.origin, origin)
    if (result < 0 && !isXattrRefusal(result)) return result
    // The count must be correct before the copy gets its first name, and with any number of names
    // if a later step fails.
    if (result >= 0 && node.links !== null && (u.workdir?.indexFd ?? -1) >= 0)
      result = setNlinkXattr(u, dstFd, dstName, 'L', node.nlinkAdjust)
    if (result < 0 && !isXattrRefusal(result)) return result
  }
  if (node.protect !== 0 && (type === S_IFREG || type === S_IFDIR)) {
    result = saveProtect(u, dstFd, dstName, node.protect)
    if (result < 0) return result
  }
  // The mode comes after the overlay xattrs: setting a `user.` xattr requires write permission.
  if (!isLink && !u.override) {
    const mode = st.mode & 0o7777
    if (mode !== createdMode) {
      result = dstName === '' ? fchmod(dstFd, mode) : fchmodat(dstFd, dstName, mode)
      if (result < 0) return result
    }
  }
  if (type === S_IFREG || type === S_IFDIR) {
    result = copyFlags(u, c)
    if (result < 0) return result
  }
  return dstName === ''
    ? futimens(dstFd, st.atimeSec, st.atimeNsec, st.mtimeSec, st.mtimeNsec)
    : utimensat(dstFd, dstName, st.atimeSec, st.atimeNsec, st.mtimeSec, st.mtimeNsec)
}

/** Whether a new file in the workdir already has this owner and group. */
function hasDefaultOwner(u: CopyUpContext, st: Stat): boolean {
  const tmpfileDefaults = u.workdir?.tmpfileDefaults
  return (
    tmpfileDefaults !== undefined &&
    tmpfileDefaults.uid === st.uid &&
    tmpfileDefaults.gid === st.gid
  )
}

/**
 * The mode for the temporary file of a copy. The lower file's mode is used if the new file gets it
 * unchanged and if that mode lets the owner write. Set-id bits are set last, after the owner.
 */
export function tmpfileMode(u: CopyUpContext, mode: number): number {
  const plain = (mode & 0o7600) === 0o600 && !u.override
  return plain && u.workdir?.tmpfileDefaults.keepsMode === true ? mode & 0o777 : 0o600
}

/** Copies owner and mode, if the upper layer keeps them in an xattr, and the other xattrs. */
function copyOverridden(u: CopyUpContext, upper: Layer, c: Copy): Result {
  const { sourceStat: st, dstFd, dstName } = c
  const { uid, gid, mode } = st
  let result = copyXattrs(u, c)
  if (result < 0) return result
  if (isOverridden(upper, mode & S_IFMT)) {
    result = writeOverride(upper, dstFd, dstName, st)
    if (result < 0 || (mode & S_IFMT) === S_IFLNK) return result
    return chmodOnDisk(dstFd, dstName, mode)
  }
  result = fchownat(dstFd, dstName, uid, gid)
  return result === -E.EINVAL ? -E.EOVERFLOW : result
}

const COPIED_FLAGS = FS_SYNC_FL | FS_NOATIME_FL

/**
 * Copies inode flags. A file system without inode flags is no error.
 *
 * Mirrors copy_up.c:ovl_copy_fileattr().
 */
function copyFlags(u: CopyUpContext, { srcFd, srcName, openSrc, dstFd, dstName }: Copy): Result {
  let src = openSrc >= 0 ? openSrc : openRead(srcFd, srcName || '.', O_NONBLOCK)
  if (src === -E.EMFILE || src === -E.ENFILE) {
    // The descriptor of the source's directory was used last, so `shrink` does not close it.
    u.fds.shrink()
    src = openRead(srcFd, srcName || '.', O_NONBLOCK)
  }
  // An unprivileged server also copies up an object that it cannot read, except for a file's data.
  if (src < 0) return src === -E.EACCES ? 0 : src
  const kept = getFlags(src)
  if (openSrc < 0) close(src)
  if (kept < 0) return hasNoFlags(kept) ? 0 : kept
  if ((kept & COPIED_FLAGS) === 0) return 0
  const dst = dstName === '' ? dstFd : openat(dstFd, dstName, O_RDONLY | O_NONBLOCK)
  if (dst < 0) return dst
  // The flags are added to those of the new file: some file systems reject the removal of a flag.
  const own = getFlags(dst)
  const result = own < 0 ? own : setFlags(dst, own | (kept & COPIED_FLAGS))
  if (dst !== dstFd) close(dst)
  return hasNoFlags(result) ? 0 : result
}

/** The file system has no inode flags, or not these. */
const hasNoFlags = (result: Result): boolean =>
  result === -E.ENOTTY || result === -E.EINVAL || result === -E.EOPNOTSUPP || result === -E.ENOSYS

/** The name that an xattr of a lower layer gets in the upper one; '' if it is not copied. */
function upperXattrName(u: CopyUpContext, layer: Layer, attr: ByteString): ByteString {
  const { xattrs } = layer
  // The copy of a `.wh.` name that is no whiteout stays no whiteout.
  if (attr === xattrs.names.ordinary) return u.xattrs.names.ordinary
  if (xattrs.isPrivate(attr)) return ''
  const visible = xattrs.unescape(u.override ? visibleName(layer, attr) : attr)
  if (visible === '') return ''
  return u.xattrs.escape(u.override ? storedName(u.upper, visible) : visible)
}

const setXattr = (fd: number, name: ByteString, attr: ByteString, value: Uint8Array): Result =>
  name === '' ? fsetxattr(fd, attr, value, 0) : setxattrat(fd, name, attr, value, 0)

/** Writes `overlay.protattr` (kernel: ovl_set_protattr). */
export function saveProtect(
  u: CopyUpContext,
  fd: number,
  name: ByteString,
  protect: number,
): Result {
  const value =
    ((protect & Protect.APPEND) !== 0 ? 'a' : '') + ((protect & Protect.IMMUTABLE) !== 0 ? 'i' : '')
  if (value !== '') return u.xattrs.set(fd, name, 'protattr', value)
  const result = removexattrat(fd, name, u.xattrs.names.protattr)
  return result === -E.ENODATA ? 0 : result
}

function copyXattrs(u: CopyUpContext, { layer, srcFd, srcName, dstFd, dstName }: Copy): Result {
  const names = listxattrNames(srcFd, srcName)
  if (typeof names === 'number') return names === -E.EOPNOTSUPP ? 0 : names
  for (const attr of names) {
    const stored = upperXattrName(u, layer, attr)
    if (stored === '') continue
    // In the upper layer the value would count as written by the mounter.
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
    const result = setXattr(dstFd, dstName, stored, kept)
    if (result >= 0) continue
    // Kernel: ovl_must_copy_xattr(). An xattr that grants or restricts access must be copied; any
    // other may be lost.
    const must = attr === ACL_ACCESS || attr === ACL_DEFAULT || attr.startsWith('security.')
    if (result !== -E.EOPNOTSUPP || must) return result
  }
  return 0
}
