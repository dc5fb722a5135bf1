/**
 * Listing folders: the names of all layers, each once, without what whiteouts hide. Reading from the
 * start makes a new list. Analogous to fs/overlayfs/readdir.c.
 */

import { statxat } from '../sys/at.js'
import { DT_CHR, DT_DIR, DT_REG, DT_UNKNOWN } from '../sys/constants.js'
import { Stat, type Ino } from '../sys/stat.js'
import { E } from '../sys/errno.js'
import type { RealDir } from './layer.js'
import { DOT, DOT_DOT, indexAfter, order, placeOf, type Listed } from './listing.js'
import { findChild } from './lookup.js'
import { OWNER_LIST, withRight } from './lend.js'
import type { Node } from './node.js'
import type { ByteString, DirPlusSink, DirSink, Entry, Result } from './ops.js'
import { specialsAreFiles } from './override.js'
import { listReal } from './tree.js'
import { fillAttr, shownIno, type Union } from './union.js'
import { DOT_WHITEOUT, isDotWhiteoutName, isWhiteout } from './whiteout.js'

const st = new Stat()

/**
 * Calls `each` for every name of the folder in the union, until it returns false.
 *
 * @param each `ino` is undefined where the number shown is another than the entry's own
 */
function listMerged(
  u: Union,
  node: Node,
  each: (name: ByteString, ino: Ino | undefined, type: number) => boolean,
): Result {
  const dirs = node.dirs
  const single = dirs.length === 1
  // Names that upper layers have (true) or hide (false).
  const seen = new Map<ByteString, boolean>()
  let stopped = false
  for (const [i, real] of dirs.entries()) {
    const last = i === dirs.length - 1
    const fd = u.fds.get(real)
    if (fd < 0) {
      if (fd === -E.ENOENT) continue
      return fd
    }
    const hidden: ByteString[] = []
    const dotWhiteouts = new Set<ByteString>()
    const note = (name: ByteString, ino: Ino, type: number): boolean => {
      if (isDotWhiteoutName(name)) {
        dotWhiteouts.add(name.slice(DOT_WHITEOUT.length))
        return true
      }
      if (!single && seen.has(name)) return true
      if (isHidden(real, fd, name, type)) {
        if (!last) hidden.push(name)
        return true
      }
      if (!last) seen.set(name, true)
      const shown = u.override && type === DT_REG ? overriddenType(node, real, name) : type
      stopped = !each(name, entryIno(u, node, real, name, ino, type), shown)
      return !stopped
    }
    const list = (): Result => listReal(fd, '', note)
    const result = real.layer.isUpper ? withRight(fd, '', OWNER_LIST, list) : list()
    if (result < 0) return result
    if (stopped) return 0
    real.dotWhiteouts = dotWhiteouts
    if (last) break
    for (const name of hidden) seen.set(name, false)
    for (const name of dotWhiteouts) if (!seen.has(name)) seen.set(name, false)
  }
  return 0
}

/** Whether a real entry is a whiteout. Only what may be one costs a call. */
function isHidden(real: RealDir, fd: number, name: ByteString, type: number): boolean {
  const candidate =
    type === DT_CHR || type === DT_UNKNOWN || (type === DT_REG && real.xattrWhiteouts)
  return candidate && statxat(fd, name, st) >= 0 && isWhiteout(fd, name, st)
}

/**
 * The number to show for an entry, as lookup would: that of a known node; the entry's own where nothing
 * can change it; else undefined.
 */
function entryIno(
  u: Union,
  node: Node,
  real: RealDir,
  name: ByteString,
  ino: Ino,
  type: number,
): Ino | undefined {
  const known = node.children?.get(name)
  if (known !== undefined) return known.ino
  if (real.layer.isUpper) {
    if (real.impure) return undefined
    // A merged folder shows a lower layer's number.
    if (node.dirs.length > 1 && (type === DT_DIR || type === DT_UNKNOWN)) return undefined
  }
  return shownIno(u, real.layer, ino)
}

/** A regular file of the layer may be shown as something else: only who looks it up knows. */
function overriddenType(node: Node, real: RealDir, name: ByteString): number {
  if (!specialsAreFiles(real.layer)) return DT_REG
  const known = node.children?.get(name)
  return known === undefined ? DT_UNKNOWN : known.type >> 12
}

/** All names as of now. */
function listNow(u: Union, node: Node): Listed[] | Result {
  const entries: Listed[] = []
  if (node.unlinked) return entries
  const result = listMerged(u, node, (name, ino, type) => {
    entries.push({ name, ino, type, cookie: placeOf(name) })
    return true
  })
  return result < 0 ? result : order(entries)
}

/** The names to read from, listed anew where reading starts over; or -errno. */
function entriesFor(u: Union, node: Node, cookie: number): Listed[] | Result {
  const begun = cookie === 0 ? undefined : u.listings.get(node.id)
  if (begun !== undefined) return begun
  const entries = listNow(u, node)
  if (typeof entries !== 'number') u.listings.keep(node.id, entries)
  return entries
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
  if (start === entries.length && cookie >= DOT_DOT) u.listings.drop(node.id)
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
  if (start === entries.length && cookie >= DOT_DOT) u.listings.drop(node.id)
  return 0
}

/** -ENOTEMPTY where the union shows anything in the folder, else 0. */
export function checkEmpty(u: Union, node: Node): Result {
  let found = false
  const result = listMerged(u, node, () => {
    found = true
    return false
  })
  return found ? -E.ENOTEMPTY : result
}
