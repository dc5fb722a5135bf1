/**
 * Chooses the names of a union's overlay xattrs. The prefix is `trusted.` or `user.`. The infix is
 * the kernel's `overlay.`, or `tsoverlay.` if the file system of the upper layer does not keep the
 * former: another union below may interpret those xattrs and hide them.
 */

import { CAP_SYS_ADMIN } from '../../sys/constants.js'
import { hasCap, inInitialNamespace } from '../../sys/proc.js'
import { isPassing } from '../../sys/errno.js'
import type { Logger } from '../../log.js'
import type { Layer } from './layer.js'
import { OverlayXattrs, type XattrInfix } from './overlay-xattrs.js'
import type { UnionOptions } from '../options.js'
import { workdirError, rootError } from './refusals.js'

const INFIXES = ['overlay.', 'tsoverlay.'] as const

interface XattrNameChoice {
  userPrefix: boolean
  /** The infix of the xattrs that the union writes. */
  infix: XattrInfix
}

/**
 * Whether the opaque xattr of a layer's root has the infix `tsoverlay.`. A layer never has overlay
 * xattrs with both infixes. An upper layer that starts with `tsoverlay.` gets this xattr on its
 * root at once (open-union.ts). It keeps the infix, even on a file system that keeps the other
 * infix.
 */
const usesOwnInfix = (layer: Layer, userPrefix: boolean): boolean => {
  const value = new OverlayXattrs(userPrefix, null, 'tsoverlay.').value(layer.fd, '', 'opaque')
  if (typeof value === 'number' && isPassing(value)) throw rootError(layer, value)
  return value === 'x'
}

/**
 * With `userxattr: 'auto'`, `user.` is chosen if `trusted.` is refused. `trusted.` requires
 * CAP_SYS_ADMIN in the initial user namespace.
 *
 * @param base the directory given as the option `workdir`, or -1 for a union that writes nothing
 * @throws {MountError} if a temporary error prevents the choice
 */
export function chooseXattrNames(
  options: UnionOptions,
  base: number,
  upper: Layer | null,
): XattrNameChoice {
  const { userxattr } = options
  const auto = userxattr === 'auto'
  const kept = (userPrefix: boolean): XattrInfix =>
    upper !== null && usesOwnInfix(upper, userPrefix) ? 'tsoverlay.' : 'overlay.'
  // Only root can write this xattr.
  if (auto && kept(false) === 'tsoverlay.') return { userPrefix: false, infix: 'tsoverlay.' }
  const byRights = auto ? !hasCap(CAP_SYS_ADMIN) || !inInitialNamespace() : userxattr
  if (base < 0) return { userPrefix: byRights, infix: kept(byRights) }
  for (const infix of INFIXES)
    for (const userPrefix of auto ? [false, true] : [userxattr]) {
      const can = new OverlayXattrs(userPrefix, null, infix).canSet(base)
      if (can < 0) throw workdirError(options.work, can)
      if (can > 0)
        return { userPrefix, infix: kept(userPrefix) === 'overlay.' ? infix : 'tsoverlay.' }
    }
  return { userPrefix: userxattr === true, infix: kept(userxattr === true) }
}

/**
 * Warns if the root of the upper layer has `user.` overlay xattrs, but `trusted.` is the union's
 * prefix. An earlier mount with `userxattr` may have hidden names with them.
 */
export function warnOfUserXattrs({ fd, path, xattrs }: Layer, log: Logger): void {
  if (!xattrs.isTrusted || xattrs.read(fd, '', false) !== 0) return
  for (const infix of INFIXES) {
    const others = new OverlayXattrs(true, null, infix)
    if (others.read(fd, '', false) > 0)
      log.warn(
        { upperdir: path },
        `the upper layer has ${others.names.prefix} attributes, which are ignored: names that they hide may appear; mount it with userxattr`,
      )
  }
}

/**
 * Sets `xattrs` of each layer.
 *
 * @returns the names of the xattrs that the union writes
 */
export function assignXattrNames(
  { userPrefix, infix }: XattrNameChoice,
  upper: Layer | null,
  lowers: Layer[],
  log: Logger,
): OverlayXattrs {
  let warned = false
  const onIgnored = (): void => {
    if (warned) return
    warned = true
    log.warn(
      {},
      'a lower layer hides names with user. attributes, which any user with write access can set: they are ignored, and the names appear; mount it with userxattr, or convert the layer',
    )
  }
  const readers = {
    'overlay.': new OverlayXattrs(userPrefix, onIgnored),
    'tsoverlay.': new OverlayXattrs(userPrefix, onIgnored, 'tsoverlay.'),
  }
  for (const layer of lowers)
    layer.xattrs =
      readers[
        usesOwnInfix(layer, userPrefix) || usesOwnInfix(layer, false) ? 'tsoverlay.' : 'overlay.'
      ]
  const xattrs = readers[infix]
  if (upper !== null) upper.xattrs = xattrs
  return xattrs
}
