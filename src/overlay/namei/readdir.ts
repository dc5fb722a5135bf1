/**
 * Reading directories. Reading from the start makes a new list of the names (readdir-merge.ts).
 * Analogous to fs/overlayfs/readdir.c.
 */

import { DT_DIR } from '../../sys/constants.js'
import { E } from '../../sys/errno.js'
import type { Ino } from '../../sys/stat.js'
import { DOT, DOT_DOT, indexAfter, type Listed } from './dir-cache.js'
import { findChild, findCurrent } from './lookup.js'
import { listAnew } from './readdir-merge.js'
import type { Node } from '../inode/node.js'
import {
  Pending,
  type ByteString,
  type DirPlusSink,
  type DirSink,
  type Entry,
  type Result,
} from '../ops.js'
import { fillAttr } from '../inode/shown-attr.js'
import type { Union } from './context.js'

/** The names to read from, listed anew where reading starts over; or -errno. */
function entriesFor(u: Union, node: Node, cookie: number): Listed[] | Result {
  const begun = cookie === 0 ? undefined : u.listings.get(node.id)
  return begun ?? listAnew(u, node, true)
}

/**
 * What is listed where no number is known (libfuse: FUSE_UNKNOWN_INO). readdir(3) takes an entry of
 * the number 0 for none: its name would be missing.
 */
const UNKNOWN_INO = 0xffff_ffff

const listedIno = (ino: Ino): Ino => (ino === 0 ? UNKNOWN_INO : ino)

/** Gives `.` and `..`, as far as they come after the cookie; false: there was no room. */
function dots(node: Node, cookie: number, sink: DirSink): boolean {
  if (cookie < DOT && !sink.add('.', listedIno(node.ino), DT_DIR, DOT)) return false
  if (cookie >= DOT_DOT) return true
  return sink.add('..', listedIno((node.parent ?? node).ino), DT_DIR, DOT_DOT)
}

/**
 * Has a name looked up whose number only lookup can tell; the node is dropped again if nobody needs
 * it. Where lookup fails, the name is listed all the same, with what the layer's entry says.
 *
 * @returns false: the name is gone (kernel: ovl_cache_update(), a stale entry)
 */
function findIno(u: Union, node: Node, entry: Listed): boolean {
  const child = findChild(u, node, entry.name)
  if (typeof child === 'number') return child !== -E.ENOENT
  entry.ino = child.ino
  entry.inoKnown = true
  entry.type = child.type >> 12
  if (child.lookups === 0) u.nodes.release(child)
  return true
}

export function readdir(u: Union, node: Node, cookie: number, sink: DirSink): Result {
  const entries = entriesFor(u, node, cookie)
  if (typeof entries === 'number') return entries
  if (!dots(node, cookie, sink)) return 0
  const start = indexAfter(entries, cookie)
  for (let at = start; at < entries.length; at++) {
    const entry = entries[at] as Listed
    if (!entry.inoKnown && !findIno(u, node, entry)) continue
    if (!sink.add(entry.name, listedIno(entry.ino), entry.type, entry.cookie)) return 0
  }
  // Who finds nothing more has read it all.
  if (start === entries.length && cookie >= DOT_DOT) u.listings.end(node.id, node.dirs.length)
  return 0
}

/**
 * As `findCurrent`, for a name that is listed.
 *
 * @param counted lookups of names before it are in the answer, which can be given as it is: nothing
 *   may be waited for
 * @returns undefined where it would have to be waited for
 */
function childToList(u: Union, node: Node, name: ByteString, counted: boolean) {
  try {
    return findCurrent(u, node, name)
  } catch (error) {
    if (counted && error instanceof Pending) return undefined
    throw error
  }
}

/**
 * Names of a layer that keeps its callers waiting are given without attributes: each would be
 * waited for.
 */
const isTooSlow = ({ slow }: Union, node: Node): boolean =>
  slow !== null && slow.threads.isBackingOff && node.dirs.some(real => real.layer.slow)

export function readdirplus(
  u: Union,
  node: Node,
  cookie: number,
  sink: DirPlusSink,
  out: Entry,
): Result {
  const entries = entriesFor(u, node, cookie)
  if (typeof entries === 'number') return entries
  out.nodeId = 0
  const add: DirSink['add'] = (name, ino, type, next) => {
    if (!sink.room(name)) return false
    sink.add(name, ino, type, next, out)
    return true
  }
  if (!dots(node, cookie, { add })) return 0
  const start = indexAfter(entries, cookie)
  let counted = false
  for (let at = start; at < entries.length; at++) {
    const entry = entries[at] as Listed
    if (!sink.room(entry.name)) return 0
    const noRoom = !u.nodes.hasRoom(node, entry.name)
    if (noRoom && !entry.inoKnown && !findIno(u, node, entry)) continue
    if (noRoom || (entry.inoKnown && isTooSlow(u, node))) {
      out.nodeId = 0
      sink.add(entry.name, listedIno(entry.ino), entry.type, entry.cookie, out)
      continue
    }
    const child = childToList(u, node, entry.name, counted)
    if (child === undefined) return 0
    if (typeof child === 'number') {
      if (child === -E.ENOENT && !entry.inoKnown) continue
      out.nodeId = 0
      sink.add(entry.name, listedIno(entry.ino), entry.type, entry.cookie, out)
      continue
    }
    child.lookups++
    counted = true
    out.nodeId = child.id
    fillAttr(u, child, u.st, out.attr)
    sink.add(entry.name, listedIno(child.ino), child.type >> 12, entry.cookie, out)
  }
  if (start === entries.length && cookie >= DOT_DOT) u.listings.end(node.id, node.dirs.length)
  return 0
}
