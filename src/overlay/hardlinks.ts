/**
 * The names of a copied-up file that has several, and its link count in `workdir/index`. Analogous to
 * the hard link parts of fs/overlayfs/copy_up.c and util.c.
 */

import { linkat } from '../sys/at.js'
import { E } from '../sys/errno.js'
import { ensureUpperDir } from './copyup-folder.js'
import type { Node } from './node.js'
import type { ByteString, Result } from './ops.js'
import { publish } from './publish.js'
import { locate, Place, type Union } from './union.js'

/**
 * Gives the names that are known their place too. A request tells the inode, not the name that was
 * used: whoever takes the upper layer for itself (a commit, a diff) must find the change under that name
 * as well. A name that cannot be linked keeps its lower file, which only the index then leads past.
 *
 * @param first of `node.links`: those before have their place
 * @returns how many were linked; -errno if none of several was
 */
export function linkNames(
  u: Union,
  node: Node,
  fd: number,
  real: ByteString,
  first: number,
): Result {
  let count = 0
  let failure = 0
  for (let i = first; i < (node.links?.length ?? 0); i++) {
    const result = linkName(u, node, fd, real, i)
    if (result >= 0) count++
    else {
      failure = result
      u.log.warn({ errno: -result }, 'a hard link stays behind in a lower layer')
    }
  }
  return count === 0 ? failure : count
}

function linkName(u: Union, node: Node, fd: number, real: ByteString, i: number): Result {
  const link = node.links?.[i]
  if (link === undefined) return -E.ENOENT
  let result = ensureUpperDir(u, link.parent)
  if (result < 0) return result
  const into = link.parent.upperDir
  if (into === null) return -E.EIO
  result = publish(u, into, link.name, linkat, fd, real)
  if (result < 0) return result
  link.inUpper = true
  return 0
}

/**
 * Makes sure that this name of a copied-up node is in the upper layer too, not only another of its
 * names.
 */
export function ensureUpperName(u: Union, node: Node, parent: Node, name: ByteString): Result {
  const work = u.work
  if (node.links === null || work === null) return 0
  const at = node.links.findIndex(link => link.parent === parent && link.name === name)
  const link = node.links[at]
  if (link === undefined || link.inUpper) return 0
  const place = new Place()
  let result = locate(u, node, place)
  if (result < 0) return result
  result = linkName(u, node, place.fd, place.name, at)
  if (result < 0) return result
  node.nlinkAdjust--
  return saveNlink(u, node)
}

/** Writes the union's link count to the index inode, relative to its own (kernel: `U+n`). */
export function saveNlink(u: Union, node: Node): Result {
  if (node.indexKey === null || u.work === null) return 0
  return setNlinkMark(u, u.work.indexFd, node.indexKey, node.nlinkAdjust)
}

export function setNlinkMark(u: Union, fd: number, name: ByteString, adjust: number): Result {
  return u.marks.set(fd, name, 'nlink', `U${adjust < 0 ? '' : '+'}${adjust}`)
}
