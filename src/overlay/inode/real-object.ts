/** Finds the real object of a node and its attributes. */

import type { Place } from './place.js'
import { statxat } from '../../sys/at.js'
import { E } from '../../sys/errno.js'
import type { Stat } from '../../sys/stat.js'
import type { Layer } from '../layer/layer.js'
import { identify, upperKey } from '../layer/real-identity.js'
import { applyOverride } from '../layer/stat-override.js'
import type { ByteString, Result } from '../ops.js'
import type { InodeContext } from './context.js'
import type { Node } from './node.js'

/**
 * Fills `place` with the location of the node's real object.
 *
 * @returns 0 or -errno; -ENOENT if no name and no descriptor leads to the object
 */
export function locate(u: InodeContext, node: Node, place: Place): Result {
  if (node.orphanFd >= 0) return set(place, node.orphanFd, '')
  if (node.isDir) {
    const top = node.dirs[0]
    return top === undefined ? -E.ENOENT : set(place, u.fds.get(top), '')
  }
  if (!node.upper) {
    if (node.lowerDir === null) return -E.ENOENT
    return set(place, u.fds.get(node.lowerDir), node.lowerName)
  }
  if (node.links !== null) {
    const link = node.links.first
    const dir = link?.inUpper === true ? link.parent.upperDir : null
    if (link !== null && dir !== null) return set(place, u.fds.get(dir), link.name)
    if (node.indexKey !== null && u.workdir !== null)
      return set(place, u.workdir.indexFd, node.indexKey)
    return -E.ENOENT
  }
  const dir = node.parent?.upperDir
  return dir === undefined || dir === null ? -E.ENOENT : set(place, u.fds.get(dir), node.name)
}

function set(place: Place, fd: number, name: ByteString): Result {
  place.fd = fd
  place.name = name
  return fd < 0 ? fd : 0
}

/** Stats the node's real object into `st`. */
export function statNode(u: InodeContext, node: Node, st: Stat): Result {
  const place = u.place
  const result = locate(u, node, place)
  return result < 0 ? result : statAt(u, node, place, st)
}

/** As `statNode`, for a known location. */
export function statAt(u: InodeContext, node: Node, place: Place, st: Stat): Result {
  const stated = statxat(place.fd, place.name, st)
  if (stated < 0 || !u.appliesOverrides) return stated
  return applyOverride(layerOf(u, node), place.fd, place.name, st)
}

/** The layer that contains the node's real object. */
export function layerOf(u: InodeContext, node: Node): Layer | null {
  if (node.isDir) return node.dirs[0]?.layer ?? null
  return node.upper ? u.upper : (node.lowerDir?.layer ?? null)
}

/**
 * Updates the identity of a node whose object the union has just changed. `st` holds the attributes
 * of the object. If the upper layer lies in another union, that union may have copied the object up
 * and given it another inode number. It is still the same object.
 */
export function identifyAgain(u: InodeContext, node: Node, st: Stat): void {
  const layer = u.upper
  const it = node.isDir ? node.upperDir : node
  if (layer === null || layer.keepsBirthTimes || !node.upper || it === null || it.real === 0) return
  identify(it, st, layer)
  if (node.upperKey !== null) u.nodes.registerUpper(node, upperKey(st, layer))
}
