/**
 * Converts attributes to the numbers that the package can pass on. It writes all of them into
 * arrays of 32-bit numbers, and times as unsigned milliseconds.
 */

import { Attr, type StatFsOut } from '../overlay/ops.js'
import type { Ino } from '../sys/stat.js'
import type { PackageStat, PackageStatfs } from './package.js'

const TWO_32 = 0x1_0000_0000

/**
 * Inode numbers of 32 bits. A larger number is replaced by an unused one, counted down from 2^32 -
 * 1, for the mount's whole life. If it were truncated, files of different layers could get the same
 * number, and a program that preserves hard links would treat them as one file.
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

/** Times before 1970 become 0: the C side divides unsigned numbers. */
const milliseconds = (sec: number, nsec: number): number =>
  Math.max(0, sec * 1000 + Math.floor(nsec / 1_000_000))

/**
 * The encoding of the C library and of the kernel (new_encode_dev). FUSE has 32 bits for it, too.
 */
const deviceNumber = (major: number, minor: number): number =>
  (((major & 0xfff) << 8) | (minor & 0xff) | ((minor & 0xfff00) << 12)) >>> 0

export const statOf = (attr: Attr, inos: Inos): PackageStat => ({
  mode: attr.mode,
  uid: attr.uid,
  gid: attr.gid,
  size: attr.size,
  dev: 0,
  // The package replaces 0 by 1. 2^32 is not replaced, and is then truncated to 0.
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
 * The attributes of an entry in a listing: its inode number, and its type in the S_IFMT bits of the
 * mode.
 */
export const listedStat = (ino: Ino, type: number, inos: Inos): PackageStat => {
  const stat = statOf(none, inos)
  stat.mode = type << 12
  stat.ino = inos.shown(ino)
  return stat
}

/** Counts that exceed 32 bits are expressed in larger blocks. */
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
