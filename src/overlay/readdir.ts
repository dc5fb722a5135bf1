/**
 * Listing folders: the names of all layers, each once, without what whiteouts hide. An open folder
 * keeps the list that it started with; rewinding makes a new one. Analogous to fs/overlayfs/readdir.c.
 */

import { statxat } from '../sys/at.js'
import { DT_CHR, DT_DIR, DT_REG, DT_UNKNOWN } from '../sys/constants.js'
import { Stat, type Ino } from '../sys/stat.js'
import { E } from '../sys/errno.js'
import type { RealDir } from './layer.js'
import { findChild } from './lookup.js'
import { OWNER_LIST, withRight } from './lend.js'
import type { Node } from './node.js'
import type { ByteString, DirPlusSink, DirSink, Entry, Fh, Opened, Result } from './ops.js'
import { specialsAreFiles } from './override.js'
import { listReal } from './tree.js'
import { fillAttr, shownIno, type Union } from './union.js'
import { DOT_WHITEOUT, isDotWhiteoutName, isWhiteout } from './whiteout.js'
import type { HandleTable } from './handles.js'

/** One name of a folder. `ino` is what lookup would show, or undefined where only lookup can tell. */
interface Listed {
  name: ByteString
  ino: Ino | undefined
  type: number
}

export class DirHandle {
  readonly fh: Fh
  readonly node: Node
  /** Made at the first read from the start. */
  entries: Listed[] | null = null

  constructor(fh: Fh, node: Node) {
    this.fh = fh
    this.node = node
  }
}

export class DirHandles {
  readonly #open = new Map<Fh, DirHandle>()

  get(fh: Fh): DirHandle | undefined {
    return this.#open.get(fh)
  }

  open(handles: HandleTable, node: Node, out: Opened): void {
    const handle = new DirHandle(handles.nextFh(), node)
    this.#open.set(handle.fh, handle)
    node.dirHandles++
    out.fh = handle.fh
    out.fd = -1
    out.writable = false
    out.upper = node.upper
    out.privileged = false
    out.unchanged = node.seenVersion === node.version
    node.seenVersion = node.version
  }

  /** @returns the folder's node, to be released if nothing else holds it */
  close(fh: Fh): Node | undefined {
    const handle = this.#open.get(fh)
    if (handle === undefined) return undefined
    this.#open.delete(fh)
    handle.node.dirHandles--
    return handle.node
  }

  get size(): number {
    return this.#open.size
  }
}

const st = new Stat()
const DOTS = 2

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

function snapshot(u: Union, handle: DirHandle): Result {
  const entries: Listed[] = []
  const result = listMerged(u, handle.node, (name, ino, type) => {
    entries.push({ name, ino, type })
    return true
  })
  if (result >= 0) handle.entries = entries
  return result
}

/** The list to read from, made anew where reading starts over; or -errno. */
function entriesFor(u: Union, handle: DirHandle, cookie: number): Listed[] | Result {
  if (handle.entries === null || cookie === 0) {
    if (handle.node.unlinked) handle.entries = []
    else {
      const result = snapshot(u, handle)
      if (result < 0) return result
    }
  }
  return handle.entries ?? []
}

/** Numbers of `.` and `..`. */
function dotIno(handle: DirHandle, i: number): Ino {
  return i === 0 ? handle.node.ino : (handle.node.parent ?? handle.node).ino
}

/** A number for an entry that only lookup can tell; the node is dropped again if nobody needs it. */
function lookupIno(u: Union, node: Node, entry: Listed): Ino {
  const child = findChild(u, node, entry.name)
  if (typeof child === 'number') return entry.ino ?? 0
  entry.ino = child.ino
  if (child.lookups === 0) u.nodes.release(child)
  return entry.ino
}

export function readdir(u: Union, handle: DirHandle, cookie: number, sink: DirSink): Result {
  const entries = entriesFor(u, handle, cookie)
  if (typeof entries === 'number') return entries
  for (let at = cookie; at < entries.length + DOTS; at++) {
    if (at < DOTS) {
      if (!sink.add(at === 0 ? '.' : '..', dotIno(handle, at), DT_DIR, at + 1)) break
      continue
    }
    const entry = entries[at - DOTS] as Listed
    const ino = entry.ino ?? lookupIno(u, handle.node, entry)
    if (!sink.add(entry.name, ino, entry.type, at + 1)) break
  }
  return 0
}

export function readdirplus(
  u: Union,
  handle: DirHandle,
  cookie: number,
  sink: DirPlusSink,
  out: Entry,
): Result {
  const entries = entriesFor(u, handle, cookie)
  if (typeof entries === 'number') return entries
  for (let at = cookie; at < entries.length + DOTS; at++) {
    if (at < DOTS) {
      const name = at === 0 ? '.' : '..'
      if (!sink.room(name)) break
      out.nodeId = 0
      sink.add(name, dotIno(handle, at), DT_DIR, at + 1, out)
      continue
    }
    const entry = entries[at - DOTS] as Listed
    if (!sink.room(entry.name)) break
    const child = findChild(u, handle.node, entry.name)
    if (typeof child === 'number') {
      out.nodeId = 0
      sink.add(entry.name, entry.ino ?? 0, entry.type, at + 1, out)
      continue
    }
    child.lookups++
    out.nodeId = child.id
    fillAttr(u, child, u.st, out.attr)
    sink.add(entry.name, child.ino, child.type >> 12, at + 1, out)
  }
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
