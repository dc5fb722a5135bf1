/**
 * The directory cache: merged listings of directories. The kernel does not tell the server when a
 * caller opens or closes a directory (FUSE_NO_OPENDIR_SUPPORT), so a cookie must mean the same
 * position to every caller at any time. It is derived from the name alone, as in ext4's indexed
 * directories. A reader that continues from a cookie gets all names behind it, whatever other
 * callers create, remove or list in between.
 */

import type { Ino } from '../../sys/stat.js'
import type { ByteString, NodeId } from '../ops.js'

/** One name of a directory. */
export interface CachedName {
  name: ByteString
  /**
   * The inode number that lookup would show. If only a lookup can determine it, the number of the
   * layer's entry.
   */
  ino: Ino
  /** `ino` is the number that lookup would show. */
  inoKnown: boolean
  type: number
  /** The index of the topmost layer that has the name. */
  layer: number
  /** The position: a reader passes it to continue after this entry. Ascending within a listing. */
  cookie: number
}

/** The cookies of `.` and `..`. */
export const DOT = 1
export const DOT_DOT = 2

/**
 * Cookies are positive 31-bit numbers, because a program with a 32-bit off_t can store no others.
 */
const LAST = 0x7fff_ffff
const FIRST = DOT_DOT + 1

/** The cookie of a name: the finalized FNV-1a hash of its bytes. */
export function cookieOf(name: ByteString): number {
  let hash = 0x811c_9dc5
  for (let i = 0; i < name.length; i++) {
    hash = Math.imul(hash ^ name.charCodeAt(i), 0x0100_0193)
  }
  hash = Math.imul(hash ^ (hash >>> 16), 0x85eb_ca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2_ae35)
  return FIRST + (((hash ^ (hash >>> 16)) >>> 1) % (LAST - FIRST))
}

const byCookie = (a: CachedName, b: CachedName): number =>
  a.cookie - b.cookie || (a.name < b.name ? -1 : 1)

/** Sorts the names of a directory by cookie. Names with the same hash get consecutive cookies. */
export function sortByCookie(entries: CachedName[]): CachedName[] {
  entries.sort(byCookie)
  let last = 0
  for (const entry of entries) {
    if (entry.cookie <= last) entry.cookie = last + 1
    last = entry.cookie
  }
  return entries
}

/** The index of the first entry after a cookie. */
export function indexAfter(entries: readonly CachedName[], cookie: number): number {
  let low = 0
  let high = entries.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if (entries[middle]!.cookie > cookie) high = middle
    else low = middle + 1
  }
  return low
}

/** The entry of a name. Entries with the same hash follow each other with consecutive cookies. */
function findEntry(entries: readonly CachedName[], name: ByteString): CachedName | undefined {
  let cookie = cookieOf(name)
  for (let at = indexAfter(entries, cookie - 1); entries[at]?.cookie === cookie; at++, cookie++) {
    if (entries[at]?.name === name) return entries[at]
  }
  return undefined
}

const DIRECTORIES_MAX = 64
const NAMES_MAX = 100_000

/**
 * With at least this many layers, the listing stays cached after it was read, because it tells
 * which layer has a name.
 */
export const CACHED_FROM_LAYERS = 3

/**
 * Caches two kinds of listings. A listing that a caller has begun to read is kept, so that the next
 * READDIR does not merge the layers again. A listing of a directory that many layers have is kept,
 * because it tells which layer a name comes from. Lower layers do not change.
 */
export class DirCache {
  /** The least recently stored listing comes first. */
  readonly #directories = new Map<NodeId, CachedName[]>()
  #names = 0

  get(directory: NodeId): CachedName[] | undefined {
    return this.#directories.get(directory)
  }

  set(directory: NodeId, entries: CachedName[]): void {
    this.drop(directory)
    this.#directories.set(directory, entries)
    this.#names += entries.length
    for (const oldest of this.#directories.keys()) {
      if (this.#directories.size <= DIRECTORIES_MAX && this.#names <= NAMES_MAX) return
      if (oldest !== directory) this.drop(oldest)
    }
  }

  /**
   * A caller has read the listing to its end.
   *
   * @param layers the number of layers that have the directory
   */
  readToEnd(directory: NodeId, layers: number): void {
    if (layers < CACHED_FROM_LAYERS) this.drop(directory)
  }

  /**
   * The index of the topmost lower layer that may have a name: the lower layers above it did not
   * have it when they were listed. Infinity: no lower layer has it. 0: unknown. The upper layer may
   * have the name in any case.
   */
  topmost(directory: NodeId, name: ByteString): number {
    const entries = this.#directories.get(directory)
    return entries === undefined ? 0 : (findEntry(entries, name)?.layer ?? Infinity)
  }

  drop(directory: NodeId): void {
    const entries = this.#directories.get(directory)
    if (entries === undefined) return
    this.#directories.delete(directory)
    this.#names -= entries.length
  }

  /** The kernel has forgotten a node. If it is a directory, no caller reads it any more. */
  forget(node: NodeId): void {
    if (this.#directories.size > 0) this.drop(node)
  }
}
