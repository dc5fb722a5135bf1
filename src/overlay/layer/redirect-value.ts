/** Reads and validates the redirect xattr. Only a valid value may be used as names in a layer. */

import { E } from '../../sys/errno.js'
import type { Layer } from './layer.js'
import type { ByteString, Result } from '../ops.js'
import { trusts } from './trust.js'
import type { LayerContext } from './context.js'

/**
 * Whether the value is a single name or an absolute path (kernel: ovl_get_redirect_xattr, and the
 * names that its lookup refuses).
 *
 * @returns 0, -EINVAL, or -EACCES for `.` and `..`
 */
export function checkRedirect(value: ByteString): Result {
  const [first, ...rest] = value.split('/')
  const names = first === '' ? rest : [first, ...rest]
  if ((first !== '' && rest.length > 0) || names.length === 0) return -E.EINVAL
  // A system call reads a name up to the first NUL.
  if (names.includes('') || value.includes('\0')) return -E.EINVAL
  return names.includes('.') || names.includes('..') ? -E.EACCES : 0
}

/**
 * The redirect of (fd, name), '' if there is none.
 *
 * @returns -EINVAL or -EACCES if the value is neither a name nor a path; -EPERM if the redirect
 *   must not be followed
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
  // The kernel reads the value up to the first NUL.
  const [value = ''] = raw.split('\0', 1)
  const checked = checkRedirect(value)
  if (checked === -E.EINVAL) return checked
  if (u.options.redirectDir === 'nofollow' || !trusts(u.trust, fd, name)) {
    u.log.debug({ name }, 'refusing to follow a redirect')
    return -E.EPERM
  }
  return checked < 0 ? checked : value
}
