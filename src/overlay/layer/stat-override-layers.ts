/** Finds the layers that have stat overrides (stat-override.ts), when the layers are opened. */

import { fstatx } from '../../sys/at.js'
import { E, errnoMessage, errnoName } from '../../sys/errno.js'
import { Stat } from '../../sys/stat.js'
import { getxattrValue, setxattrat } from '../../sys/xattr.js'
import { MountError } from '../../errors.js'
import type { Layer } from './layer.js'
import type { ByteString } from '../ops.js'
import type { XattrPermissions } from '../options.js'
import {
  CONTAINERS_STAT,
  formatOverride,
  hasCredibleOverride,
  LEGACY_STAT,
  PRIVILEGED_STAT,
  STAT_NAMES,
} from './stat-override.js'
import { isSystemRoot } from './trust.js'

const has = (layer: Layer, name: ByteString): boolean =>
  typeof getxattrValue(layer.fd, '', name) !== 'number'

function setOverride(layer: Layer, name: ByteString): void {
  layer.override = name
  layer.checksOverrides = name !== '' && name !== PRIVILEGED_STAT && isSystemRoot()
}

/**
 * A lower layer has stat overrides only if its root has one. Otherwise every owner of a file could
 * write an effective override.
 */
export function findOverrides(lowers: readonly Layer[]): void {
  for (const layer of lowers) setOverride(layer, STAT_NAMES.find(name => has(layer, name)) ?? '')
}

/**
 * The upper layer always has stat overrides. Its root gets the override of the topmost lower layer
 * that has any, or an override with the inode's attributes. A later mount recognises the layer by
 * it.
 *
 * @throws {MountError} if the xattr can't be written
 */
export function prepareUpperOverride(
  upper: Layer,
  lowers: readonly Layer[],
  level: XattrPermissions,
  writable: boolean,
): void {
  setOverride(upper, upperOverrideName(upper, level))
  if (!writable || has(upper, upper.override)) return
  const lower = lowers.find(
    layer => layer.override !== '' && hasCredibleOverride(layer, layer.fd, ''),
  )
  const given = lower === undefined ? -E.ENODATA : getxattrValue(lower.fd, '', lower.override)
  const value = typeof given === 'number' ? Buffer.from(inodeValue(upper), 'latin1') : given
  const result = setxattrat(upper.fd, '', upper.override, value, 0)
  if (result >= 0) return
  const remedy =
    level === 1 ? 'it takes CAP_SYS_ADMIN on its file system; try xattr_permissions=2' : ''
  throw new MountError(
    `xattr_permissions=${level}: ${upper.override} can't be written on upperdir=${upper.path}: ${errnoMessage(-result)}; ${
      remedy || 'choose a directory on a file system with user attributes'
    }`,
    { option: 'xattr_permissions', path: upper.path, code: errnoName(-result) },
  )
}

function upperOverrideName(upper: Layer, level: XattrPermissions): ByteString {
  if (level === 1) return PRIVILEGED_STAT
  return !has(upper, CONTAINERS_STAT) && has(upper, LEGACY_STAT) ? LEGACY_STAT : CONTAINERS_STAT
}

function inodeValue(upper: Layer): string {
  const st = new Stat()
  const stated = fstatx(upper.fd, st)
  if (stated < 0)
    throw new MountError(`upperdir=${upper.path} can't be read: ${errnoMessage(-stated)}`, {
      option: 'upperdir',
      path: upper.path,
      code: errnoName(-stated),
    })
  return formatOverride(st.uid, st.gid, st.mode, 0, 0)
}
