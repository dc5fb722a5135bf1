/**
 * Handles layers that another process changes beneath a mounted union. The kernel caches pages by
 * inode, and with write-back it also keeps the first size that it received. So a node stands for a
 * single version of a real file. If another process has changed or replaced the file, the next
 * lookup of the name returns another node. The kernel has no size and no pages of that node. Open
 * files continue to use the old node.
 *
 * The version is stored with every reply that contains attributes, and so before the kernel reads a
 * page that belongs to them. The union never changes a lower file, so any difference comes from
 * another process. The union does change upper files: their size and mtime count only while the
 * file is not open. With passthrough only the inode number counts, because the kernel caches no
 * pages of the FUSE inode.
 *
 * Without write-back the kernel accepts new sizes and then drops its pages (FUSE_AUTO_INVAL_DATA).
 * This also updates open files.
 */

import { S_IFLNK, S_IFREG } from '../../sys/constants.js'
import type { Stat } from '../../sys/stat.js'
import type { Node } from './node.js'
import type { ByteString } from '../ops.js'
import type { InodeContext } from './context.js'

/** `Node.version` of a node whose real file differs from the version in the last reply. */
export const CHANGED = -1

// Indices of words in struct statx.
const INO = 8
const SIZE = 10
const CTIME = 24
const MTIME = 28
const NSEC = 2

/** 30 bits, never 0. */
function hash(words: Uint32Array, data: boolean, change: boolean): number {
  let h = Math.imul(words[INO]!, 0x9e3779b1) ^ words[INO + 1]!
  if (data) {
    h = Math.imul(h ^ (h >>> 15), 0x85ebca6b) + words[SIZE]!
    h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35) + words[SIZE + 1]!
    h = Math.imul(h ^ (h >>> 15), 0x27d4eb2f) + words[MTIME]!
    h = Math.imul(h ^ (h >>> 13), 0x165667b1) + words[MTIME + NSEC]!
  }
  if (change) {
    h = Math.imul(h ^ (h >>> 15), 0x2c1b3c6d) + words[CTIME]!
    h = Math.imul(h ^ (h >>> 13), 0x297a2d39) + words[CTIME + NSEC]!
  }
  return (Math.imul(h ^ (h >>> 15), 0x85ebca6b) >>> 2) | 1
}

/**
 * Times do not count for objects without data or target. Normal use of FIFOs and sockets changes
 * them.
 */
function versionOf(u: InodeContext, node: Node, st: Stat): number {
  const hasData = node.type === S_IFREG || node.type === S_IFLNK
  return hash(st.words, hasData && (!node.upper || !u.passthrough), hasData && !node.upper)
}

/**
 * Whether the attributes in `st` belong to another file, or to another version, than the node
 * stands for.
 */
export function isOtherVersion(u: InodeContext, node: Node, st: Stat): boolean {
  const { version } = node
  return version !== 0 && (version === CHANGED || version !== versionOf(u, node, st))
}

/**
 * Stores the version of the attributes in `st`, which the reply contains. A directory has no
 * version.
 */
export function rememberVersion(u: InodeContext, node: Node, st: Stat): void {
  if (node.version !== 0) {
    if (isOtherVersion(u, node, st)) node.version = CHANGED
  } else if (!node.isDir && node.job === null && !changesUnseen(u, node))
    node.version = versionOf(u, node, st)
}

/** Called when the union itself changes the real file. */
export function forgetVersion(node: Node): void {
  if (node.version !== CHANGED) node.version = 0
}

/** Whether the union's own writes can change the fields of the version. */
function changesUnseen(u: InodeContext, node: Node): boolean {
  // The kernel sends no OPEN. A file may be written to at any time, also while it is still a lower
  // file, and its pages arrive later.
  if (u.noOpen && u.workdir !== null) return true
  return node.upper && !u.passthrough && node.handles !== null
}

/**
 * Removes a name from a node after the layers have lost that name. The kernel may use the name for
 * this node until the next lookup.
 */
export function dropName(u: InodeContext, node: Node, parent: Node, name: ByteString): void {
  if (node.lookups > 0) (parent.staleNames ??= new Set()).add(name)
  u.nodes.removeName(node, parent, name)
}

/**
 * Removes all names from a node whose real file has changed. Requests that name the node by its id
 * get ESTALE, and the kernel repeats the lookup.
 */
export function supersede(u: InodeContext, node: Node): void {
  if (node.links !== null)
    for (const { parent, name } of Array.from(node.links)) dropName(u, node, parent, name)
  else if (node.parent !== null) dropName(u, node, node.parent, node.name)
  u.nodes.unregister(node)
  node.version = CHANGED
  node.superseded = true
  u.nodes.release(node)
}
