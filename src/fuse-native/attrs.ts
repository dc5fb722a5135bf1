/**
 * Attributes in the numbers that the package can carry. It writes all of them into arrays of 32-bit
 * numbers, and times in milliseconds, without a sign.
 */

import { Attr, type StatFsOut } from '../overlay/ops.js'
import type { Ino } from '../sys/stat.js'
import type { PackageStat, PackageStatfs } from './package.js'

const TWO_32 = 0x1_0000_0000

/**
 * Inode numbers of 32 bits. One that is larger gets a number of its own, from the top downwards,
 * for as long as the mount lives: cutting it would give the same number to files of different
 * layers, and who copies hard links would take them for one.
 */
export class Inos {
  readonly #large = new Map<Ino, number>()
  #next = TWO_32 - 1

  shown(ino: Ino): number {
    if (ino < TWO_32) return Number(ino)
    let shown = this.#large.get(ino)
    if (shown === undefined) {
      shown = this.#next--
      this.#large.set(ino, shown)
    }
    return shown
  }
}

/** Before 1970 there are no times: the C side divides without a sign. */
const milliseconds = (sec: number, nsec: number): number =>
  Math.max(0, sec * 1000 + Math.floor(nsec / 1_000_000))

/**
 * As the C library and the kernel (new_encode_dev) have it; FUSE has no more than 32 bits for it
 * either.
 */
const deviceNumber = (major: number, minor: number): number =>
  (((major & 0xfff) << 8) | (minor & 0xff) | ((minor & 0xfff00) << 12)) >>> 0

export const statOf = (attr: Attr, inos: Inos): PackageStat => ({
  mode: attr.mode,
  uid: attr.uid,
  gid: attr.gid,
  size: attr.size,
  dev: 0,
  // The package says 1 for 0; a number that is cut to 32 bits afterwards is left alone.
  nlink: attr.nlink === 0 ? TWO_32 : attr.nlink,
  ino: inos.shown(attr.ino),
  rdev: deviceNumber(attr.rdevMajor, attr.rdevMinor),
  blksize: attr.blksize,
  blocks: attr.blocks,
  atime: milliseconds(attr.atimeSec, attr.atimeNsec),
  mtime: milliseconds(attr.mtimeSec, attr.mtimeNsec),
  ctime: milliseconds(attr.ctimeSec, attr.ctimeNsec),
})

const none = new Attr()

/**
 * What a listing tells of an entry: its number, and its type in the bits that a mode has for it.
 */
export const listedStat = (ino: Ino, type: number, inos: Inos): PackageStat => {
  const stat = statOf(none, inos)
  stat.mode = type << 12
  stat.ino = inos.shown(ino)
  return stat
}

/** Counts that do not fit are told in larger blocks. */
export const statfsOf = (out: StatFsOut): PackageStatfs => {
  let scale = 1
  while (out.blocks / scale >= TWO_32) scale *= 2
  const blocks = (count: number): number => Math.floor(count / scale)
  const files = (count: number): number => Math.min(count, TWO_32 - 1)
  return {
    bsize: out.bsize * scale,
    frsize: out.frsize * scale,
    blocks: blocks(out.blocks),
    bfree: blocks(out.bfree),
    bavail: blocks(out.bavail),
    files: files(out.files),
    ffree: files(out.ffree),
    favail: files(out.ffree),
    namemax: out.namelen,
  }
}
