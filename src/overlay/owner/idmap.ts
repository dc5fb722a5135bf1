/**
 * Whom files belong to, on disk and as it is shown: ranges of ids, and squashing to one id. A union
 * without any of it has no `Owners` (null), and ids travel as they are.
 *
 * An id that no range has is shown as the overflow id, as the kernel shows it in a user namespace.
 * The other way it is refused, as the kernel refuses it on an idmapped mount: what is written in
 * its place would be another owner. But what root creates, whom no range has, goes to the overflow
 * id on disk, as with fuse-overlayfs: so podman prepares a container for users that it has mapped,
 * and gives it to them then.
 */

import { readFileSync } from 'node:fs'
import { E } from '../../sys/errno.js'
import type { Caller, Result } from '../ops.js'
import type { IdRange, OwnerOptions } from '../options.js'

/**
 * What `toDisk` answers for an id that nothing on disk can stand for; to chown(2) it says "leave
 * it".
 */
export const UNMAPPED = -1

/** User ids or group ids. */
export class IdTranslation {
  /** Whatever the disk says, this is shown; -1: not squashed. */
  readonly #squash: number
  readonly #ranges: readonly IdRange[]
  readonly #overflow: number

  /** @param ranges none: ids are the same on both sides */
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

  /** What is shown of an owner. */
  toShown(id: number): number {
    return this.#squash >= 0 ? this.#squash : this.map(id)
  }

  /** What the ranges make of an id on disk, squashed or not: an id in an ACL is no owner. */
  map(id: number): number {
    return this.mapOr(id, this.#overflow)
  }

  /** As `mapped`, with another answer where no range has it. */
  mapOr(id: number, otherwise: number): number {
    if (this.#ranges.length === 0) return id
    for (const { disk, shown, length } of this.#ranges) {
      if (id >= disk && id < disk + length) return shown + (id - disk)
    }
    return otherwise
  }

  /** What is written for an id that was given; UNMAPPED where no range has it. */
  toDisk(id: number): number {
    if (this.#ranges.length === 0) return id
    for (const { disk, shown, length } of this.#ranges) {
      if (id >= shown && id < shown + length) return disk + (id - shown)
    }
    return UNMAPPED
  }

  /** What is written for a creator who may be without a range. */
  creatorToDisk(id: number, squashes: boolean): number {
    const disk = this.toDisk(id)
    return disk !== UNMAPPED ? disk : squashes ? 0 : this.#overflow
  }
}

export class Idmap {
  readonly uids: IdTranslation
  readonly gids: IdTranslation
  /**
   * What cannot be stored is no error: everybody is told to be somebody else anyway. Goes for both
   * kinds of ids, as in fuse-overlayfs.
   */
  readonly squashes: boolean

  constructor(uids: IdTranslation, gids: IdTranslation) {
    this.uids = uids
    this.gids = gids
    this.squashes = uids.squashes || gids.squashes
  }

  /** The other way, as far as there is one: for ids that something else has mapped as this does. */
  ownerOnDisk(uid: number, gid: number): [uid: number, gid: number] {
    const disk = [this.uids.toDisk(uid), this.gids.toDisk(gid)] as const
    return [disk[0] === UNMAPPED ? uid : disk[0], disk[1] === UNMAPPED ? gid : disk[1]]
  }

  /** Whether what this caller creates can belong to them. */
  canStore(caller: Caller): boolean {
    return (
      this.squashes ||
      caller.uid === 0 ||
      (this.uids.toDisk(caller.uid) !== UNMAPPED && this.gids.toDisk(caller.gid) !== UNMAPPED)
    )
  }
}

/** Errors of chown(2) which mean that it is not for this process to give that owner. */
export function isChownRefusal(result: Result): boolean {
  return result === -E.EPERM || result === -E.EINVAL || result === -E.EOVERFLOW
}

/** Null where ids are shown as they are. */
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

/** What the kernel shows where it has no id (65534, unless an administrator has changed it). */
function overflowId(name: 'overflowuid' | 'overflowgid'): number {
  try {
    return Number(readFileSync(`/proc/sys/kernel/${name}`, 'latin1'))
  } catch {
    return 65534
  }
}
