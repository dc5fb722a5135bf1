/**
 * The union as seen by a transport: finds nodes and handles by number, and calls the module that
 * implements the operation.
 */

import { fstatx, openat, readlinkat } from '../sys/at.js'
import { O_DIRECTORY, O_RDONLY, S_IFDIR, S_IFLNK, S_IFREG } from '../sys/constants.js'
import { E } from '../sys/errno.js'
import { close } from '../sys/io.js'
import type { Off } from '../sys/types.js'
import { getattr, getFlags, setattr, setFlags, statfs } from './file/attr.js'
import { invalidateAttrs } from './inode/invalidate.js'
import { create, mkdir, mknod, symlink, tmpfile } from './namei/create.js'
import type { FileHandle } from './inode/node.js'
import {
  HandleTable,
  lseekFile,
  openFile,
  readFile,
  realFd,
  syncFd,
  writeFile,
  writeLate,
} from './file/handles.js'
import { forgetCachedNodes } from './inode/forget-cached.js'
import { link } from './namei/link.js'
import { findCurrent } from './namei/lookup.js'
import { NewObject } from './namei/new-object.js'
import type { Node } from './inode/node.js'
import { openState, type UnionDeps } from './open-union.js'
import {
  Entry,
  Pending,
  type Attr,
  type ByteString,
  type Caller,
  type DirPlusSink,
  type DirSink,
  type Fh,
  type NodeId,
  type Opened,
  type Ops,
  type Result,
  type SetAttr,
  type SlowRequests,
  type StatFsOut,
} from './ops.js'
import type { UnionOptions } from './options.js'
import { copyFileRange, fallocateFile } from './file/ranges.js'
import { readdir, readdirplus } from './namei/readdir.js'
import { orPending } from './layer/open-regular.js'
import { isBulky } from './jobs/bulky.js'
import { rmdir, unlink } from './namei/remove.js'
import { rename } from './namei/rename.js'
import { InodeFileTable } from './file/inode-files.js'
import { fillAttr } from './inode/shown-attr.js'
import { isReadOnly } from './inode/context.js'
import { layersOf } from './layer/context.js'
import { Place } from './inode/place.js'
import { locate } from './inode/real-object.js'
import type { Union } from './namei/context.js'
import { CHANGED } from './inode/lower-version.js'
import { explain, type Answer } from './namei/which.js'
import { getxattr, listxattr, removexattr, setxattr } from './file/xattr.js'

const place = new Place()
const NAME_MAX = 255

/** @throws {MountError} if the layers cannot form a union */
export function openUnion(options: UnionOptions, deps: UnionDeps): Overlay {
  return new Overlay(openState(options, deps))
}

export class Overlay implements Ops {
  readonly #u: Union
  readonly #handles: HandleTable
  readonly #listed = new Entry()
  #forgetting = false
  readonly wakeFd: number
  readonly requester: Caller = { uid: 0, gid: 0, pid: 0, umask: 0 }

  readonly slow: SlowRequests | null
  readonly syncIsFree: boolean

  constructor(union: Union) {
    this.#u = union
    this.slow = union.slow
    this.#handles = union.noOpen ? new InodeFileTable(union) : new HandleTable()
    this.syncIsFree = union.syncIsFree
    this.wakeFd = union.pool.wakeFd
  }

  /**
   * Whether the kernel may write pages back. False if the file system does not store times exactly.
   */
  get writeback(): boolean {
    return this.#u.writeback
  }

  get busy(): boolean {
    const { pool, slow } = this.#u
    return pool.pending > 0 || (slow !== null && slow.threads.pending > 0)
  }

  get notifying(): boolean {
    return this.#u.pendingMessages.count > 0
  }

  runCallbacks(): void {
    this.#u.pool.runCallbacks()
    this.#u.slow?.threads.runCallbacks()
  }

  close(): void {
    const u = this.#u
    u.slow?.release()
    this.#handles.closeAll()
    u.nodes.closeOrphanFds()
    u.fds.leave(layersOf(u))
    u.workdir?.closeAll()
    for (const layer of u.lowers) close(layer.fd)
    if (u.upper !== null) close(u.upper.fd)
    // Last, because it may wait for a thread that has just been started.
    u.pool.close()
  }

  closeIdleFds(): boolean {
    // Both kinds are closed, because either may hold the least recently used descriptor.
    const closed = this.#handles.closeIdleFds()
    return this.#u.fds.shrink() || closed
  }

  get nodes(): number {
    return this.#u.nodes.size
  }

