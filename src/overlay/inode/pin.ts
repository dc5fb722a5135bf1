/**
 * Pins the real object of a node while it is changed, so that another object can't take its place.
 */

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
/**
 * The sticky bit does not matter: a user that owns a name can replace it by an object from
 * elsewhere.
 */
const OTHERS_WRITE = 0o022

/**
 * As `locate`, for a change of the object: `place` refers to exactly the object that the node
 * stands for, even if its name changes. The caller must call `unpin`.
 *
 * @returns 0, or -errno without anything to unpin: -ESTALE if another object has the name
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
 * As `pin`, for reading only. Where other users can't give the name to another object, the object
 * is not checked.
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

/** Opens the object and makes `place` refer to the descriptor. */
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
 * Whether only root and the mounter can change names in the directory. No descriptor is needed
 * then.
 */
const isGuarded = (fd: number): boolean =>
  fstatx(fd, st) >= 0 && (st.mode & OTHERS_WRITE) === 0 && (st.uid === 0 || st.uid === geteuid())
