/**
 * The contract between the union and its transports: operations on node ids and file handles, all
 * synchronous, results as numbers. A transport decodes a request, calls one of these, and encodes
 * what was written into the `out` structure, which the transport owns and reuses.
 */

import { STATX_WORDS, Statx, type Ino } from '../sys/stat.js'
import type { Off } from '../sys/types.js'

/** A file or attribute name, or a symlink's target: one character per byte (latin1), no NUL. */
export type ByteString = string

/** 0 or more: success (a count where the operation has one). Below 0: -errno. */
export type Result = number

/** The union's number for an inode; 1 is the root. A number is never used twice. */
export type NodeId = number

/**
 * An open file; 0 means none. Below 0 it is the file of a node that nobody has opened (`ofNode`):
 * for data where the union was told that the kernel sends no OPEN.
 */
export type Fh = number

export const ROOT_ID: NodeId = 1

/** The largest of `Opened.unread`. */
export const UNREAD_MAX = 0x3fff_ffff

export const ofNode = (node: NodeId): Fh => -node

/**
 * Who asks. `uid` and `gid` are file system ids; `umask` is only meaningful where something is
 * created.
 */
export interface Caller {
  uid: number
  gid: number
  pid: number
  umask: number
}

/** Attributes of one inode as struct statx has them. */
export class Attr extends Statx {
  constructor() {
    super(new Uint32Array(STATX_WORDS))
    this.blksize = 4096
  }
}

/** The answer to everything that yields an inode. */
export class Entry {
  /** 0: a negative entry (the name does not exist, and that may be cached). */
  nodeId: NodeId = 0
  readonly attr = new Attr()
}

/** The answer to open, create and tmpfile. */
export class Opened {
  fh: Fh = 0
  /**
   * The descriptor of the real file that serves this handle, until the node is copied up. -1:
   * `realFile` opens it.
   */
  fd = -1
  /** The handle may write. */
  writable = false
  /** Though it may, the descriptor is open for reading alone. */
  onlyReads = false
  /** The real file lies in the upper layer. */
  upper = false
  /**
   * It will serve this node for as long as the node lives, and may be read by the kernel itself: it
   * is the upper layer's; or nothing is ever copied up, and reading does not move the access time
   * of the lower file.
   */
  lasting = false
  /** The real file has set-id bits or a security.capability which a write must be able to drop. */
  privileged = false
  /**
   * The file's size as it was told last, at most `UNREAD_MAX`, if nobody has opened the node
   * before; else -1.
   */
  unread = -1
}

/** Bits of `SetAttr.valid`; the numbers are those of FATTR_* in linux/fuse.h. */
export const SetAttrValid = {
  MODE: 1 << 0,
  UID: 1 << 1,
  GID: 1 << 2,
  SIZE: 1 << 3,
  ATIME: 1 << 4,
  MTIME: 1 << 5,
  FH: 1 << 6,
  ATIME_NOW: 1 << 7,
  MTIME_NOW: 1 << 8,
  CTIME: 1 << 10,
  KILL_SUIDGID: 1 << 11,
} as const

export class SetAttr {
  valid = 0
  mode = 0
  uid = 0
  gid = 0
  size: Off = 0
  atimeSec = 0
  atimeNsec = 0
  mtimeSec = 0
  mtimeNsec = 0
  /** Set when `valid` has FH. */
  fh: Fh = 0
}

export class StatFsOut {
  bsize = 0
  frsize = 0
  blocks = 0
  bfree = 0
  bavail = 0
  files = 0
  ffree = 0
  namelen = 0
}

/** Receives the entries of one readdir call. */
export interface DirSink {
  /**
   * @param cookie what to pass to go on after this entry
   * @param type DT_* of dirent.h
   * @returns false: there was no room, the entry was not taken
   */
  add(name: ByteString, ino: Ino, type: number, cookie: number): boolean
}

/** Receives the entries of one readdirplus call. */
export interface DirPlusSink {
  /** Whether an entry of this name still fits: asked before the entry is looked up. */
  room(name: ByteString): boolean
  /**
   * Called after `room` said yes. `entry.nodeId` 0 means "no attributes for this one" (`.`, `..`,
   * or a name that vanished); otherwise the entry counts as one lookup.
   */
  add(name: ByteString, ino: Ino, type: number, cookie: number, entry: Entry): void
}