  /** The union creates no further nodes. */
  get full(): boolean {
    return this.#u.nodes.full
  }
  set full(value) {
    this.#u.nodes.full = value
  }

  /** Asks the kernel to forget half of the nodes, as far as they are unused. */
  forgetUnused(): void {
    if (this.#forgetting) return
    this.#forgetting = true
    forgetCachedNodes(this.#u, this.nodes >> 1, () => {
      this.#forgetting = false
    })
  }

  /** Explains which layers serve a path, given as the names from the root. */
  explain(names: readonly ByteString[]): Answer {
    return explain(this.#u, names)
  }

  /** Counters for statistics. */
  counts(): { nodes: number; files: number; jobs: number } {
    return {
      nodes: this.#u.nodes.size,
      files: this.#handles.size,
      jobs: this.#u.pool.pending,
    }
  }

  /** The number of objects and bytes copied up since the union was opened. */
  copied(): { copyups: number; 'copyup.bytes': number } {
    const { objects, bytes } = this.#u.copied
    return { copyups: objects, 'copyup.bytes': bytes }
  }

  #directory(id: NodeId): Node | undefined {
    const node = this.#u.nodes.get(id)
    return node?.isDir === true ? node : undefined
  }

  /**
   * The node that a request changes or opens. Undefined for a superseded node: the kernel must look
   * its name up again.
   */
  #current(id: NodeId): Node | undefined {
    const node = this.#u.nodes.get(id)
    return node?.superseded === true ? undefined : node
  }

  lookup(parent: NodeId, name: ByteString, out: Entry): Result {
    const directory = this.#directory(parent)
    if (directory === undefined) return -E.ESTALE
    if (name.length > NAME_MAX) return -E.ENAMETOOLONG
    if (!this.#u.nodes.hasRoom(directory, name)) return -E.ENOMEM
    const node = findCurrent(this.#u, directory, name)
    if (typeof node === 'number') {
      out.nodeId = 0
      return node === -E.ENOENT ? 0 : node
    }
    node.lookups++
    out.nodeId = node.id
    fillAttr(this.#u, node, this.#u.st, out.attr)
    return 0
  }

  forget(id: NodeId, count: number): void {
    const { nodes, dirCache } = this.#u
    const node = nodes.get(id)
    if (node !== undefined && node.handles !== null && node.lookups <= count)
      this.#handles.forgotten(node)
    nodes.forget(id, count)
    if (node === undefined || node.lookups === 0) dirCache.forget(id)
  }

  getattr(id: NodeId, fh: Fh, out: Attr): Result {
    const node = this.#u.nodes.get(id)
    if (node === undefined || (node.superseded && node.handles === null) || node.hasStale)
      return -E.ESTALE
    return getattr(this.#u, this.#handles, node, fh, out)
  }

  setattr(id: NodeId, set: SetAttr, out: Attr): Result {
    const u = this.#u
    const node = this.#current(id)
    if (node === undefined) return -E.ESTALE
    u.answering = node
    let result: Result = -E.EIO
    try {
      result = setattr(u, this.#handles, node, set, this.requester, out)
    } finally {
      u.answering = null
      // The node was copied up or partly changed, and an error answer carries no attributes.
      if (result < 0 && node.upper) invalidateAttrs(u, node)
    }
    return result
  }

  readlink(id: NodeId, buf: Buffer, offset: number): Result {
    const node = this.#current(id)
    if (node === undefined) return -E.ESTALE
    if (node.type !== S_IFLNK) return -E.EINVAL
    const result = locate(this.#u, node, place)
    return result < 0 ? result : readlinkat(place.fd, place.name, buf.subarray(offset))
  }

  mknod(
    caller: Caller,
    parent: NodeId,
    name: ByteString,
    mode: number,
    major: number,
    minor: number,
    out: Entry,
  ): Result {
    const directory = this.#directory(parent)
    if (directory === undefined) return -E.ESTALE
    if (this.full) return -E.ENOMEM
    return mknod(this.#u, new NewObject(caller, directory, name, mode), major, minor, out)
  }

  mkdir(caller: Caller, parent: NodeId, name: ByteString, mode: number, out: Entry): Result {
    const directory = this.#directory(parent)
    if (directory === undefined) return -E.ESTALE
    if (this.full) return -E.ENOMEM
    const full = S_IFDIR | (mode & 0o7777)
    return mkdir(this.#u, new NewObject(caller, directory, name, full), out)
  }

  symlink(
    caller: Caller,
    parent: NodeId,
    name: ByteString,
    target: ByteString,
    out: Entry,
  ): Result {
    const directory = this.#directory(parent)
    if (directory === undefined) return -E.ESTALE
    if (this.full) return -E.ENOMEM
    return symlink(this.#u, new NewObject(caller, directory, name, S_IFLNK | 0o777), target, out)
  }

  create(
    caller: Caller,
    parent: NodeId,
    name: ByteString,
    mode: number,
    flags: number,
    out: Entry,
    opened: Opened,
  ): Result {
    const directory = this.#directory(parent)
    if (directory === undefined) return -E.ESTALE
    if (!this.#u.nodes.hasRoom(directory, name)) return -E.ENOMEM
    const object = new NewObject(caller, directory, name, S_IFREG | (mode & 0o7777))
    return create(this.#u, this.#handles, object, flags, out, opened)
  }

  tmpfile(
    caller: Caller,
    parent: NodeId,
    mode: number,
    flags: number,
    out: Entry,
    opened: Opened,
  ): Result {
    const directory = this.#directory(parent)
    if (directory === undefined) return -E.ESTALE
    if (this.full) return -E.ENOMEM
    const object = new NewObject(caller, directory, '', S_IFREG | (mode & 0o7777))
    return tmpfile(this.#u, this.#handles, object, flags, out, opened)
  }

  link(id: NodeId, newParent: NodeId, newName: ByteString, out: Entry): Result {
    const node = this.#current(id)
    const directory = this.#directory(newParent)
    if (node === undefined || directory === undefined) return -E.ESTALE
    return link(this.#u, node, directory, newName, out)
  }

  unlink(parent: NodeId, name: ByteString): Result {
    const directory = this.#directory(parent)
    return directory === undefined ? -E.ESTALE : unlink(this.#u, directory, name)
  }

  rmdir(parent: NodeId, name: ByteString): Result {
    const directory = this.#directory(parent)
    return directory === undefined ? -E.ESTALE : rmdir(this.#u, directory, name)
  }

  rename(
    parent: NodeId,
    name: ByteString,
    newParent: NodeId,
    newName: ByteString,
    flags: number,
  ): Result {
    const from = this.#directory(parent)
    const into = this.#directory(newParent)
    if (from === undefined || into === undefined) return -E.ESTALE
    return rename(this.#u, from, name, into, newName, flags)
  }

  open(id: NodeId, flags: number, killPriv: boolean, opened: Opened): Result {
    const node = this.#current(id)
    if (node === undefined) return -E.ESTALE
    if (!node.isReg) return node.isDir ? -E.EISDIR : -E.ENXIO
    return openFile(this.#u, this.#handles, node, flags, killPriv ? this.requester : null, opened)
  }

  realFile(fh: Fh): Result {
    const handle = this.#handles.reading(fh)
    return typeof handle === 'number' ? handle : realFd(this.#u, handle)
  }

  mappable(fh: Fh): void {
    const handle = this.#handles.get(fh)
    if (handle !== undefined) handle.mappable = true
  }

  /** The handle to read through, or -errno. */
  #reading(fh: Fh): FileHandle | Result {
    const handle = this.#handles.reading(fh)
    return typeof handle === 'number' ? orPending(this.#u, handle) : handle
  }

  /** The handle to write through, or -errno. */
  #writing(fh: Fh, late: boolean): FileHandle | Result {
    const handle = this.#handles.writing(fh, late)
    return typeof handle === 'number' ? orPending(this.#u, handle) : handle
  }

  release(fh: Fh): void {
    const open = this.#handles.get(fh)
    if (open !== undefined && open.node.unlinked && open.fd >= 0) {
      const { st } = this.#u
      // A caller that has the removed file open may have written to it in the meantime.
      if (fstatx(open.fd, st) >= 0 && isBulky(st)) open.node.bulky = true
    }
    const handle = this.#handles.remove(fh)
    if (handle !== undefined && handle.node.lookups === 0) this.#u.nodes.release(handle.node)
  }

  markStale(id: NodeId): void {
    const node = this.#u.nodes.get(id)
    if (node !== undefined) node.version = CHANGED
  }

  read(fh: Fh, buf: Buffer, offset: number, length: number, pos: Off): Result {
    const handle = this.#reading(fh)
    return typeof handle === 'number' ? handle : readFile(this.#u, handle, buf, offset, length, pos)
  }

  write(
    fh: Fh,
    buf: Buffer,
    offset: number,
    length: number,
    pos: Off,
    killPriv: boolean,
    late: boolean,
  ): Result {
    const handle = this.#writing(fh, late)
    if (typeof handle === 'number') return handle
    const killFor = killPriv ? this.requester : null
    return late
      ? writeLate(this.#u, handle, buf, offset, length, pos, killFor)
      : writeFile(this.#u, handle, buf, offset, length, pos, killFor)
  }

  fsync(fh: Fh, datasync: boolean): Result {
    const handle = this.#reading(fh)
    if (typeof handle === 'number') return handle
    if (!handle.node.upper || this.syncIsFree) return 0
    const fd = orPending(this.#u, realFd(this.#u, handle))
    return fd < 0 ? fd : syncFd(this.#u, fd, datasync)
  }

  fsyncdir(id: NodeId, datasync: boolean): Result {
    const node = this.#directory(id)
    if (node === undefined) return -E.ESTALE
    const upper = node.upperDir
    if (upper === null || node.unlinked) return 0
    const u = this.#u
    if (u.syncIsFree) return 0
    // The cached descriptor is O_PATH, which cannot be synced.
    const dirfd = u.fds.get(upper)
    const fd = dirfd < 0 ? dirfd : openat(dirfd, '.', O_RDONLY | O_DIRECTORY)
    if (fd < 0) return fd
    const end = (result: Result): Result => {
      close(fd)
      return result
    }
    throw new Pending(
      u.pool.submit({ kind: 'fsync', fd, datasync }, end, () => void close(fd)),
      true,
    )
  }

  syncfs(): Result {
    const { upper } = this.#u
    if (upper === null || isReadOnly(this.#u) || this.#u.syncIsFree) return 0
    throw new Pending(this.#u.pool.submit({ kind: 'syncfs', fd: upper.fd }), true)
  }

  fallocate(fh: Fh, mode: number, offset: Off, length: Off): Result {
    const handle = this.#writing(fh, false)
    return typeof handle === 'number'
      ? handle
      : fallocateFile(this.#u, handle, mode, offset, length)
  }

  lseek(fh: Fh, offset: Off, whence: number): Off {
    const handle = this.#reading(fh)
    return typeof handle === 'number' ? handle : lseekFile(this.#u, handle, offset, whence)
  }

  copyFileRange(
    fhIn: Fh,
    offIn: Off,
    fhOut: Fh,
    offOut: Off,
    length: number,
    _flags: number,
  ): Result {
    // The target first: if both are the same file, this may copy it up.
    const target = this.#writing(fhOut, false)
    if (typeof target === 'number') return target
    const source = this.#reading(fhIn)
    if (typeof source === 'number') return source
    return copyFileRange(this.#u, source, offIn, target, offOut, length)
  }

  readdir(id: NodeId, cookie: number, sink: DirSink): Result {
    const node = this.#directory(id)
    return node === undefined ? -E.ENOTDIR : readdir(this.#u, node, cookie, sink)
  }

  readdirplus(id: NodeId, cookie: number, sink: DirPlusSink): Result {
    const node = this.#directory(id)
    if (node === undefined) return -E.ENOTDIR
    return readdirplus(this.#u, node, cookie, sink, this.#listed)
  }

  getxattr(id: NodeId, name: ByteString, buf: Buffer, offset: number, room: number): Result {
    const node = this.#current(id)
    return node === undefined ? -E.ESTALE : getxattr(this.#u, node, name, buf, offset, room)
  }

  listxattr(
    id: NodeId,
    buf: Buffer,
    offset: number,
    room: number,
    trusted: boolean | Caller,
  ): Result {
    const node = this.#current(id)
    return node === undefined ? -E.ESTALE : listxattr(this.#u, node, buf, offset, room, trusted)
  }

  setxattr(
    id: NodeId,
    name: ByteString,
    value: Uint8Array,
    flags: number,
    killSgid: boolean,
  ): Result {
    const node = this.#current(id)
    if (node === undefined) return -E.ESTALE
    return setxattr(this.#u, node, name, value, flags, killSgid)
  }

  removexattr(id: NodeId, name: ByteString): Result {
    const node = this.#current(id)
    return node === undefined ? -E.ESTALE : removexattr(this.#u, node, name, this.requester)
  }

  getFlags(id: NodeId): Result {
    const node = this.#current(id)
    return node === undefined ? -E.ESTALE : getFlags(this.#u, node)
  }

  setFlags(id: NodeId, flags: number): Result {
    const node = this.#current(id)
    return node === undefined ? -E.ESTALE : setFlags(this.#u, node, flags)
  }

  statfs(out: StatFsOut): Result {
    return statfs(this.#u, out)
  }
}
