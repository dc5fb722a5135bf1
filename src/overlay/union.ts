/**
 * The state that all operations of a union share, and how a node's real object is addressed.
 *
 * Everything here belongs to one thread and every operation runs to its end (or throws `Pending`
 * before it changed anything), so there are no locks. What may happen between a `Pending` and the
 * second try: any other operation, on the same node too.
 */

import { fstatx, statxat } from '../sys/at.js'
import { E } from '../sys/errno.js'
import { Stat, type Ino } from '../sys/stat.js'
import type { Logger } from '../log.js'
import type { IoPool } from './jobs/pool.js'
import { identify, upperKey } from './layer/real-identity.js'
import type { DirCache } from './namei/dir-cache.js'
import type { DirectoryFds, Layer } from './layer/layer.js'
import type { OverlayXattrs } from './layer/overlay-xattrs.js'
import type { Node, NodeTable } from './inode/node.js'
import {
  UNREAD_MAX,
  type Attr,
  type ByteString,
  type NodeId,
  type Notifier,
  type Result,
} from './ops.js'
import type { UnionOptions } from './options.js'
import { applyOverride } from './owner/stat-override.js'
import type { Idmap } from './owner/idmap.js'
import type { Trust } from './layer/trust.js'
import type { SlowLayers } from './jobs/slow-layers.js'
import type { Workdir } from './copy-up/workdir.js'

/**
 * Where a real object is: a name in an open directory, or, with name '', what the descriptor refers
 * to.
 */
export class Place {
  fd = -1
  name: ByteString = ''
  /** The descriptor was opened for this (pin.ts). */
  pinned = false
}

/** Files, directories and whatever else was copied up, and the bytes of the files. */
export interface CopyCounts {
  objects: number
  bytes: number
}

export interface Union {
  readonly options: UnionOptions
  readonly log: Logger
  readonly notifier: Notifier
  /** Null without one. A union that only reads may have one, too. */
  readonly upper: Layer | null
  /** Top first. */
  readonly lowers: Layer[]
  readonly fds: DirectoryFds
  readonly nodes: NodeTable
  readonly dirCache: DirCache
  readonly xattrs: OverlayXattrs
  /** Whose redirects and metadata copies are believed. */
  readonly trust: Trust
  /** Null: owners are shown and written as they are. */
  readonly idmap: Idmap | null
  /** Layers may keep owners, modes and types in attributes (stat-override.ts). */
  readonly override: boolean
  /** What the system says of a layer's objects may not be what counts (stat-override.ts:amend). */
  readonly appliesOverrides: boolean
  /** Null with a read-only union. */
  readonly workdir: Workdir | null
  readonly pool: IoPool
  /** Null: all lower layers answer by themselves. */
  readonly slow: SlowLayers | null
  /**
   * A copy's number can't be found again by its origin, so it gets another one when the kernel has
   * forgotten it.
   */
  readonly losesNumbers: boolean
  /** What a directory lists has got another inode number: nobody goes by the old listing. */
  readonly renumbered: (directory: Node) => void
  /** How many messages about such numbers the kernel has not taken yet. */
  readonly pendingMessages: { count: number }
  /**
   * The kernel writes back pages: it also reads through descriptors that a client opened
   * write-only.
   */
  readonly writeback: boolean
  /** The kernel is to read and write files of the upper layer itself. */
  readonly passthrough: boolean
  /**
   * Files are opened and closed without a message: requests for data name a node (inode-files.ts).
   */
  readonly noOpen: boolean
  /**
   * This process may read every file, so that opening one for reading cannot be refused for want of
   * a right.
   */
  readonly readsAll: boolean
  /** The upper is on tmpfs, or all syncing is off: fsync costs nothing there. */
  readonly syncIsFree: boolean
  /** File systems in the stack; with one, inode numbers are shown as they are. */
  readonly fsCount: number
  /** Scratch: the attributes that the last lookup or stat found. Valid until the next call. */
  readonly st: Stat
  readonly place: Place
  /**
   * The answer that is being made will tell this node's attributes: no need of a notice that they
   * change.
   */
  answering: Node | null
  /** What was copied up. */
  readonly copied: CopyCounts
  /**
   * The node whose lower file was the last to be seen without any extended attribute
   * (metacopy.ts:resolveMetacopy), or 0.
   */
  bare: NodeId
}

/** Nothing can be written: no upper, or mounted read-only. */
export function isReadOnly(u: Union): boolean {
  return u.workdir === null
}

/**
 * Fills `place` with where the node's real object is.
 *
 * @returns 0 or -errno (-ENOENT: nothing leads to it any more)
 */
