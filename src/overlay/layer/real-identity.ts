/**
 * The identity of the real object that a node or a real directory stands for. The kernel checks
 * permissions against the owner and the mode that the server reported for a node. The server finds
 * the object by name. A user with write access to the directory can give the name to another user's
 * object in the meantime. So every open, read or change for a node verifies that the object has the
 * reported identity, and fails with ESTALE otherwise. The kernel then repeats the lookup.
 *
 * An inode number is only unique on its device. A layer may span several devices: btrfs subvolumes,
 * or the file systems below another union. An inode number may be reused after its inode is gone,
 * so the identity includes the birth time. The birth time does not count if the layer lies in
 * another union or on a FUSE server: a copy-up there gives the file a new birth time, even if this
 * union caused the copy-up.
 */

import { fstatx } from '../../sys/at.js'
import { STATX_BTIME } from '../../sys/constants.js'
import { Stat, type Ino, type Statx } from '../../sys/stat.js'

export interface Identity {
  /** The inode number in its layer. 0: unknown, and every object matches. */
  real: Ino
  /**
   * Bit 0 set: a 31-bit hash of the device and the birth time. Bit 0 clear: a hash of the device
   * only.
   */
  birth: number
}

/** The properties of a layer that determine how its objects are identified. */
export interface LayerNumbering {
  /** st_dev of its root. */
  readonly dev: number
  /** The birth time of an object never changes. */
  readonly keepsBirthTimes: boolean
}

/**
 * The key of an inode in the node table: its number, prefixed with the device if that is not the
 * layer's.
 */
export type InodeKey = Ino | string

const birthTimeHash = ({ words }: Statx): number =>
  ((Math.imul(words[20]!, 0x9e3779b1) ^ words[22]! ^ deviceHash(words)) << 1) | 1

const deviceHash = (words: Uint32Array): number =>
  Math.imul(words[35]!, 0x85ebca6b) ^ Math.imul(words[34]!, 0xc2b2ae35)

/** Distinguishes an object from others with the same inode number. */
export const birthHash = (st: Statx, layer: LayerNumbering | null): number =>
  (st.mask & STATX_BTIME) !== 0 && layer?.keepsBirthTimes !== false
    ? birthTimeHash(st)
    : deviceHash(st.words) << 1

/** Sets the identity of `it` to that of the object whose attributes are in `st`. */
export function identify(it: Identity, st: Statx, layer: LayerNumbering | null): void {
  it.real = st.ino
  it.birth = birthHash(st, layer)
}

/** Whether `st` holds the attributes of the object that `it` stands for. */
export function isSame(it: Identity, st: Statx): boolean {
  if (it.real === 0) return true
  if (it.real !== st.ino) return false
  if ((it.birth & 1) === 0) return it.birth === deviceHash(st.words) << 1
  return (st.mask & STATX_BTIME) !== 0 && it.birth === birthTimeHash(st)
}

/** The key of an inode of the upper layer. */
export const upperKey = (st: Stat, layer: LayerNumbering): InodeKey =>
  st.dev === layer.dev ? st.ino : `${st.dev}:${st.ino}`

/**
 * The key of an inode of a lower layer. A FUSE server may report the same inode number for several
 * files, so the key of such a layer includes the size and the times.
 */
export const lowerKey = (st: Stat, layer: LayerNumbering): InodeKey =>
  layer.keepsBirthTimes
    ? upperKey(st, layer)
    : [st.dev, st.ino, st.size64, st.mtimeSec, st.mtimeNsec, st.ctimeSec, st.ctimeNsec].join(':')

const scratch = new Stat()

/** Whether the descriptor refers to the object. */
export const refersTo = (fd: number, it: Identity): boolean =>
  fstatx(fd, scratch) >= 0 && isSame(it, scratch)
