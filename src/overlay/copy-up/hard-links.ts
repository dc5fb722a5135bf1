/**
 * The names of a copied-up file that has several, and its link count in `workdir/index`. Analogous
 * to the hard link parts of fs/overlayfs/copy_up.c and util.c.
 */

import { linkat, statxat } from '../../sys/at.js'
import { Stat } from '../../sys/stat.js'
import { ensureUpperDir } from './directory.js'
import type { Link } from '../inode/links.js'
import { setNlinkMark } from './nlink.js'
import type { Node } from '../inode/node.js'
import type { ByteString, Result } from '../ops.js'
import { publish } from './publish.js'
import { locate, Place, type Union } from '../union.js'

const st = new Stat()

/**
 * Gives the names that are known their place too. A request tells the inode, not the name that was
 * used: whoever takes the upper layer for itself (a commit, a diff) must find the change under that
 * name as well. A name that cannot be linked keeps its lower file, which only the index then leads
 * past.
 *
 * @returns how many were linked; -errno if none of several was
 */
export function linkNames(u: Union, node: Node, fd: number, real: ByteString): Result {
  let count = 0
  let failure = 0
  // Those that get their place change it in the chain, too.
  for (const link of Array.from(node.links ?? [])) {
    if (link.inUpper) continue
    const result = linkName(u, node, fd, real, link)
    if (result >= 0) count++
    else {
      failure = result
      u.log.warn({ errno: -result }, 'a hard link stays behind in a lower layer')
    }
  }
  return count === 0 ? failure : count
}

function linkName(u: Union, node: Node, fd: number, real: ByteString, link: Link): Result {
  let result = ensureUpperDir(u, link.parent)
  if (result < 0) return result
  result = publish(u, link.parent, link.name, linkat, fd, real)
  if (result < 0) return result
  node.links?.setInUpper(link)
  return 0
}

/**
 * Makes sure that this name of a copied-up node is in the upper layer too, not only another of its
 * names (kernel: ovl_link_up).
 */
export function ensureUpperName(u: Union, node: Node, parent: Node, name: ByteString): Result {
  const work = u.work
  if (node.links === null || work === null) return 0
  const link = node.links.get(parent, name)
  if (link === undefined || link.inUpper) return 0
  const place = new Place()
  let result = countByLower(u, node)
  if (result >= 0) result = locate(u, node, place)
  if (result < 0) return result
  result = linkName(u, node, place.fd, place.name, link)
  if (result < 0) return result
  node.nlinkAdjust--
  settleNlink(u, node)
  return 0
}

/**
 * Has the index say the union's link count by that of the lower inode: the upper one gets a name
 * that is none more in the union.
 */
function countByLower(u: Union, node: Node): Result {
  const { lowerDir, indexKey } = node
  if (indexKey === null || u.work === null || lowerDir === null) return 0
  let result = statxat(u.work.indexFd, indexKey, st)
  if (result < 0) return result
  const links = st.nlink + node.nlinkAdjust
  const fd = u.fds.get(lowerDir)
  result = fd < 0 ? fd : statxat(fd, node.lowerName, st)
  return result < 0 ? result : setNlinkMark(u, u.work.indexFd, indexKey, 'L', links - st.nlink)
}

/**
 * Has the index say the union's link count by that of the upper inode. To be called before that one
 * gets or loses a name, and the union with it (kernel: ovl_nlink_start).
 */
export function startNlink(u: Union, node: Node): Result {
  if (node.indexKey === null || u.work === null) return 0
  return setNlinkMark(u, u.work.indexFd, node.indexKey, 'U', node.nlinkAdjust)
}

/**
 * The same after names were linked (kernel: ovl_link_up). What was said before is right, too, for
 * who finds the lower inode.
 */
export function settleNlink(u: Union, node: Node): void {
  const result = startNlink(u, node)
  if (result < 0) u.log.debug({ errno: -result }, 'best effort: a link count stays relative')
}
