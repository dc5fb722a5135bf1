/** The attributes of an inode as callers see them. */

import type { Stat } from '../../sys/stat.js'
import { UNREAD_MAX, type Attr } from '../ops.js'
import type { InodeContext } from './context.js'
import type { Node } from './node.js'

/**
 * The link count. A merged directory has 1, any other directory its real count, a removed directory
 * 0 (kernel: ovl_getattr).
 */
export function shownNlink(node: Node, st: Stat): number {
  if (node.isDir) return node.unlinked ? 0 : node.dirs.length > 1 ? 1 : st.nlink
  return Math.max(0, st.nlink + node.nlinkAdjust)
}

/** The owner of a real object as callers see it. Callers are identified by such ids. */
export function shownUid(u: Pick<InodeContext, 'idmap'>, st: Stat): number {
  return u.idmap === null ? st.uid : u.idmap.uids.toShown(st.uid)
}

/** The group of a real object as callers see it. */
export function shownGid(u: Pick<InodeContext, 'idmap'>, st: Stat): number {
  return u.idmap === null ? st.gid : u.idmap.gids.toShown(st.gid)
}

/** Fills `out` with the attributes that callers see. */
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
