/**
 * Encodes the structures of replies at an offset of the reply's buffer. A function returns the
 * structure's size if it varies; otherwise the size is a constant of abi.ts.
 */

import type {
  Attr,
  ByteString,
  DirPlusSink,
  DirSink,
  Entry,
  NodeId,
  StatFsOut,
} from '../../overlay/ops.js'
import { S_IFDIR, S_IFMT } from '../../sys/constants.js'
import type { Ino } from '../../sys/types.js'
import {
  ATTR_OUT_SIZE,
  COPY_FILE_RANGE_OUT_SIZE,
  DIRENT_SIZE,
  DIRENTPLUS_SIZE,
  ENTRY_OUT_SIZE,
  Opcode,
  OUT_HEADER_SIZE,
  STATX_OUT_SIZE,
  WRITE_OUT_SIZE,
} from './abi.js'
import { defaultTuning, type Tuning } from '../../config/tuning.js'
import type { Reply } from './wire.js'

/** How long the kernel may cache a name or attributes, as seconds and nanoseconds. */
export class Validity {
  readonly sec: number
  readonly nsec: number

  constructor(seconds: number) {
    this.sec = Math.floor(seconds)
    this.nsec = Math.floor((seconds - this.sec) * 1e9)
  }
}

/** The kernel may not cache it. */
export const NEVER = new Validity(0)

/** With static_nlink, every reply gives a directory the link count 1, or 0 if it was removed. */
export const countLinks = (attr: Attr, { staticNlink }: Tuning): void => {
  if (staticNlink && attr.nlink > 1 && (attr.mode & S_IFMT) === S_IFDIR) attr.nlink = 1
}

/** struct fuse_entry_out; a negative entry if `entry.nodeId` is 0. */
export const writeEntry = (
  rep: Reply,
  at: number,
  entry: Entry,
  name: Validity,
  attrs: Validity,
): void => {
  rep.i64(at, entry.nodeId)
  rep.i64(at + 8, 0) // generation: nodeids are never used twice
  rep.i64(at + 16, name.sec)
  rep.u32(at + 32, name.nsec)
  if (entry.nodeId === 0) {
    rep.i64(at + 24, 0)
    rep.zero(at + 36, at + ENTRY_OUT_SIZE)
    return
  }
  rep.i64(at + 24, attrs.sec)
  rep.u32(at + 36, attrs.nsec)
  rep.attr(at + 40, entry.attr.words)
}

/** struct fuse_attr_out */
export const writeAttrOut = (rep: Reply, at: number, attr: Attr, valid: Validity): number => {
  rep.i64(at, valid.sec)
  rep.u32(at + 8, valid.nsec)
  rep.u32(at + 12, 0)
  rep.attr(at + 16, attr.words)
  return ATTR_OUT_SIZE
}

/** struct fuse_statx_out */
export const writeStatx = (rep: Reply, at: number, attr: Attr, valid: Validity): number => {
  rep.i64(at, valid.sec)
  rep.u32(at + 8, valid.nsec)
  rep.zero(at + 12, at + STATX_OUT_SIZE)
  rep.statx(at + 32, attr.words)
  return STATX_OUT_SIZE
}

/** struct fuse_open_out */
export const writeOpen = (
  rep: Reply,
  at: number,
  fh: number,
  flags: number,
  backingId: number,
): void => {
  rep.i64(at, fh)
  rep.u32(at + 8, flags)
  rep.u32(at + 12, backingId)
}

/** struct fuse_statfs_out */
export const writeStatfs = (rep: Reply, at: number, st: StatFsOut): void => {
  rep.i64(at, st.blocks)
  rep.i64(at + 8, st.bfree)
  rep.i64(at + 16, st.bavail)
  rep.i64(at + 24, st.files)
  rep.i64(at + 32, st.ffree)
  rep.u32(at + 40, st.bsize)
  rep.u32(at + 44, st.namelen)
  rep.u32(at + 48, st.frsize)
  rep.zero(at + 52, at + 80)
}

const align = (length: number): number => (length + 7) & ~7