/** What the union tells the transport unasked. */
export interface Notifier {
  /** Attributes that the transport may have cached for this node are no longer true. */
  attrChanged(node: NodeId): void
  /**
   * What to write, and where, to have the kernel write back and drop the pages that it caches of
   * this node; null where it caches none. The write waits for requests that the union has to serve,
   * so it is for another thread.
   */
  dropPages(node: NodeId): { fd: number; bytes: Uint8Array } | null
  /**
   * The same to have the kernel forget nodes that nobody uses; null where it can't be asked. What
   * it has of a node is written back first.
   */
  forgetNodes(nodes: readonly NodeId[]): { fd: number; bytes: Uint8Array } | null
}

/** A piece of work outside the union's thread. */
export interface Job {
  /** Calls back on the union's thread, once, with 0 or -errno. */
  onDone(callback: (result: Result) => void): void
  /** Nobody waits for it any more: it may end early. */
  cancel?(): void
  /** Whoever waits for it does so to its end, even if he is killed. */
  readonly lasting?: boolean
}

/**
 * Thrown (never returned) by an operation that must wait for a job. Nothing has been changed that a
 * second call would not find as it needs it: the transport keeps the request, goes on with others,
 * and when the job is done
 * - answers with the job's result (a count where the operation has one), where `answer` is set or
 *   the job failed;
 * - else calls the same operation again.
 */
export class Pending {
  constructor(job: Job, answer: boolean) {
    this.job = job
    this.answer = answer
  }
  readonly job: Job
  readonly answer: boolean
}

/** What a request was told by slow layers: it goes with the request until that is answered. */
export interface Kept {
  readonly runs: number
}

/**
 * A union with lower layers on file systems that may keep a call waiting for as long as they like:
 * any of its operations may throw Pending, more than once. The transport says which request an
 * operation is called for.
 */
export interface SlowRequests {
  /**
   * Before the operations of a request. `kept`: what `suspend` gave when it was parked; null the
   * first time.
   */
  begin(kept: Kept | null): void
  /** The request is parked. */
  suspend(): Kept | null
  /** The request has its answer. */
  end(): void
  /** A parked request is not called again. */
  drop(kept: Kept | null): void
}

/** Set by the transport before calls that say `killPriv`, before `setattr` and `removexattr`. */
export interface Requester {
  readonly requester: Caller
}

/** Everything that a transport can ask of the union. Each may throw `Pending` where noted (P). */
export interface Ops extends Requester {
  /** Null: all layers answer by themselves. */
  readonly slow: SlowRequests | null
  /**
   * The name's inode; a name that does not exist gives 0 with `out.nodeId` 0. Counts one lookup.
   */
  lookup(parent: NodeId, name: ByteString, out: Entry): Result
  /** Takes back `count` lookups. */
  forget(node: NodeId, count: number): void
  getattr(node: NodeId, fh: Fh, out: Attr): Result
  /** (P) */
  setattr(node: NodeId, set: SetAttr, out: Attr): Result
  /** Writes the target into `buf` from `offset`; returns its length. */
  readlink(node: NodeId, buf: Buffer, offset: number): Result
  mknod(
    caller: Caller,
    parent: NodeId,
    name: ByteString,
    mode: number,
    rdevMajor: number,
    rdevMinor: number,
    out: Entry,
  ): Result
  mkdir(caller: Caller, parent: NodeId, name: ByteString, mode: number, out: Entry): Result
  symlink(caller: Caller, parent: NodeId, name: ByteString, target: ByteString, out: Entry): Result
  /**
   * Creates a regular file and opens it; -ESTALE where the name exists, without O_EXCL: who may
   * open that has not been checked.
   */
  create(
    caller: Caller,
    parent: NodeId,
    name: ByteString,
    mode: number,
    flags: number,
    out: Entry,
    opened: Opened,
  ): Result
  /** O_TMPFILE: a regular file without a name. */
  tmpfile(
    caller: Caller,
    parent: NodeId,
    mode: number,
    flags: number,
    out: Entry,
    opened: Opened,
  ): Result
  /** (P) */
  link(node: NodeId, newParent: NodeId, newName: ByteString, out: Entry): Result
  /** (P) */
  unlink(parent: NodeId, name: ByteString): Result
  rmdir(parent: NodeId, name: ByteString): Result
  /** `flags`: RENAME_NOREPLACE, RENAME_EXCHANGE. (P) */
  rename(
    parent: NodeId,
    name: ByteString,
    newParent: NodeId,
    newName: ByteString,
    flags: number,
  ): Result

