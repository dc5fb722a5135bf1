/**
 * The interface between the union and its transports: synchronous operations on node ids and file
 * handles, with numeric results. A transport decodes a request, calls one operation, and encodes
 * the result from the `out` structure, which the transport owns and reuses.
 */

import { STATX_WORDS, Statx, type Ino } from '../sys/stat.js'
import type { Off } from '../sys/types.js'

/** A file name, xattr name or symlink target: one character per byte (latin1), no NUL. */
export type ByteString = string

/** 0 or more: success (a count, if the operation has one). Below 0: -errno. */
export type Result = number

/** The number of an inode in the union; 1 is the root. Numbers are never reused. */
export type NodeId = number

/**
 * An open file; 0: none. Below 0: the inode file of a node (`ofNode`), for data requests of a
 * kernel that sends no OPEN.
 */
export type Fh = number

export const ROOT_ID: NodeId = 1

/** The maximum of `Opened.unread`. */
export const UNREAD_MAX = 0x3fff_ffff

export const ofNode = (node: NodeId): Fh => -node

/**
 * The process that made the system call. `uid` and `gid` are its file system ids; `umask` is valid
 * only for operations that create an object.
 */
export interface Caller {
  uid: number
  gid: number
  pid: number
  umask: number
}

/** Attributes of an inode, as in struct statx. */
export class Attr extends Statx {
  constructor() {
    super(new Uint32Array(STATX_WORDS))
    this.blksize = 4096
  }
}

/** The result of an operation that yields an inode. */
export class Entry {
  /** 0: a negative entry. The name does not exist, and the kernel may cache that. */
  nodeId: NodeId = 0
  readonly attr = new Attr()
}

/** The result of open, create and tmpfile. */
export class Opened {
  fh: Fh = 0
  /**
   * The descriptor of the real file that serves this handle until the node is copied up. -1:
   * `realFile` opens it.
   */
  fd = -1
  /** The handle may be used to write. */
  writable = false
  /** The handle may be used to write, but the descriptor is open read-only. */
  onlyReads = false
  /** The real file is in the upper layer. */
  upper = false
  /**
   * The real file serves this node as long as the node exists, and the kernel may read it directly.
   * It is a file of the upper layer; or the union is read-only and reads do not change the access
   * time of the lower file.
   */
  stable = false
  /** The real file has set-id bits or a security.capability that a write must be able to drop. */
  privileged = false
  /**
   * The last reported size of the file, at most `UNREAD_MAX`, if the node has not been opened
   * before; else -1.
   */
  unread = -1
}

/** Bits of `SetAttr.valid`. The values are those of FATTR_* in linux/fuse.h. */
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
  /** Valid if `valid` has FH. */
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
   * @param cookie the position after this entry
   * @param type DT_* of dirent.h
   * @returns false: the buffer is full, and the entry was not added
   */
  add(name: ByteString, ino: Ino, type: number, cookie: number): boolean
}

/** Receives the entries of one readdirplus call. */
export interface DirPlusSink {
  /** Whether an entry with this name still fits. Called before the lookup of the entry. */
  room(name: ByteString): boolean
  /**
   * Called after `room` has returned true. If `entry.nodeId` is 0, the entry has no attributes
   * (`.`, `..`, or a name that was removed). Otherwise the entry counts as one lookup.
   */
  add(name: ByteString, ino: Ino, type: number, cookie: number, entry: Entry): void
}

/** Notifications of the union to the transport. */
export interface Notifier {
  /** The kernel's cached attributes of this node are no longer valid. */
  attrChanged(node: NodeId): void
  /**
   * The message that makes the kernel write back and drop its cached pages of this node, and the
   * descriptor to write it to; null if the kernel caches none. The write waits for requests that
   * the union must serve, so a job thread must make it.
   */
  dropPages(node: NodeId): { fd: number; bytes: Uint8Array } | null
  /**
   * The message that makes the kernel forget unused nodes, after it has written back their data;
   * null if the transport has no such message.
   */
  forgetNodes(nodes: readonly NodeId[]): { fd: number; bytes: Uint8Array } | null
}

/** A task outside the union's thread. */
export interface Job {
  /** Runs the callback on the union's thread, once, with 0 or -errno. */
  onDone(callback: (result: Result) => void): void
  /** No request waits for the job any more, so it may end early. */
  cancel?(): void
  /** A request that waits for the job is not interrupted, even if its caller is killed. */
  readonly uninterruptible?: boolean
}

/**
 * Thrown (never returned) by an operation that must wait for a job. Any change made so far is one
 * that the same operation expects when it is called again. The transport suspends the request and
 * serves others. When the job is done, it
 * - answers with the job's result (a count, if the operation has one), if `answer` is set or the
 *   job failed;
 * - otherwise calls the same operation again.
 */
export class Pending {
  constructor(job: Job, answer: boolean) {
    this.job = job
    this.answer = answer
  }
  readonly job: Job
  readonly answer: boolean
}

