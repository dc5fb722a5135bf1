/**
 * Reads directories. A read from the start creates a new listing (readdir-merge.ts). Mirrors
 * fs/overlayfs/readdir.c.
 */

import { DT_DIR } from '../../sys/constants.js'
import { E } from '../../sys/errno.js'
import type { Ino } from '../../sys/stat.js'
import { DOT, DOT_DOT, indexAfter, type CachedName } from './dir-cache.js'
import { findChild, findCurrent } from './lookup.js'
import { listDirectory } from './readdir-merge.js'
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

/** The cached entries, or a new listing if the read starts at the beginning; or -errno. */
function entriesFor(u: Union, node: Node, cookie: number): CachedName[] | Result {
  const begun = cookie === 0 ? undefined : u.dirCache.get(node.id)
  return begun ?? listDirectory(u, node, true)
}

/**
 * The number of an entry without a known inode number (libfuse: FUSE_UNKNOWN_INO). readdir(3) skips
 * an entry with the number 0.
 */
const UNKNOWN_INO = 0xffff_ffff

const listedIno = (ino: Ino): Ino => (ino === 0 ? UNKNOWN_INO : ino)

/** Adds `.` and `..` if they come after the cookie. Returns false if there was no room. */
function addDots(node: Node, cookie: number, sink: DirSink): boolean {
  if (cookie < DOT && !sink.add('.', listedIno(node.ino), DT_DIR, DOT)) return false
  if (cookie >= DOT_DOT) return true
  return sink.add('..', listedIno((node.parent ?? node).ino), DT_DIR, DOT_DOT)
}

/**
 * Looks up a name to determine its inode number, and releases the node again if it is not in use.
 * If the lookup fails, the entry keeps the number and type of the layer's entry.
 *
 * @returns false: the name does not exist any more (kernel: ovl_cache_update(), a stale entry)
 */
function lookupIno(u: Union, node: Node, entry: CachedName): boolean {
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
  if (!addDots(node, cookie, sink)) return 0
  const start = indexAfter(entries, cookie)
  for (let at = start; at < entries.length; at++) {
    const entry = entries[at] as CachedName
    if (!entry.inoKnown && !lookupIno(u, node, entry)) continue
    if (!sink.add(entry.name, listedIno(entry.ino), entry.type, entry.cookie)) return 0
  }
  // A read that finds no further entry has reached the end.
  if (start === entries.length && cookie >= DOT_DOT) u.dirCache.readToEnd(node.id, node.dirs.length)
  return 0
}

/**
 * As `findCurrent`, for an entry of a READDIRPLUS.
 *
 * @param counted the answer already holds entries whose lookups are counted, so it must be sent as
 *   it is instead of waiting
 * @returns undefined if the lookup would have to wait
 */
function findForListing(u: Union, node: Node, name: ByteString, counted: boolean) {
  try {
    return findCurrent(u, node, name)
  } catch (error) {
    if (counted && error instanceof Pending) return undefined
    throw error
  }
}

/**
 * Entries of an overloaded slow layer are sent without attributes, because each lookup would have
 * to wait.
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
  if (!addDots(node, cookie, { add })) return 0
  const start = indexAfter(entries, cookie)
  let counted = false
  for (let at = start; at < entries.length; at++) {
    const entry = entries[at] as CachedName
    if (!sink.room(entry.name)) return 0
    const noRoom = !u.nodes.hasRoom(node, entry.name)
    if (noRoom && !entry.inoKnown && !lookupIno(u, node, entry)) continue
    if (noRoom || (entry.inoKnown && isTooSlow(u, node))) {
      out.nodeId = 0
      sink.add(entry.name, listedIno(entry.ino), entry.type, entry.cookie, out)
      continue
    }
    const child = findForListing(u, node, entry.name, counted)
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
  if (start === entries.length && cookie >= DOT_DOT) u.dirCache.readToEnd(node.id, node.dirs.length)
  return 0
}
