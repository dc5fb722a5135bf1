/**
 * FUSE requests and replies as bytes, written from include/uapi/linux/fuse.h. It shares no code
 * with src/fuse, which the tests check. Fields are listed in the order of the structures.
 */

import {
  Attr,
  Entry,
  Opened,
  SetAttr,
  StatFsOut,
  type Caller,
  type DirPlusSink,
  type DirSink,
  type Ops,
} from '../../src/overlay/ops.js'

// Fields

export const u16 = (n: number): Buffer => {
  const b = Buffer.alloc(2)
  b.writeUInt16LE(n)
  return b
}
export const u32 = (n: number): Buffer => {
  const b = Buffer.alloc(4)
  b.writeUInt32LE(n >>> 0)
  return b
}
export const s32 = (n: number): Buffer => {
  const b = Buffer.alloc(4)
  b.writeInt32LE(n)
  return b
}
export const u64 = (n: number | bigint): Buffer => {
  const b = Buffer.alloc(8)
  b.writeBigUInt64LE(BigInt.asUintN(64, BigInt(n)))
  return b
}
export const zeros = (n: number): Buffer => Buffer.alloc(n)
/** A NUL-terminated string, one byte per character. */
export const cstr = (s: string): Buffer => Buffer.from(`${s}\0`, 'latin1')
export const join = (...fields: (Buffer | Uint8Array)[]): Buffer => Buffer.concat(fields)

// Frames

/** enum fuse_opcode, copied from the header independently of src/fuse. */
export const OP = {
  LOOKUP: 1,
  FORGET: 2,
  GETATTR: 3,
  SETATTR: 4,
  READLINK: 5,
  SYMLINK: 6,
  MKNOD: 8,
  MKDIR: 9,
  UNLINK: 10,
  RMDIR: 11,
  RENAME: 12,
  LINK: 13,
  OPEN: 14,
  READ: 15,
  WRITE: 16,
  STATFS: 17,
  RELEASE: 18,
  FSYNC: 20,
  SETXATTR: 21,
  GETXATTR: 22,
  LISTXATTR: 23,
  REMOVEXATTR: 24,
  FLUSH: 25,
  INIT: 26,
  OPENDIR: 27,
  READDIR: 28,
  RELEASEDIR: 29,
  FSYNCDIR: 30,
  GETLK: 31,
  SETLK: 32,
  SETLKW: 33,
  ACCESS: 34,
  CREATE: 35,
  INTERRUPT: 36,
  BMAP: 37,
  DESTROY: 38,
  IOCTL: 39,
  POLL: 40,
  NOTIFY_REPLY: 41,
  BATCH_FORGET: 42,
  FALLOCATE: 43,
  READDIRPLUS: 44,
  RENAME2: 45,
  LSEEK: 46,
  COPY_FILE_RANGE: 47,
  SETUPMAPPING: 48,
  REMOVEMAPPING: 49,
  SYNCFS: 50,
  TMPFILE: 51,
  STATX: 52,
  COPY_FILE_RANGE_64: 53,
} as const

/** The halves differ in every byte, so that a test notices a swapped or lost half. */
export const UNIQUE = 0x0102_0304_a5b6_c7d8n
export const NODE = 0x0000_0011_2233_4455n
export const UID = 0xc001_d00d
export const GID = 0xdead_beef
export const PID = 0x0bad_cafe

export interface Head {
  unique?: bigint
  nodeid?: number | bigint
  uid?: number
  gid?: number
  pid?: number
  /** The length in the header, if it has to differ from the real one. */
  len?: number
}

/** struct fuse_in_header and the body. */
export const request = (opcode: number, body: Buffer = zeros(0), head: Head = {}): Buffer =>
  join(
    u32(head.len ?? 40 + body.length),
    u32(opcode),
    u64(head.unique ?? UNIQUE),
    u64(head.nodeid ?? NODE),
    u32(head.uid ?? UID),
    u32(head.gid ?? GID),
    u32(head.pid ?? PID),
    u16(0), // total_extlen
    u16(0), // padding
    body,
  )

/** struct fuse_out_header and the body. */
export const reply = (body: Buffer = zeros(0), unique: bigint = UNIQUE): Buffer =>
  join(u32(16 + body.length), s32(0), u64(unique), body)

export const errorReply = (errno: number, unique: bigint = UNIQUE): Buffer =>
  join(u32(16), s32(-errno), u64(unique))

// A union that records its calls

/** The values that the recording union writes into every `Attr`. */
export const fillAttr = (attr: Attr): void => {
  attr.ino = 0xfedc_ba98_7654_3210n
  attr.size = 0x12_3456_789a
  attr.blocks = 0x1f2f3f
  attr.atimeSec = -1
  attr.atimeNsec = 1
  attr.mtimeSec = 0x1_0000_0002
  attr.mtimeNsec = 999_999_999
  attr.ctimeSec = 3
  attr.ctimeNsec = 4
  attr.btimeSec = -5
  attr.btimeNsec = 6
  attr.mode = 0o100644
  attr.nlink = 7
  attr.uid = 0xffff_fffe
  attr.gid = 9
  attr.rdevMajor = 0xabc
  attr.rdevMinor = 0x12345
  attr.blksize = 4096
  attr.attributes = 0x10
  attr.attributesMask = 0x30
  attr.mask = 0xfff
}