/**
 * The answers of slow layers for a request. They are kept with the suspended request until it is
 * answered.
 */
export interface KeptAnswers {
  readonly runs: number
}

/**
 * Present if lower layers are on file systems that may block a system call indefinitely. Any
 * operation may then throw `Pending`, more than once. The transport reports which request it calls
 * the operations for.
 */
export interface SlowRequests {
  /**
   * Called before the operations of a request. `kept`: the result of `suspend` if the request was
   * suspended; else null.
   */
  begin(kept: KeptAnswers | null): void
  /** The request is suspended. */
  suspend(): KeptAnswers | null
  /** The request is answered. */
  end(): void
  /** A suspended request is dropped without an answer. */
  drop(kept: KeptAnswers | null): void
}

/** The transport sets it before calls with `killPriv`, and before `setattr` and `removexattr`. */
export interface Requester {
  readonly requester: Caller
}

/** All operations of the union. Operations marked (P) may throw `Pending`. */
export interface Ops extends Requester {
  /** Null: no layer is slow. */
  readonly slow: SlowRequests | null
  /**
   * Looks a name up and counts one lookup. If the name does not exist, returns 0 with `out.nodeId`
   * 0.
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
   * Creates a regular file and opens it. -ESTALE if the name exists and O_EXCL is not set, because
   * the kernel has not checked whether the caller may open the existing file.
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
   * Opens a regular file. `flags` are those of open(2), including O_TRUNC. `killPriv`: O_TRUNC
   * drops set-id bits. (P)
   */
  open(node: NodeId, flags: number, killPriv: boolean, opened: Opened): Result
  /**
   * The descriptor that `read` would use, opened if necessary; or -errno. Never throws `Pending`:
   * returns -EAGAIN if `read` would have to wait.
   */
  realFile(fh: Fh): Result
  /**
   * The kernel caches pages for mappings of this file and does not keep its mtime. Writes through
   * the mapping arrive after later requests.
   */
  mappable(fh: Fh): void
  release(fh: Fh): void
  /**
   * The reported attributes of this node are no longer valid: an open fails with ESTALE until the
   * kernel has looked up the name again.
   */
  markStale(node: NodeId): void
  /**
   * Reads into `buf` from `bufOffset`. Returns the number of bytes, less than `length` only at the
   * end of the file. (P)
   */
  read(fh: Fh, buf: Buffer, bufOffset: number, length: number, pos: Off): Result
  /**
   * `killPriv`: drop set-id bits, as write(2) by an unprivileged user does. `late`: the kernel
   * stored these bytes in its cache some time ago. With write-back it sends the time of that write
   * itself.
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
   * A sync has no effect and need not be requested: the upper layer is in memory, or syncing is
   * disabled.
   */
  readonly syncIsFree: boolean
  /** (P) */
  fsync(fh: Fh, datasync: boolean): Result
  /** (P) */
  fsyncdir(node: NodeId, datasync: boolean): Result
  /** Syncs the whole upper layer. (P) */
  syncfs(): Result
  /** (P) */
  fallocate(fh: Fh, mode: number, offset: Off, length: Off): Result
  /** SEEK_DATA and SEEK_HOLE; returns the offset, or -errno. (P) */
  lseek(fh: Fh, offset: Off, whence: number): Off
  /** Returns the number of bytes copied. (P) */
  copyFileRange(fhIn: Fh, offIn: Off, fhOut: Fh, offOut: Off, length: number, flags: number): Result

  /**
   * Adds the entries after `cookie` (0: from the start), including `.` and `..`. A cookie denotes
   * the same position for every caller as long as its name exists.
   */
  readdir(node: NodeId, cookie: number, sink: DirSink): Result
  readdirplus(node: NodeId, cookie: number, sink: DirPlusSink): Result

  /**
   * Copies the value into `buf` from `offset` and returns its length. `room` 0 requests only the
   * length.
   */
  getxattr(node: NodeId, name: ByteString, buf: Buffer, offset: number, room: number): Result
  /**
   * NUL-terminated names, returned as by getxattr. `trusted`: the caller, or whether it may see
   * trusted.* names.
   */
  listxattr(
    node: NodeId,
    buf: Buffer,
    offset: number,
    room: number,
    trusted: boolean | Caller,
  ): Result
  /** `killSgid`: setting the ACL clears the set-group-id bit (FUSE_SETXATTR_ACL_KILL_SGID). (P) */
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

  /** Becomes readable when a job is done; the transport then calls `runCallbacks`. */
  readonly wakeFd: number
  runCallbacks(): void
  /** Whether a job is running, so that the transport must watch `wakeFd`. */
  readonly busy: boolean
  /**
   * Whether a running job sends a notification to the kernel. The kernel should receive it before
   * further answers, if possible.
   */
  readonly notifying: boolean
  /**
   * Closes descriptors that the union can reopen, after a call has failed with EMFILE or ENFILE.
   * Returns false if there are none.
   */
  closeIdleFds(): boolean
  /** Closes all descriptors of the layers, which releases the locks. */
  close(): void
}