  /**
   * Opens a regular file; `flags` are open(2)'s (O_TRUNC honoured). `killPriv`: an O_TRUNC drops
   * set-id bits. (P)
   */
  open(node: NodeId, flags: number, killPriv: boolean, opened: Opened): Result
  /**
   * The descriptor that `read` would read from, opened now where that was not needed yet; or
   * -errno. It never waits: -EAGAIN where `read` would have to.
   */
  realFile(fh: Fh): Result
  /**
   * The kernel has pages of its own for mappings of this file, and keeps no time for them: what is
   * written there comes later than what was asked for after it.
   */
  mappable(fh: Fh): void
  release(fh: Fh): void
  /**
   * What was told of this node is no longer so: opening it fails with ESTALE until its name was
   * looked up again.
   */
  outdated(node: NodeId): void
  /**
   * Reads into `buf` from `bufOffset`; returns the number of bytes, less than `length` only at the
   * end. (P)
   */
  read(fh: Fh, buf: Buffer, bufOffset: number, length: number, pos: Off): Result
  /**
   * `killPriv`: drop set-id bits as write(2) by an unprivileged user does. `late`: the kernel wrote
   * these bytes into its cache some time ago; with write-back it tells the time of that itself.
   */
  write(
    fh: Fh,
    buf: Buffer,
    bufOffset: number,
    length: number,
    pos: Off,
    killPriv: boolean,
    late: boolean,
  ): Result
  /**
   * Syncing changes nothing, and need not be asked for: the upper layer is in memory, or nobody
   * wants it.
   */
  readonly syncIsFree: boolean
  /** (P) */
  fsync(fh: Fh, datasync: boolean): Result
  /** (P) */
  fsyncdir(node: NodeId, datasync: boolean): Result
  /** The whole upper layer. (P) */
  syncfs(): Result
  /** (P) */
  fallocate(fh: Fh, mode: number, offset: Off, length: Off): Result
  /** SEEK_DATA and SEEK_HOLE; returns the offset, or -errno. (P) */
  lseek(fh: Fh, offset: Off, whence: number): Off
  /** How many bytes were copied. (P) */
  copyFileRange(fhIn: Fh, offIn: Off, fhOut: Fh, offOut: Off, length: number, flags: number): Result

  /**
   * Entries after `cookie` (0: from the start), `.` and `..` among them. A cookie means the same
   * place for as long as its name is there, to everyone.
   */
  readdir(node: NodeId, cookie: number, sink: DirSink): Result
  readdirplus(node: NodeId, cookie: number, sink: DirPlusSink): Result

  /**
   * Copies the value into `buf` from `offset` and returns its length; `room` 0 asks for the length.
   */
  getxattr(node: NodeId, name: ByteString, buf: Buffer, offset: number, room: number): Result
  /**
   * NUL-terminated names; as getxattr. `trusted`: who asks, or whether they may see trusted.*
   * names.
   */
  listxattr(
    node: NodeId,
    buf: Buffer,
    offset: number,
    room: number,
    trusted: boolean | Caller,
  ): Result
  /**
   * `killSgid`: the ACL that is set clears the set-group-id bit (FUSE_SETXATTR_ACL_KILL_SGID). (P)
   */
  setxattr(
    node: NodeId,
    name: ByteString,
    value: Uint8Array,
    flags: number,
    killSgid: boolean,
  ): Result
  /** (P) */
  removexattr(node: NodeId, name: ByteString): Result
  /** FS_IOC_GETFLAGS; returns the FS_*_FL bits. (P) */
  getFlags(node: NodeId): Result
  /** FS_IOC_SETFLAGS. (P) */
  setFlags(node: NodeId, flags: number): Result
  statfs(out: StatFsOut): Result

  /**
   * A descriptor that becomes readable when a job is done; `runCallbacks` then runs their
   * callbacks.
   */
  readonly wakeFd: number
  runCallbacks(): void
  /** Whether a job is under way: `wakeFd` is to be watched. */
  readonly busy: boolean
  /**
   * Whether a job of those is a message to the kernel that is to be taken before it gets further
   * answers, if it can be.
   */
  readonly telling: boolean
  /**
   * Closes descriptors that are opened again when they are needed, since something has failed with
   * EMFILE or ENFILE. False: there are none.
   */
  makeRoom(): boolean
  /** Closes every descriptor of every layer, and the locks. */
  close(): void
}
