/**
 * Under which names a union has its marks: `trusted.` or `user.`, with the kernel's `overlay.` or
 * with `tsoverlay.`, where an upper layer does not keep the former. Another union below may take
 * them and keep them to itself.
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
  /** Of what is written. */
  infix: XattrInfix
}

/**
 * Whether the root of a layer says that its marks are in this program's own space. A layer never
 * has both: the root of an upper layer that begins with it is marked at once (workdir.ts), and goes
 * on with it wherever it is.
 */
const usesOwnInfix = (layer: Layer, userPrefix: boolean): boolean => {
  const value = new OverlayXattrs(userPrefix, null, 'tsoverlay.').value(layer.fd, '', 'opaque')
  if (typeof value === 'number' && isPassing(value)) throw rootError(layer, value)
  return value === 'x'
}

/**
 * Of itself `user.` is taken where `trusted.` is refused: that belongs to CAP_SYS_ADMIN in the
 * initial user namespace.
 *
 * @param base the work directory, or -1 for a union that writes nothing
 * @throws {MountError} where that can't be found out now
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
  // Only root can have written that.
  if (auto && kept(false) === 'tsoverlay.') return { userPrefix: false, infix: 'tsoverlay.' }
  const byRights = auto ? !hasCap(CAP_SYS_ADMIN) || !inInitialNamespace() : userxattr
  if (base < 0) return { userPrefix: byRights, infix: kept(byRights) }
  for (const space of INFIXES)
    for (const userPrefix of auto ? [false, true] : [userxattr]) {
      const can = new OverlayXattrs(userPrefix, null, space).canSet(base)
      if (can < 0) throw workdirError(options.work, can)
      if (can > 0)
        return { userPrefix, infix: kept(userPrefix) === 'overlay.' ? space : 'tsoverlay.' }
    }
  return { userPrefix: userxattr === true, infix: kept(userxattr === true) }
}

/** Whoever mounted an upper layer with the other prefix has hidden things with it. */
export function warnOfUserXattrs({ fd, path, xattrs }: Layer, log: Logger): void {
  if (!xattrs.isTrusted || xattrs.read(fd, '', false) !== 0) return
  for (const space of INFIXES) {
    const others = new OverlayXattrs(true, null, space)
    if (others.read(fd, '', false) > 0)
      log.warn(
        { upperdir: path },
        `the upper layer bears ${others.names.prefix} attributes, which are not read: what they hide may show; mount it with userxattr`,
      )
  }
}

/**
 * Gives each layer the reader of its marks.
 *
 * @returns that of what is written
 */
export function assignXattrNames(
  { userPrefix, infix }: XattrNameChoice,
  upper: Layer | null,
  lowers: Layer[],
  log: Logger,
): OverlayXattrs {
  let told = false
  const skipped = (): void => {
    if (told) return
    told = true
    log.warn(
      {},
      'a lower layer hides names with user. attributes, which anybody may write who may write there: they are not read, so what they hide shows; mount it with userxattr, or convert the layer',
    )
  }
  const readers = {
    'overlay.': new OverlayXattrs(userPrefix, skipped),
    'tsoverlay.': new OverlayXattrs(userPrefix, skipped, 'tsoverlay.'),
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
