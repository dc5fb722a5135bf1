/**
 * Reading folders. Reading from the start makes a new list of the names (merge.ts). Analogous to
 * fs/overlayfs/readdir.c.
 */

import { DT_DIR } from '../sys/constants.js'
import type { Ino } from '../sys/stat.js'
import { DOT, DOT_DOT, indexAfter, type Listed } from './listing.js'
import { findChild } from './lookup.js'
import { listAnew } from './merge.js'
import type { Node } from './node.js'
import type { DirPlusSink, DirSink, Entry, Result } from './ops.js'
import { fillAttr, type Union } from './union.js'

/** The names to read from, listed anew where reading starts over; or -errno. */
function entriesFor(u: Union, node: Node, cookie: number): Listed[] | Result {
  const begun = cookie === 0 ? undefined : u.listings.get(node.id)
  return begun ?? listAnew(u, node)
}

/** Gives `.` and `..`, as far as they come after the cookie; false: there was no room. */
function dots(node: Node, cookie: number, sink: DirSink): boolean {
  if (cookie < DOT && !sink.add('.', node.ino, DT_DIR, DOT)) return false
  return cookie >= DOT_DOT || sink.add('..', (node.parent ?? node).ino, DT_DIR, DOT_DOT)
}

/** A number for an entry that only lookup can tell; the node is dropped again if nobody needs it. */
function lookupIno(u: Union, node: Node, entry: Listed): Ino {
  const child = findChild(u, node, entry.name)
  if (typeof child === 'number') return entry.ino ?? 0
  entry.ino = child.ino
  if (child.lookups === 0) u.nodes.release(child)
  return entry.ino
}

export function readdir(u: Union, node: Node, cookie: number, sink: DirSink): Result {
  const entries = entriesFor(u, node, cookie)
  if (typeof entries === 'number') return entries
  if (!dots(node, cookie, sink)) return 0
  const start = indexAfter(entries, cookie)
  for (let at = start; at < entries.length; at++) {
    const entry = entries[at] as Listed
    const ino = entry.ino ?? lookupIno(u, node, entry)
    if (!sink.add(entry.name, ino, entry.type, entry.cookie)) return 0
  }
  // Who finds nothing more has read it all.
  if (start === entries.length && cookie >= DOT_DOT) u.listings.end(node.id, node.dirs.length)
  return 0
}

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
  for (let at = start; at < entries.length; at++) {
    const entry = entries[at] as Listed
    if (!sink.room(entry.name)) return 0
    const child = findChild(u, node, entry.name)
    if (typeof child === 'number') {
      out.nodeId = 0
      sink.add(entry.name, entry.ino ?? 0, entry.type, entry.cookie, out)
      continue
    }
    child.lookups++
    out.nodeId = child.id
    fillAttr(u, child, u.st, out.attr)
    sink.add(entry.name, child.ino, child.type >> 12, entry.cookie, out)
  }
  if (start === entries.length && cookie >= DOT_DOT) u.listings.end(node.id, node.dirs.length)
  return 0
}
