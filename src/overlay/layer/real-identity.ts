/**
 * Which real object a node stands for, or a real directory. The kernel decides by the owner and the
 * mode that it was told of a node who may do what; the server then finds the object by its name.
 * Whoever may write to the directory that has the name can put another object there in the
 * meantime, one that belongs to somebody else. So what is opened, read or changed for a node is the
 * object whose attributes were told, or the request fails with ESTALE: the kernel then looks the
 * name up again.
 *
 * A number means nothing without its device: a layer may hold several, as subvolumes of btrfs are,
 * and the file systems below another union. And it may be used again once its inode is gone, so the
 * time of birth counts as well. Not where the layer lies in another union, or a server shows it: a
 * file that is copied up there is born anew, by a change of this union, too.
 */

import { fstatx } from '../../sys/at.js'
import { STATX_BTIME } from '../../sys/constants.js'
import { Stat, type Ino, type Statx } from '../../sys/stat.js'

export interface Identity {
  /** The inode number in its layer. 0: not known, so anything will do. */
  real: Ino
  /**
   * 31 bits that stand for the device and the time of birth, and then 1; or for the device alone,
   * and then 0.
   */
  birth: number
}

/** What of a layer says how its objects are told apart. */
export interface LayerNumbering {
  /** st_dev of its root. */
  readonly dev: number
  /** An object keeps its time of birth as long as it is there. */
  readonly keepsBirthTimes: boolean
}

/** The finder's key of an inode: its number, with the device where that is not the layer's. */
export type InodeKey = Ino | string

const birthTimeHash = ({ words }: Statx): number =>
  ((Math.imul(words[20]!, 0x9e3779b1) ^ words[22]! ^ deviceHash(words)) << 1) | 1

const deviceHash = (words: Uint32Array): number =>
  Math.imul(words[35]!, 0x85ebca6b) ^ Math.imul(words[34]!, 0xc2b2ae35)

/** What tells an object from others with its number. */
export const birthHash = (st: Statx, layer: LayerNumbering | null): number =>
  (st.mask & STATX_BTIME) !== 0 && layer?.keepsBirthTimes !== false
    ? birthTimeHash(st)
    : deviceHash(st.words) << 1

/** `it` stands for the object of the layer whose attributes were just read. */
export function identify(it: Identity, st: Statx, layer: LayerNumbering | null): void {
  it.real = st.ino
  it.birth = birthHash(st, layer)
}

/** Whether attributes that were just read are those of the object that `it` stands for. */
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
 * The key of an inode of a lower layer. A server may show one number for several files: there they
 * must be alike, too.
 */
export const lowerKey = (st: Stat, layer: LayerNumbering): InodeKey =>
  layer.keepsBirthTimes
    ? upperKey(st, layer)
    : [st.dev, st.ino, st.size64, st.mtimeSec, st.mtimeNsec, st.ctimeSec, st.ctimeNsec].join(':')

const scratch = new Stat()

/** Whether a descriptor is one of the object. */
export const refersTo = (fd: number, it: Identity): boolean =>
  fstatx(fd, scratch) >= 0 && isSame(it, scratch)
