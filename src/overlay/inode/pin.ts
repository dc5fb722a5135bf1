/** The object that a node stands for, and no other, for whoever changes it. */

import { fstatx, openat, statxat } from '../../sys/at.js'
import { O_PATH } from '../../sys/constants.js'
import { E } from '../../sys/errno.js'
import { close } from '../../sys/io.js'
import { geteuid } from '../../sys/proc.js'
import { Stat } from '../../sys/stat.js'
import { refersTo, isSame } from '../layer/real-identity.js'
import type { Node } from './node.js'
import type { Result } from '../ops.js'
import type { Place } from './place.js'
import { locate } from './real-object.js'
import type { InodeContext } from './context.js'

const st = new Stat()
/** Sticky or not: who owns one name can give it to what he takes from elsewhere. */
const OTHERS_WRITE = 0o022

/**
 * As `locate`, for whoever changes the object: the place is the very object that the node stands
 * for, whatever becomes of its name. The caller gives it to `unpin`.
 *
 * @returns 0 or -errno, and then there is nothing to unpin: -ESTALE where another object has the
 *   name
 */
export function pin(u: InodeContext, node: Node, place: Place): Result {
  const located = locate(u, node, place)
  if (located < 0 || place.name === '') return located
  if (isGuarded(place.fd)) {
    const stated = statxat(place.fd, place.name, st)
    return stated >= 0 && !isSame(node, st) ? -E.ESTALE : stated
  }
  return pinFd(u, node, place)
}

/**
 * The same for whoever only reads: where others can't have given the name to another object, it
 * need not be looked at.
 */
export function pinToRead(u: InodeContext, node: Node, place: Place): Result {
  const located = locate(u, node, place)
  if (located < 0 || place.name === '' || isGuarded(place.fd)) return located
  return pinFd(u, node, place)
}

export function unpin(place: Place): void {
  if (place.pinned) close(place.fd)
  place.pinned = false
}

/** Makes a descriptor of the object the place. */
function pinFd(u: InodeContext, node: Node, place: Place): Result {
  let fd = openat(place.fd, place.name, O_PATH)
  if (fd === -E.EMFILE || fd === -E.ENFILE) {
    u.fds.shrink()
    if (locate(u, node, place) >= 0) fd = openat(place.fd, place.name, O_PATH)
  }
  if (fd < 0) return fd
  if (!refersTo(fd, node)) {
    close(fd)
    return -E.ESTALE
  }
  place.fd = fd
  place.name = ''
  place.pinned = true
  return 0
}

/**
 * Whether names in a directory are changed by root and the mounter alone: that spares a descriptor.
 */
const isGuarded = (fd: number): boolean =>
  fstatx(fd, st) >= 0 && (st.mode & OTHERS_WRITE) === 0 && (st.uid === 0 || st.uid === geteuid())