/** struct fuse_attr of `fillAttr`. */
export const attrBytes = (): Buffer =>
  join(
    u64(0xfedc_ba98_7654_3210n), // ino
    u64(0x12_3456_789a), // size
    u64(0x1f2f3f), // blocks
    u64(-1), // atime
    u64(0x1_0000_0002), // mtime
    u64(3), // ctime
    u32(1), // atimensec
    u32(999_999_999), // mtimensec
    u32(4), // ctimensec
    u32(0o100644), // mode
    u32(7), // nlink
    u32(0xffff_fffe), // uid
    u32(9), // gid
    u32(0x123abc45), // rdev: minor 19..8, major 11..0, minor 7..0
    u32(4096), // blksize
    u32(0), // flags
  )

/** struct fuse_entry_out of node 0x42 */
export const entryBytes = (
  entrySec: number,
  attrSec: number,
  node: number | bigint = 0x42,
): Buffer =>
  join(
    u64(node), // nodeid
    u64(0), // generation
    u64(entrySec), // entry_valid
    u64(attrSec), // attr_valid
    u32(0), // entry_valid_nsec
    u32(0), // attr_valid_nsec
    attrBytes(),
  )

/** The entries that the recording union lists: name, inode, DT_*, cookie, node. */
export const LISTING: readonly (readonly [string, number | bigint, number, number, number])[] = [
  ['.', 1, 4, 1, 0],
  ['..', 2, 4, 2, 0],
  ['a', 0xfedc_ba98_7654_3210n, 8, 3, 0x51],
  ['exactly8', 77, 10, 0x1_0000_0004, 0x52],
  ['\xff\xfe', 78, 2, 0x1_0000_0005, 0],
]

/**
 * Records each call with copies of its arguments; `results` has the results, `throws` the
 * exceptions.
 */
export class RecordingOps implements Ops {
  readonly calls: unknown[][] = []
  /** The arguments of `mappable`. */
  readonly mapped: number[] = []
  readonly results: Partial<Record<keyof Ops, number>> = {}
  readonly throws: Partial<Record<keyof Ops, unknown>> = {}
  /** The nodeid of an entry; 0 for a negative entry. */
  node = 0x42
  fh = 0x77
  /** Applied to `Opened` after it was filled. */
  opening: (opened: Opened) => void = () => {}
  /** The data of READ, READLINK, GETXATTR and LISTXATTR. */
  data = Buffer.from('some data\0\xff', 'latin1')
  wakeFd = -1
  readonly requester: Caller = { uid: 0, gid: 0, pid: 0, umask: 0 }
  callbacks = 0
  closed = false
  syncIsFree = false
  readonly slow = null
  busy = false
  notifying = false

  /** How often `closeIdleFds` can close descriptors. */
  rooms = 0

  closeIdleFds(): boolean {
    return this.rooms-- > 0
  }

  get last(): unknown[] | undefined {
    return this.calls.at(-1)
  }

