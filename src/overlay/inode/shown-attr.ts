/** Attributes of an inode as the union shows them. */

import type { Stat } from '../../sys/stat.js'
import { UNREAD_MAX, type Attr } from '../ops.js'
import type { InodeContext } from './context.js'
import type { Node } from './node.js'

/**
 * The union's link count. A merged directory says 1, the real one's count for any other (kernel:
 * ovl_getattr); a removed one 0.
 */
export function shownNlink(node: Node, st: Stat): number {
  if (node.isDir) return node.unlinked ? 0 : node.dirs.length > 1 ? 1 : st.nlink
  return Math.max(0, st.nlink + node.nlinkAdjust)
}

/** The owner that is shown of a real object: callers are known by such ids. */
export function shownUid(u: Pick<InodeContext, 'idmap'>, st: Stat): number {
  return u.idmap === null ? st.uid : u.idmap.uids.toShown(st.uid)
}

/** The group, likewise. */
export function shownGid(u: Pick<InodeContext, 'idmap'>, st: Stat): number {
  return u.idmap === null ? st.gid : u.idmap.gids.toShown(st.gid)
}

/** Attributes as the union shows them. */
export function fillAttr(u: Pick<InodeContext, 'idmap'>, node: Node, st: Stat, out: Attr): void {
  out.copyFrom(st)
  out.ino = node.ino
  out.nlink = shownNlink(node, st)
  if (u.idmap !== null) {
    out.uid = u.idmap.uids.toShown(st.uid)
    out.gid = u.idmap.gids.toShown(st.gid)
  }
  if (node.unread >= 0) node.unread = Math.min(st.size, UNREAD_MAX)
}
