/**
 * Directories that are being listed. Nobody opens or closes a directory here (the kernel does not
 * say when it does), so a place in a listing must mean the same to everyone, at any time: it
 * follows from the name alone, as in ext4's indexed directories. Whoever goes on from a place gets
 * all names behind it, whatever was created, removed or listed by others in between.
 */

import type { Ino } from '../../sys/stat.js'
import type { ByteString, NodeId } from '../ops.js'

/** One name of a directory. */
export interface Listed {
  name: ByteString
  /** The number that lookup would show; where only lookup can tell, that of the layer's entry. */
  ino: Ino
  /** `ino` is what lookup would show. */
  inoKnown: boolean
  type: number
  /** The index of the topmost layer that had it. */
  layer: number
  /** Its place: what to pass to go on after it. Ascending within a listing. */
  cookie: number
}

/** The places of `.` and `..`. */
export const DOT = 1
export const DOT_DOT = 2

/** Places are positive numbers of 31 bits: programs with an off_t of 32 bits can keep no others. */
const LAST = 0x7fff_ffff
const FIRST = DOT_DOT + 1

/** A place for a name: the finalized FNV-1a hash of its bytes. */
export function placeOf(name: ByteString): number {
  let hash = 0x811c_9dc5
  for (let i = 0; i < name.length; i++) {
    hash = Math.imul(hash ^ name.charCodeAt(i), 0x0100_0193)
  }
  hash = Math.imul(hash ^ (hash >>> 16), 0x85eb_ca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2_ae35)
  return FIRST + (((hash ^ (hash >>> 16)) >>> 1) % (LAST - FIRST))
}

const byPlace = (a: Listed, b: Listed): number => a.cookie - b.cookie || (a.name < b.name ? -1 : 1)

/** Sorts a directory's names by their places, and gives those that share one the next ones. */
export function order(entries: Listed[]): Listed[] {
  entries.sort(byPlace)
  let last = 0
  for (const entry of entries) {
    if (entry.cookie <= last) entry.cookie = last + 1
    last = entry.cookie
  }
  return entries
}

/** The index of the first entry after a place. */
export function indexAfter(entries: readonly Listed[], cookie: number): number {
  let low = 0
  let high = entries.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if (entries[middle]!.cookie > cookie) high = middle
    else low = middle + 1
  }
  return low
}

/** The entry of a name. Those that share a place lie behind it without a gap. */
function find(entries: readonly Listed[], name: ByteString): Listed | undefined {
  let place = placeOf(name)
  for (let at = indexAfter(entries, place - 1); entries[at]?.cookie === place; at++, place++) {
    if (entries[at]?.name === name) return entries[at]
  }
  return undefined
}

const LISTINGS_MAX = 64
const NAMES_MAX = 100_000

/**
 * A directory's listing is kept where so many layers have the directory, for what it tells of them.
 */
export const MANY_LAYERS = 3

/**
 * Listings that somebody has begun to read, so that the next part need not be made again; and those
 * of directories that many layers have, since they tell which of the layers a name comes from.
 * Lower layers do not change.
 */
export class Listings {
  /** The longest unused first. */
  readonly #begun = new Map<NodeId, Listed[]>()
  #names = 0

  get(directory: NodeId): Listed[] | undefined {
    return this.#begun.get(directory)
  }

  keep(directory: NodeId, entries: Listed[]): void {
    this.drop(directory)
    this.#begun.set(directory, entries)
    this.#names += entries.length
    for (const oldest of this.#begun.keys()) {
      if (this.#begun.size <= LISTINGS_MAX && this.#names <= NAMES_MAX) return
      if (oldest !== directory) this.drop(oldest)
    }
  }

  /** Somebody has read it all. @param layers how many have the directory */
  end(directory: NodeId, layers: number): void {
    if (layers < MANY_LAYERS) this.drop(directory)
  }

  /**
   * The index of the topmost lower layer that may have a name: those above it had none when they
   * were listed. Infinity: none has it. The upper layer may have it in any case. 0: nothing is
   * known.
   */
  topmost(directory: NodeId, name: ByteString): number {
    const entries = this.#begun.get(directory)
    return entries === undefined ? 0 : (find(entries, name)?.layer ?? Infinity)
  }

  drop(directory: NodeId): void {
    const entries = this.#begun.get(directory)
    if (entries === undefined) return
    this.#begun.delete(directory)
    this.#names -= entries.length
  }

  /** The kernel gives a node back: nobody reads it any more, if it is a directory. */
  forget(node: NodeId): void {
    if (this.#begun.size > 0) this.drop(node)
  }
}