export function locate(u: Union, node: Node, place: Place): Result {
  if (node.orphanFd >= 0) return set(place, node.orphanFd, '')
  if (node.isDir) {
    const top = node.dirs[0]
    return top === undefined ? -E.ENOENT : set(place, u.fds.get(top), '')
  }
  if (!node.upper) {
    if (node.lowerDir === null) return -E.ENOENT
    return set(place, u.fds.get(node.lowerDir), node.lowerName)
  }
  if (node.links !== null) {
    const link = node.links.first
    const dir = link?.inUpper === true ? link.parent.upperDir : null
    if (link !== null && dir !== null) return set(place, u.fds.get(dir), link.name)
    if (node.indexKey !== null && u.workdir !== null)
      return set(place, u.workdir.indexFd, node.indexKey)
    return -E.ENOENT
  }
  const dir = node.parent?.upperDir
  return dir === undefined || dir === null ? -E.ENOENT : set(place, u.fds.get(dir), node.name)
}

function set(place: Place, fd: number, name: ByteString): Result {
  place.fd = fd
  place.name = name
  return fd < 0 ? fd : 0
}

/** Stats the node's real object into `st`. */
export function statNode(u: Union, node: Node, st: Stat): Result {
  const place = u.place
  const result = locate(u, node, place)
  return result < 0 ? result : statAt(u, node, place, st)
}

/** The same where that is known. */
export function statAt(u: Union, node: Node, place: Place, st: Stat): Result {
  const stated = place.name === '' ? fstatx(place.fd, st) : statxat(place.fd, place.name, st)
  if (stated < 0 || !u.appliesOverrides) return stated
  return applyOverride(layerOf(u, node), place.fd, place.name, st)
}

/** The layer that has the node's real object. */
export function layerOf(u: Union, node: Node): Layer | null {
  if (node.isDir) return node.dirs[0]?.layer ?? null
  return node.upper ? u.upper : (node.lowerDir?.layer ?? null)
}

/**
 * The union has just changed a node's object, whose attributes are in `st`. In an upper layer that
 * lies in another union, it may have been copied up there by that, and have another number: it is
 * the same object still.
 */
export function identifyAgain(u: Union, node: Node, st: Stat): void {
  const layer = u.upper
  const it = node.isDir ? node.upperDir : node
  if (layer === null || layer.keepsBirthTimes || !node.upper || it === null || it.real === 0) return
  identify(it, st, layer)
  if (node.upperKey !== null) u.nodes.registerUpper(node, upperKey(st, layer))
}

/**
 * Inode numbers below this leave room for the file system's number above them in a safe integer.
 */
const PLAIN_INO_LIMIT = 2 ** 44

/**
 * The inode number that is shown for a real one: itself where all layers share a file system, else
 * with the file system's number in the top bits (kernel: xino).
 */
export function shownIno(u: Pick<Union, 'fsCount'>, layer: Layer, ino: Ino): Ino {
  if (layer.fsIndex === 0 || u.fsCount === 1) return ino
  if (typeof ino === 'number' && ino < PLAIN_INO_LIMIT) return ino + layer.fsIndex * PLAIN_INO_LIMIT
  return BigInt.asUintN(64, BigInt(ino) ^ (BigInt(layer.fsIndex) << 54n))
}

/**
 * The union's link count. A merged directory says 1, the real one's count for any other (kernel:
 * ovl_getattr); a removed one 0.
 */
export function shownNlink(node: Node, st: Stat): number {
  if (node.isDir) return node.unlinked ? 0 : node.dirs.length > 1 ? 1 : st.nlink
  return Math.max(0, st.nlink + node.nlinkAdjust)
}

/** The owner that is shown of a real object: callers are known by such ids. */
export function shownUid(u: Pick<Union, 'idmap'>, st: Stat): number {
  return u.idmap === null ? st.uid : u.idmap.uids.toShown(st.uid)
}

/** The group, likewise. */
export function shownGid(u: Pick<Union, 'idmap'>, st: Stat): number {
  return u.idmap === null ? st.gid : u.idmap.gids.toShown(st.gid)
}

/** Attributes as the union shows them. */
export function fillAttr(u: Pick<Union, 'idmap'>, node: Node, st: Stat, out: Attr): void {
  out.copyFrom(st)
  out.ino = node.ino
  out.nlink = shownNlink(node, st)
  if (u.idmap !== null) {
    out.uid = u.idmap.uids.toShown(st.uid)
    out.gid = u.idmap.gids.toShown(st.gid)
  }
  if (node.unread >= 0) node.unread = Math.min(st.size, UNREAD_MAX)
}

/** Top first. */
export const layersOf = (u: Union): Layer[] =>
  u.upper === null ? u.lowers : [u.upper, ...u.lowers]
