/**
 * Hard links of a copied-up file, and its link count in `workdir/index`. Mirrors the hard link
 * parts of fs/overlayfs/copy_up.c and util.c.
 */

import { linkat, statxat } from '../../sys/at.js'
import { Stat } from '../../sys/stat.js'
import { ensureUpperDir } from './directory.js'
import { setNlinkXattr } from './nlink.js'
import type { Node, NodeLink } from '../inode/node.js'
import type { ByteString, Result } from '../ops.js'
import { publish } from './publish.js'
import { Place } from '../inode/place.js'
import { locate } from '../inode/real-object.js'
import type { CopyUpContext } from './context.js'

const st = new Stat()

/**
 * Links the copy under the names that the union has looked up. A FUSE request names the inode, not
 * the name that the caller used. A tool that reads only the upper layer (a commit, a diff) must
 * find the change under that name too. A name that cannot be linked keeps its lower file; only the
 * index leads from there to the copy.
 *
 * @returns the number of names linked; -errno if every attempt failed
 */
export function linkNames(u: CopyUpContext, node: Node, fd: number, real: ByteString): Result {
  let count = 0
  let failure = 0
  // A name that is linked moves within the list during the iteration.
  for (const link of Array.from(node.links ?? [])) {
    if (link.inUpper) continue
    const result = linkName(u, node, fd, real, link)
    if (result >= 0) count++
    else {
      failure = result
      u.log.warn({ errno: -result }, 'cannot link a copied-up file under another of its names')
    }
  }
  return count === 0 ? failure : count
}

function linkName(
  u: CopyUpContext,
  node: Node,
  fd: number,
  real: ByteString,
  link: NodeLink,
): Result {
  let result = ensureUpperDir(u, link.parent)
  if (result < 0) return result
  result = publish(u, link.parent, link.name, linkat, fd, real)
  if (result < 0) return result
  node.links?.setInUpper(link)
  return 0
}

/**
 * Makes sure that the upper layer has this name of a copied-up node, not only another of its names
 * (kernel: ovl_link_up).
 */
export function ensureUpperName(
  u: CopyUpContext,
  node: Node,
  parent: Node,
  name: ByteString,
): Result {
  const workdir = u.workdir
  if (node.links === null || workdir === null) return 0
  const link = node.links.get(parent, name)
  if (link === undefined || link.inUpper) return 0
  const place = new Place()
  let result = storeLowerNlink(u, node)
  if (result >= 0) result = locate(u, node, place)
  if (result < 0) return result
  result = linkName(u, node, place.fd, place.name, link)
  if (result < 0) return result
  node.nlinkAdjust--
  tryStoreUpperNlink(u, node)
  return 0
}

/**
 * Stores the union's link count relative to that of the lower inode. The upper inode is about to
 * get a name that the union already has.
 */
function storeLowerNlink(u: CopyUpContext, node: Node): Result {
  const { lowerDir, indexKey } = node
  if (indexKey === null || u.workdir === null || lowerDir === null) return 0
  let result = statxat(u.workdir.indexFd, indexKey, st)
  if (result < 0) return result
  const links = st.nlink + node.nlinkAdjust
  const fd = u.fds.get(lowerDir)
  result = fd < 0 ? fd : statxat(fd, node.lowerName, st)
  return result < 0 ? result : setNlinkXattr(u, u.workdir.indexFd, indexKey, 'L', links - st.nlink)
}

/**
 * Stores the union's link count relative to that of the upper inode. Called before the upper inode
 * and the union both gain or lose a name (kernel: ovl_nlink_start).
 */
export function storeUpperNlink(u: CopyUpContext, node: Node): Result {
  if (node.indexKey === null || u.workdir === null) return 0
  return setNlinkXattr(u, u.workdir.indexFd, node.indexKey, 'U', node.nlinkAdjust)
}

/**
 * As `storeUpperNlink`, after names were linked (kernel: ovl_link_up). A failure is only logged:
 * the count relative to the lower inode stays correct as long as the lower inode can be found.
 */
export function tryStoreUpperNlink(u: CopyUpContext, node: Node): void {
  const result = storeUpperNlink(u, node)
  if (result < 0)
    u.log.debug({ errno: -result }, 'best effort: a link count stays relative to the lower inode')
}
