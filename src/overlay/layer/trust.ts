/**
 * Whether a mark is believed that says where to go on in lower layers: `overlay.redirect` and
 * `overlay.metacopy`. Who writes one leads the union past the permissions of the directories on the
 * way. `trusted.` attributes take CAP_SYS_ADMIN; `user.` ones can be set by whoever may write to
 * the object. Kernel overlayfs follows none of those (params.c:ovl_fs_params_verify). SEMANTICS.md
 * has the whole rule.
 */

import { openat, statxat, fstatx } from '../../sys/at.js'
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
 * Whose `redirect` and `metacopy` are believed. `all`: whoever wrote them could do as much without,
 * or gains nothing. `own`: those of objects that belong to the mounter. `none`.
 */
export type Trust = 'all' | 'own' | 'none'

/**
 * Whether this process may do more than an ordinary user of the whole system: what it believes, it
 * does for others.
 */
export const isSystemRoot = (): boolean =>
  inInitialNamespace() &&
  (geteuid() === 0 ||
    [CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_SYS_ADMIN].some(cap => hasCap(cap)))

/**
 * @param userPrefix marks have the prefix `user.`
 * @param shared others than the mounter may use the mount (allow_other)
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
 * Whether a redirect or a metadata copy is believed that (fd, name) says; '' is what `fd` itself
 * refers to.
 */
export function trusts(trust: Trust, fd: number, name: ByteString): boolean {
  return trust === 'all' || (trust === 'own' && onlyMounterWrites(fd, name))
}

/**
 * Whether nobody but the mounter could have set a `user.` attribute. In a user namespace its root
 * is the owner of what belongs to any of its users: all of them are his.
 */
function onlyMounterWrites(fd: number, name: ByteString): boolean {
  if ((name === '' ? fstatx(fd, st) : statxat(fd, name, st)) < 0) return false
  const type = st.mode & S_IFMT
  if (type !== S_IFREG && type !== S_IFDIR) return false
  if (inInitialNamespace()) return st.uid === geteuid() && !othersWrite(st)
  if (st.uid === geteuid()) return true
  if (!hasCap(CAP_FOWNER)) return false
  // An owner that the namespace does not know is shown as one that it may know: the kernel tells
  // them apart here.
  const own = openat(fd, name || '.', O_RDONLY | O_NOATIME | O_NONBLOCK)
  if (own < 0) return false
  close(own)
  return true
}

/**
 * Whether others than the owner may write to an object, and so set `user.` attributes of it: of a
 * directory with the sticky bit only the owner may (fs/xattr.c:xattr_permission). An ACL shows in
 * the bits of the group.
 */
export const othersWrite = ({ mode }: Pick<Stat, 'mode'>): boolean =>
  (mode & OTHERS_WRITE) !== 0 && ((mode & S_IFMT) !== S_IFDIR || (mode & STICKY) === 0)
