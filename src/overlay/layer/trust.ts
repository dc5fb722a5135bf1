/**
 * Decides whether to trust the xattrs that lead into lower layers: the redirect xattr and the
 * metacopy xattr. A user that can write them leads the union past the permissions of the
 * directories on the way. `trusted.` xattrs require CAP_SYS_ADMIN. `user.` xattrs can be set by
 * every user with write access to the object. Kernel overlayfs follows none of the latter
 * (params.c:ovl_fs_params_verify). docs/SECURITY.md has the whole rule.
 */

import { openat, statxat } from '../../sys/at.js'
import {
  CAP_DAC_OVERRIDE,
  CAP_DAC_READ_SEARCH,
  CAP_FOWNER,
  CAP_SYS_ADMIN,
  O_NOATIME,
  O_NONBLOCK,
  O_RDONLY,
  S_IFDIR,
  S_IFMT,
  S_IFREG,
} from '../../sys/constants.js'
import { close } from '../../sys/io.js'
import { geteuid, hasCap, inInitialNamespace } from '../../sys/proc.js'
import { Stat } from '../../sys/stat.js'
import type { ByteString } from '../ops.js'

/**
 * `all`: the authors could do the same without the xattrs, or gain nothing. `own`: only the xattrs
 * of objects that belong to the mounter are trusted. `none`: no xattr is trusted.
 */
export type Trust = 'all' | 'own' | 'none'

/**
 * Whether this process has more rights than an ordinary user of the whole system. Other users would
 * profit from every xattr that it trusts.
 */
export const isSystemRoot = (): boolean =>
  inInitialNamespace() &&
  (geteuid() === 0 ||
    [CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_SYS_ADMIN].some(cap => hasCap(cap)))

/**
 * @param userPrefix the overlay xattrs have the prefix `user.`
 * @param shared users other than the mounter may use the mount (allow_other)
 */
export function trustFor(userPrefix: boolean, shared: boolean): Trust {
  if (!userPrefix) return 'all'
  if (isSystemRoot()) return 'none'
  return shared ? 'own' : 'all'
}

const st = new Stat()
const STICKY = 0o1000
const OTHERS_WRITE = 0o022

/**
 * Whether to trust the redirect or metacopy xattr of (fd, name). '' means the object that `fd`
 * refers to.
 */
export function trusts(trust: Trust, fd: number, name: ByteString): boolean {
  return trust === 'all' || (trust === 'own' && onlyMounterWrites(fd, name))
}

/**
 * Whether only the mounter could have set a `user.` xattr. In a user namespace, its root owns the
 * objects of all mapped users, so they all count as the mounter's.
 */
function onlyMounterWrites(fd: number, name: ByteString): boolean {
  if (statxat(fd, name, st) < 0) return false
  const type = st.mode & S_IFMT
  if (type !== S_IFREG && type !== S_IFDIR) return false
  if (inInitialNamespace()) return st.uid === geteuid() && !othersWrite(st)
  if (st.uid === geteuid()) return true
  if (!hasCap(CAP_FOWNER)) return false
  // stat(2) shows an unmapped owner as the overflow id, which may be mapped as well. O_NOATIME
  // distinguishes them: the kernel allows it only if it knows the owner (inode_owner_or_capable).
  const own = openat(fd, name || '.', O_RDONLY | O_NOATIME | O_NONBLOCK)
  if (own < 0) return false
  close(own)
  return true
}

/**
 * Whether users other than the owner may write to an object, and so may set its `user.` xattrs. On
 * a directory with the sticky bit only the owner may do so (fs/xattr.c:xattr_permission). The group
 * bits of the mode include the mask of an ACL.
 */
export const othersWrite = ({ mode }: Pick<Stat, 'mode'>): boolean =>
  (mode & OTHERS_WRITE) !== 0 && ((mode & S_IFMT) !== S_IFDIR || (mode & STICKY) === 0)