/** struct fuse_dirent and the name, padded. Returns the offset behind it. */
const writeDirent = (
  rep: Reply,
  at: number,
  name: ByteString,
  ino: Ino,
  type: number,
  cookie: number,
): number => {
  rep.ino(at, ino)
  rep.i64(at + 8, cookie)
  rep.u32(at + 16, name.length)
  rep.u32(at + 20, type)
  const end = align(at + DIRENT_SIZE + name.length)
  // Zeroes the last 8 bytes, for the padding. The name may overwrite the first of them.
  rep.i64(end - 8, 0)
  rep.buf.latin1Write(name, at + DIRENT_SIZE)
  return end
}

/** Packs READDIR's entries from `start`, at most `room` bytes. */
export class DirPacker implements DirSink {
  readonly #rep: Reply
  #at = 0
  #end = 0

  constructor(rep: Reply) {
    this.#rep = rep
  }
  begin(start: number, room: number): void {
    this.#at = start
    this.#end = start + room
  }
  /** The end of the packed entries. */
  get end(): number {
    return this.#at
  }
  add(name: ByteString, ino: Ino, type: number, cookie: number): boolean {
    if (this.#at + align(DIRENT_SIZE + name.length) > this.#end) return false
    this.#at = writeDirent(this.#rep, this.#at, name, ino, type, cookie)
    return true
  }
}

/** Packs READDIRPLUS' entries: struct fuse_entry_out before each struct fuse_dirent. */
export class DirPlusPacker implements DirPlusSink {
  readonly #rep: Reply
  readonly #names: Validity
  readonly #attrs: (node: NodeId) => Validity
  readonly #tuning: Tuning
  #at = 0
  #end = 0

  /** @param attrs how long the attributes of a node are valid */
  constructor(
    rep: Reply,
    names: Validity,
    attrs: (node: NodeId) => Validity,
    tuning: Tuning = defaultTuning,
  ) {
    this.#rep = rep
    this.#names = names
    this.#attrs = attrs
    this.#tuning = tuning
  }
  begin(start: number, room: number): void {
    this.#at = start
    this.#end = start + room
  }
  get end(): number {
    return this.#at
  }
  room(name: ByteString): boolean {
    return this.#at + align(DIRENTPLUS_SIZE + name.length) <= this.#end
  }
  add(name: ByteString, ino: Ino, type: number, cookie: number, entry: Entry): void {
    const node = entry.nodeId
    // Without a node the kernel takes only the name. The timeout must be 0: otherwise the kernel
    // would cache a negative entry.
    if (node === 0) {
      this.#rep.zero(this.#at, this.#at + ENTRY_OUT_SIZE)
    } else {
      countLinks(entry.attr, this.#tuning)
      writeEntry(this.#rep, this.#at, entry, this.#names, this.#attrs(node))
    }
    this.#at = writeDirent(this.#rep, this.#at + ENTRY_OUT_SIZE, name, ino, type, cookie)
  }
}

/**
 * Encodes the count that an operation returned, if the opcode's reply has one. Returns its size.
 */
export const countOut = (opcode: number, rep: Reply, count: number): number => {
  switch (opcode) {
    // struct fuse_write_out
    case Opcode.COPY_FILE_RANGE:
      rep.u32(OUT_HEADER_SIZE, count)
      rep.u32(OUT_HEADER_SIZE + 4, 0)
      return WRITE_OUT_SIZE
    // struct fuse_copy_file_range_out
    case Opcode.COPY_FILE_RANGE_64:
      rep.i64(OUT_HEADER_SIZE, count)
      return COPY_FILE_RANGE_OUT_SIZE
    default:
      return 0
  }
}

/** Calls back for each node in a packed READDIRPLUS reply of `length` bytes. */
export const forEachPlusEntry = (
  buf: Buffer,
  length: number,
  callback: (node: NodeId) => void,
): void => {
  for (let at = OUT_HEADER_SIZE; at < length;) {
    const node = buf.readUIntLE(at, 6)
    if (node !== 0) callback(node)
    at += align(DIRENTPLUS_SIZE + buf.readUInt32LE(at + ENTRY_OUT_SIZE + 16))
  }
}