  #note(name: keyof Ops, ...args: unknown[]): number {
    this.calls.push([name, ...args])
    if (name in this.throws) throw this.throws[name]
    return this.results[name] ?? 0
  }
  #entry(r: number, out: Entry): number {
    if (r < 0) return r
    out.nodeId = this.node
    fillAttr(out.attr)
    return r
  }
  #opened(r: number, out: Opened): number {
    if (r < 0) return r
    Object.assign(out, new Opened(), { fh: this.fh, fd: 99 })
    this.opening(out)
    return r
  }
  #data(r: number, buf: Buffer, offset: number, room: number): number {
    if (r < 0) return r
    if (room >= this.data.length) this.data.copy(buf, offset)
    return this.data.length
  }

  lookup(parent: number, name: string, out: Entry): number {
    return this.#entry(this.#note('lookup', parent, name), out)
  }
  forget(node: number, count: number): void {
    this.#note('forget', node, count)
  }
  getattr(node: number, fh: number, out: Attr): number {
    const r = this.#note('getattr', node, fh)
    if (r >= 0) fillAttr(out)
    return r
  }
  setattr(node: number, set: SetAttr, out: Attr): number {
    const r = this.#note('setattr', node, Object.assign({}, set))
    if (r >= 0) fillAttr(out)
    return r
  }
  readlink(node: number, buf: Buffer, offset: number): number {
    return this.#data(this.#note('readlink', node), buf, offset, 4096)
  }
  mknod(caller: Caller, parent: number, name: string, ...rest: [...number[], Entry]): number {
    const out = rest.at(-1) as Entry
    return this.#entry(this.#note('mknod', { ...caller }, parent, name, ...rest.slice(0, -1)), out)
  }
  mkdir(caller: Caller, parent: number, name: string, mode: number, out: Entry): number {
    return this.#entry(this.#note('mkdir', { ...caller }, parent, name, mode), out)
  }
  symlink(caller: Caller, parent: number, name: string, target: string, out: Entry): number {
    return this.#entry(this.#note('symlink', { ...caller }, parent, name, target), out)
  }
  create(
    caller: Caller,
    parent: number,
    name: string,
    mode: number,
    flags: number,
    out: Entry,
    opened: Opened,
  ): number {
    const r = this.#note('create', { ...caller }, parent, name, mode, flags)
    return this.#opened(this.#entry(r, out), opened)
  }
  tmpfile(
    caller: Caller,
    parent: number,
    mode: number,
    flags: number,
    out: Entry,
    opened: Opened,
  ): number {
    const r = this.#note('tmpfile', { ...caller }, parent, mode, flags)
    return this.#opened(this.#entry(r, out), opened)
  }
  link(node: number, newParent: number, newName: string, out: Entry): number {
    return this.#entry(this.#note('link', node, newParent, newName), out)
  }
  unlink(parent: number, name: string): number {
    return this.#note('unlink', parent, name)
  }
  rmdir(parent: number, name: string): number {
    return this.#note('rmdir', parent, name)
  }
  rename(...args: [number, string, number, string, number]): number {
    return this.#note('rename', ...args)
  }
  open(node: number, flags: number, killPriv: boolean, opened: Opened): number {
    return this.#opened(this.#note('open', node, flags, killPriv), opened)
  }
  markStale(node: number): void {
    this.#note('markStale', node)
  }
  release(fh: number): void {
    this.#note('release', fh)
  }
  realFile(fh: number): number {
    return this.#note('realFile', fh)
  }
  mappable(fh: number): void {
    this.mapped.push(fh)
  }
  read(fh: number, buf: Buffer, bufOffset: number, length: number, pos: number | bigint): number {
    return this.#data(this.#note('read', fh, length, pos), buf, bufOffset, length)
  }
  write(
    fh: number,
    buf: Buffer,
    bufOffset: number,
    length: number,
    pos: number,
    killPriv: boolean,
    late: boolean,
  ): number {
    const data = buf.latin1Slice(bufOffset, bufOffset + length)
    const r = this.#note('write', fh, data, pos, killPriv, late)
    return r < 0 ? r : length
  }
  fsync(fh: number, datasync: boolean): number {
    return this.#note('fsync', fh, datasync)
  }
  fsyncdir(node: number, datasync: boolean): number {
    return this.#note('fsyncdir', node, datasync)
  }
  syncfs(): number {
    return this.#note('syncfs')
  }
  fallocate(...args: [number, number, number | bigint, number | bigint]): number {
    return this.#note('fallocate', ...args)
  }
  /**
   * The result of LSEEK, which may be larger than a safe integer; an error in `results` comes
   * first.
   */
  seen: number | bigint = 0

  lseek(fh: number, offset: number | bigint, whence: number): number | bigint {
    const r = this.#note('lseek', fh, offset, whence)
    return r === 0 ? this.seen : r
  }
  copyFileRange(...args: [number, number, number, number, number, number]): number {
    return this.#note('copyFileRange', ...args)
  }
  readdir(node: number, cookie: number, sink: DirSink): number {
    const r = this.#note('readdir', node, cookie)
    for (const [name, ino, type, next] of LISTING) {
      if (next > cookie && !sink.add(name, ino, type, next)) break
    }
    return r
  }
  readdirplus(directory: number, cookie: number, sink: DirPlusSink): number {
    const r = this.#note('readdirplus', directory, cookie)
    const entry = new Entry()
    for (const [name, ino, type, next, node] of LISTING) {
      if (next <= cookie) continue
      if (!sink.room(name)) break
      entry.nodeId = node
      fillAttr(entry.attr)
      sink.add(name, ino, type, next, entry)
    }
    return r
  }
  getxattr(node: number, name: string, buf: Buffer, offset: number, room: number): number {
    return this.#data(this.#note('getxattr', node, name, room), buf, offset, room)
  }
  listxattr(
    node: number,
    buf: Buffer,
    offset: number,
    room: number,
    trusted: boolean | Caller,
  ): number {
    const access = typeof trusted === 'boolean' ? trusted : { ...trusted }
    return this.#data(this.#note('listxattr', node, room, access), buf, offset, room)
  }
  setxattr(
    node: number,
    name: string,
    value: Uint8Array,
    flags: number,
    killSgid: boolean,
  ): number {
    const text = Buffer.from(value).toString('latin1')
    return this.#note('setxattr', node, name, text, flags, killSgid)
  }
  removexattr(node: number, name: string): number {
    return this.#note('removexattr', node, name)
  }
  getFlags(node: number): number {
    return this.#note('getFlags', node)
  }
  setFlags(node: number, flags: number): number {
    return this.#note('setFlags', node, flags)
  }
  statfs(out: StatFsOut): number {
    const r = this.#note('statfs')
    Object.assign(out, {
      bsize: 4096,
      frsize: 1024,
      blocks: 0x10_0000_0001,
      bfree: 2,
      bavail: 3,
      files: 4,
      ffree: 5,
      namelen: 255,
    })
    return r
  }
  runCallbacks(): void {
    this.callbacks++
  }
  close(): void {
    this.closed = true
  }
}
