/**
 * What `overlay.redirect` of an object says, checked: nothing else may get where names of layers
 * are expected.
 */

import { E } from '../../sys/errno.js'
import type { Layer } from './layer.js'
import type { ByteString, Result } from '../ops.js'
import { trusts } from './trust.js'
import type { LayerContext } from './context.js'

/**
 * Whether it is a name or an absolute path of names (kernel: ovl_get_redirect_xattr, and what its
 * lookup refuses).
 *
 * @returns 0, -EINVAL, or -EACCES for `.` and `..`
 */
export function checkRedirect(value: ByteString): Result {
  const [first, ...rest] = value.split('/')
  const names = first === '' ? rest : [first, ...rest]
  if ((first !== '' && rest.length > 0) || names.length === 0) return -E.EINVAL
  // A system call that is told a name takes what is before a NUL.
  if (names.includes('') || value.includes('\0')) return -E.EINVAL
  return names.includes('.') || names.includes('..') ? -E.EACCES : 0
}

/**
 * The redirect of (fd, name), '' for none.
 *
 * @returns -EINVAL or -EACCES for one that is no name and no path; -EPERM for one that is not to be
 *   followed
 */
export function readRedirect(
  u: LayerContext,
  layer: Layer,
  fd: number,
  name: ByteString,
): ByteString | Result {
  const raw = layer.xattrs.value(fd, name, 'redirect', !layer.isUpper)
  if (typeof raw === 'number') return raw
  if (raw === null) return ''
  // To the kernel a NUL ends it.
  const [value = ''] = raw.split('\0', 1)
  const checked = checkRedirect(value)
  if (checked === -E.EINVAL) return checked
  if (u.options.redirectDir === 'nofollow' || !trusts(u.trust, fd, name)) {
    u.log.debug({ name }, 'refusing to follow a redirect')
    return -E.EPERM
  }
  return checked < 0 ? checked : value
}
