/**
 * Maps owners between the ids on disk and the shown ids, by ranges of ids or by squashing to a
 * single id. A union without a mapping has no `Idmap` (null), and ids pass unchanged.
 *
 * An id on disk outside all ranges is shown as the overflow id, as the kernel does in a user
 * namespace. A shown id outside all ranges is refused, as the kernel does on an idmapped mount: any
 * substitute would be another owner. There is an exception, as in fuse-overlayfs: objects that an
 * unmapped root creates get the overflow id on disk. podman depends on it: it prepares a container
 * for mapped users as root, and changes the owners afterwards.
 */

import { readFileSync } from 'node:fs'
import { E } from '../../sys/errno.js'
import type { Caller, Result } from '../ops.js'
import type { IdRange, OwnerOptions } from '../options.js'

/**
 * The result of `toDisk` for an id outside all ranges. chown(2) would leave the owner unchanged.
 */
export const UNMAPPED = -1

/** The mapping of user ids or of group ids. */
export class IdTranslation {
  /** The id that is shown for every id on disk; -1 if ids are not squashed. */
  readonly #squash: number
  readonly #ranges: readonly IdRange[]
  readonly #overflow: number

  /** @param ranges empty if ids are the same on both sides */
  constructor(ranges: readonly IdRange[], squash: number | undefined, overflow: number) {
    this.#ranges = ranges
    this.#squash = squash ?? -1
    this.#overflow = overflow
  }

  get hasRanges(): boolean {
    return this.#ranges.length > 0
  }

  get squashes(): boolean {
    return this.#squash >= 0
  }

  /** The shown id of an owner on disk. */
  toShown(id: number): number {
    return this.#squash >= 0 ? this.#squash : this.map(id)
  }

  /**
   * Maps an id on disk by the ranges only, without squashing. Ids in an ACL are mapped this way,
   * because they are not owners.
   */
  map(id: number): number {
    return this.mapOr(id, this.#overflow)
  }

  /** As `map`, with another result for an id outside all ranges. */
  mapOr(id: number, otherwise: number): number {
    if (this.#ranges.length === 0) return id
    for (const { disk, shown, length } of this.#ranges) {
      if (id >= disk && id < disk + length) return shown + (id - disk)
    }
    return otherwise
  }

  /** The id on disk for a shown id. UNMAPPED if it is outside all ranges. */
  toDisk(id: number): number {
    if (this.#ranges.length === 0) return id
    for (const { disk, shown, length } of this.#ranges) {
      if (id >= shown && id < shown + length) return disk + (id - shown)
    }
    return UNMAPPED
  }

  /** The id on disk for the creator of an object, which may be outside all ranges. */
  creatorToDisk(id: number, squashes: boolean): number {
    const disk = this.toDisk(id)
    return disk !== UNMAPPED ? disk : squashes ? 0 : this.#overflow
  }
}

export class Idmap {
  readonly uids: IdTranslation
  readonly gids: IdTranslation
  /**
   * Whether ids of any kind are squashed. An owner that can't be stored is not an error then,
   * because callers see another owner anyway. This applies to user and group ids together, as in
   * fuse-overlayfs.
   */
  readonly squashes: boolean

  constructor(uids: IdTranslation, gids: IdTranslation) {
    this.uids = uids
    this.gids = gids
    this.squashes = uids.squashes || gids.squashes
  }

  /**
   * The inverse mapping for ids that another mechanism has mapped in the same way. An id without an
   * inverse stays unchanged.
   */
  ownerOnDisk(uid: number, gid: number): [uid: number, gid: number] {
    const disk = [this.uids.toDisk(uid), this.gids.toDisk(gid)] as const
    return [disk[0] === UNMAPPED ? uid : disk[0], disk[1] === UNMAPPED ? gid : disk[1]]
  }

  /** Whether an object that this caller creates can belong to the caller. */
  canStore(caller: Caller): boolean {
    return (
      this.squashes ||
      caller.uid === 0 ||
      (this.uids.toDisk(caller.uid) !== UNMAPPED && this.gids.toDisk(caller.gid) !== UNMAPPED)
    )
  }
}

/** Errors of chown(2) that mean that this process may not set that owner. */
export function isChownRefusal(result: Result): boolean {
  return result === -E.EPERM || result === -E.EINVAL || result === -E.EOVERFLOW
}

/** Returns null if ids are shown as they are. */
export function makeIdmap(options: OwnerOptions | undefined): Idmap | null {
  if (options === undefined) return null
  const { uids = [], gids = [], squashUid, squashGid } = options
  if (uids.length + gids.length === 0 && squashUid === undefined && squashGid === undefined)
    return null
  return new Idmap(
    new IdTranslation(uids, squashUid, overflowId('overflowuid')),
    new IdTranslation(gids, squashGid, overflowId('overflowgid')),
  )
}

/**
 * The id that the kernel shows for an unmapped id: 65534 unless the administrator has changed it.
 */
function overflowId(name: 'overflowuid' | 'overflowgid'): number {
  try {
    return Number(readFileSync(`/proc/sys/kernel/${name}`, 'latin1'))
  } catch {
    return 65534
  }
}
