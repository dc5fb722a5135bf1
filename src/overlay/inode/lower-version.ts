/**
 * Layers that change beneath a live union. The kernel keeps pages of a file by its inode, and with
 * write-back it also keeps the size that it was told first. So a node stands for one version of a
 * real file: where somebody else has changed or replaced that, the next lookup of the name gives
 * another node, of which the kernel knows no size and no page. Whoever has the old one open goes on
 * with that.
 *
 * The version is remembered whenever attributes are told, hence before any page is read that
 * belongs to them. A file of a lower layer is changed by nobody here, so that any difference is
 * somebody else's. One of the upper layer is: its size and time count while nobody has it open; in
 * passthrough, where the kernel has no pages of it, its inode number alone.
 *
 * Without write-back the kernel believes new sizes, and drops its pages with them
 * (FUSE_AUTO_INVAL_DATA): that serves whoever has the file open.
 */

import { S_IFLNK, S_IFREG } from '../../sys/constants.js'
import type { Stat } from '../../sys/stat.js'
import type { Node } from './node.js'
import type { ByteString } from '../ops.js'
import type { InodeContext } from './context.js'

/** `Node.version` of a node whose real file is not the one that was told. */
export const CHANGED = -1

// Words of a struct statx.
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
 * Of what has neither data nor a target, a change of times says nothing: FIFOs and sockets are used
 * so.
 */
function versionOf(u: InodeContext, node: Node, st: Stat): number {
  const hasData = node.type === S_IFREG || node.type === S_IFLNK
  return hash(st.words, hasData && (!node.upper || !u.passthrough), hasData && !node.upper)
}

/**
 * Whether attributes that were just read are those of another file, or version, than the node
 * stands for.
 */
export function isOtherVersion(u: InodeContext, node: Node, st: Stat): boolean {
  const { version } = node
  return version !== 0 && (version === CHANGED || version !== versionOf(u, node, st))
}

/** Attributes of the node are told: `st`, as they were just read. A directory has no version. */
export function rememberVersion(u: InodeContext, node: Node, st: Stat): void {
  if (node.version !== 0) {
    if (isOtherVersion(u, node, st)) node.version = CHANGED
  } else if (!node.isDir && node.job === null && !changesUnseen(u, node))
    node.version = versionOf(u, node, st)
}

/** The union changes the real file itself. */
export function forgetVersion(node: Node): void {
  if (node.version !== CHANGED) node.version = 0
}

/** Whether the union's own writes change what the version is made of. */
function changesUnseen(u: InodeContext, node: Node): boolean {
  // Nobody says who has a file open: a lower one may have been written to, and the pages come
  // later.
  if (u.noOpen && u.workdir !== null) return true
  return node.upper && !u.passthrough && node.handles !== null
}

/**
 * Takes a name from a node that no longer has it in the layers. The kernel may go on knowing the
 * node by it until it is told another one.
 */
export function dropName(u: InodeContext, node: Node, parent: Node, name: ByteString): void {
  if (node.lookups > 0) (parent.staleNames ??= new Set()).add(name)
  u.nodes.removeName(node, parent, name)
}

/**
 * Takes all names from a node whose real file has changed. Requests that name it by its number
 * alone have the kernel look the name up again (ESTALE).
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
