/**
 * A union without a mount. Its operations are called as the kernel's FUSE client calls them: every
 * name is looked up first, and every lookup is forgotten. Its trees have the format of trees of
 * real directories (tree.ts), so that both can be compared.
 */

import * as fs from 'node:fs'
import { createHash } from 'node:crypto'
import type { Test } from 'tap'
import type { IoPool } from '../../src/overlay/jobs/pool.js'
import { DirectoryFds } from '../../src/overlay/layer/layer.js'
import { MountError } from '../../src/errors.js'
import { openState } from '../../src/overlay/open-union.js'
import { Overlay } from '../../src/overlay/overlay.js'
import {
  Attr,
  Entry,
  Opened,
  Pending,
  ROOT_ID,
  SetAttr,
  SetAttrValid as V,
  type Caller,
  type Fh,
  type Job,
  type NodeId,
} from '../../src/overlay/ops.js'
import { defaultUnionOptions } from '../../src/config/defaults.js'
import type { UnionOptions } from '../../src/overlay/options.js'
import { E } from '../../src/sys/errno.js'
import type { Ino } from '../../src/sys/stat.js'
import type { Fs, CallerIds } from './fs-calls.js'
import { ROOT } from './fs-calls.js'
import type { UnionDirectories } from './layers.js'
import * as sys from './syscalls.js'
import type { Stat, Time } from './syscalls.js'
import type { Tree, TreeNode } from './tree.js'

export const callerOf = (caller: CallerIds): Caller => ({ ...caller, pid: process.pid })
export const statOf = (attr: Attr): Stat => ({
  ino: BigInt(attr.ino),
  dev: 0,
  mode: attr.mode,
  nlink: attr.nlink,
  uid: attr.uid,
  gid: attr.gid,
  size: attr.size,
  blocks: attr.blocks,
  rdev: attr.rdevMajor * 0x100000 + attr.rdevMinor,
  atime: nanoseconds(attr.atimeSec, attr.atimeNsec),
  mtime: nanoseconds(attr.mtimeSec, attr.mtimeNsec),
  ctime: nanoseconds(attr.ctimeSec, attr.ctimeNsec),
  btime: (attr.mask & STATX_BTIME) === 0 ? 0n : nanoseconds(attr.btimeSec, attr.btimeNsec),
  attributes: BigInt(attr.attributes),
})
const STATX_BTIME = 0x800
const ignore = (): void => {}
/** The buffer for reading and listing. */
const chunk = Buffer.alloc(1 << 16)
const nanoseconds = (sec: number, nsec: number): bigint =>
  BigInt(sec) * 1_000_000_000n + BigInt(nsec)

/** A message that a union logs at level warn or above. Tests expect none. */
export interface LoggedMessage {
  fields: Record<string, unknown>
  message: string
}

export interface Listed {
  name: string
  ino: Ino
  type: number
  cookie: number
}

/** The lookup counts of one call, which are forgotten at its end. */
type HeldLookups = Map<NodeId, number>

/** Settings of the driver. */
export interface DriverOptions {
  writeback?: boolean
  passthrough?: boolean
  noOpen?: boolean
  /** The limit of open descriptors of layer directories. */
  maxDirectoryFds?: number
  /** Runs slow operations. */
  pool?: IoPool
  /** The layers have already been checked. */
  checked?: true
}

export class UnionFs implements Fs {
  readonly ops: Overlay
  readonly loggedMessages: LoggedMessage[] = []
  /** Nodes whose attributes have changed, as reported to the notifier. */
  readonly notified: NodeId[] = []
  /**
   * If true, lookups are kept until `forgetAll`, as in the kernel's cache. Otherwise each call
   * forgets its lookups at its end.
   */
  warm = false
  /** The default caller. */
  caller: CallerIds = ROOT
  readonly #held: HeldLookups = new Map()
  readonly #noOpen: boolean
  closed = false

  constructor(options: UnionOptions, drive: DriverOptions = {}) {
    const {
      writeback = false,
      passthrough = false,
      noOpen = false,
      maxDirectoryFds: most,
      pool,
    } = drive
    const complain = (fields: Record<string, unknown>, message: string): void =>
      void this.loggedMessages.push({ fields, message })
    this.#noOpen = noOpen
    const open = () =>
      openState(options, {
        log: {
          debug: ignore,
          info: ignore,
          warn: complain,
          error: complain,
          isLevelEnabled: () => false,
        },
        notifier: {
          attrChanged: node => void this.notified.push(node),
          dropPages: () => null,
          forgetNodes: () => null,
        },
        writeback,
        passthrough,
        noOpen,
        ...(drive.checked === true ? { checked: true } : {}),
        mountFlags: sys.MS.NOATIME, // parity.ts mounts the kernel's overlayfs with the same flag
      })
    const state = withUmask(() => retryWhileBusy(open))
    if (pool !== undefined) state.pool.close()
    const fds = most === undefined ? state.fds : new DirectoryFds(most)
    this.ops = new Overlay({ ...state, fds, pool: pool ?? state.pool })
  }

  close(): void {
    if (this.closed) return
    this.closed = true
    this.ops.close()
  }

  // Driver

  /** Repeats a call until it does not have to wait for a job. */
  async run(call: () => number): Promise<number> {
    for (;;) {
      try {
        return this.#plain(call)
      } catch (error) {
        if (!(error instanceof Pending)) throw error
        const result = await this.done(error.job)
        if (error.answer || result < 0) return result
      }
    }
  }

  /**
   * Runs a call with umask 0, as a union's thread does, so that only the caller's own umask
   * applies.
   */
  #plain(call: () => number): number {
    const umask = sys.umask(0)
    try {
      return call()
    } finally {
      sys.umask(umask)
    }
  }

  /** Waits for a job, and runs its callbacks. */
  async done(job: Job): Promise<number> {
    const results: number[] = []
    job.onDone(result => void results.push(result))
    for (;;) {
      const [result] = results
      if (result !== undefined) return result
      this.ops.runCallbacks()
      if (results.length === 0) await new Promise(next => setTimeout(next, 1))
    }
  }

  forgetAll(): void {
    this.#forget(this.#held)
  }

  #forget(held: HeldLookups): void {
    for (const [node, count] of held) this.ops.forget(node, count)
    held.clear()
  }

  /** Runs one call with the lookups that it needs. */
  async #call<T>(use: (held: HeldLookups) => Promise<T> | T): Promise<T> {
    const held: HeldLookups = new Map()
    try {
      return await use(held)
    } finally {
      if (this.warm) for (const [node, n] of held) hold(this.#held, node, n)
      else this.#forget(held)
    }
  }

  /** Looks up a name. Returns its entry, which is counted in `held`, or -errno. */
  lookup(parent: NodeId, name: string, held: HeldLookups = this.#held): Entry | number {
    const out = new Entry()
    const result = this.ops.lookup(parent, name, out)
    if (result < 0) return result
    if (out.nodeId === 0) return -E.ENOENT
    hold(held, out.nodeId)
    return out
  }

  /** The node of a path, or -errno. */
  #node(path: string, held: HeldLookups): number {
    if (path === '') return ROOT_ID
    const place = this.#resolve(path, held)
    return typeof place === 'number' ? place : place.node === 0 ? -E.ENOENT : place.node
  }

  /** The node of a path, which is kept until `forgetAll`. Throws if the path does not exist. */
  id(path: string): NodeId {
    const node = this.#node(path, this.#held)
    if (node < 0) throw new Error(`${path}: errno ${-node}`)
    return node
  }

  /**
   * The parent directory and last name of a path, and its node (0 if it does not exist). Symlinks
   * are not followed; they count as dangling.
   */
  #resolve(
    path: string,
    held: HeldLookups,
  ): { parent: NodeId; name: string; node: NodeId; type: number } | number {
    const names = path.split('/')
    const name = names.pop() ?? ''
    let parent: NodeId = ROOT_ID
    for (const directory of names) {
      const entry = this.lookup(parent, directory, held)
      if (typeof entry === 'number') return entry
      const type = entry.attr.mode & sys.S.IFMT
      if (type !== sys.S.IFDIR) return type === sys.S.IFLNK ? -E.ENOENT : -E.ENOTDIR
      parent = entry.nodeId
    }
    const entry = this.lookup(parent, name, held)
    if (typeof entry !== 'number')
      return { parent, name, node: entry.nodeId, type: entry.attr.mode & sys.S.IFMT }
    return entry === -E.ENOENT ? { parent, name, node: 0, type: 0 } : entry
  }

  /** Creates an object under a name that must not exist. */
  #make(path: string, make: (parent: NodeId, name: string, out: Entry) => number): Promise<number> {
    return this.#call(async held => {
      const place = this.#resolve(path, held)
      if (typeof place === 'number') return place
      if (place.node !== 0) return -E.EEXIST
      const out = new Entry()
      const result = await this.run(() => make(place.parent, place.name, out))
      if (result >= 0) hold(held, out.nodeId)
      return Math.min(result, 0)
    })
  }

  /** Runs `use` on an existing object. */
  #on<T>(path: string, use: (node: NodeId) => Promise<T> | T): Promise<T | number> {
    return this.#call(held => {
      const node = this.#node(path, held)
      return node < 0 ? node : use(node)
    })
  }

  // Names

  /** The mode that the VFS passes to a file system (vfs_prepare_mode). */
  #prepared(parent: NodeId, mode: number, caller: CallerIds): number {
    const SGID_EXECUTABLE = 0o2010
    if ((mode & SGID_EXECUTABLE) !== SGID_EXECUTABLE || caller.uid === 0) return mode
    const attr = new Attr()
    this.#must(this.ops.getattr(parent, 0, attr), 'getattr')
    return (attr.mode & 0o2000) !== 0 && attr.gid !== caller.gid ? mode & ~0o2000 : mode
  }

  create(path: string, mode: number, caller = this.caller): Promise<number> {
    const opened = new Opened()
    return this.#make(path, (parent, name, out) => {
      const flags = sys.O.CREAT | sys.O.EXCL | sys.O.RDWR
      const real = this.#prepared(parent, mode, caller)
      const result = this.ops.create(callerOf(caller), parent, name, real, flags, out, opened)
      if (result >= 0) this.ops.release(opened.fh)
      return result
    })
  }

  mkdir(path: string, mode: number, caller = this.caller): Promise<number> {
    return this.#make(path, (parent, name, out) =>
      this.ops.mkdir(callerOf(caller), parent, name, mode & 0o1777, out),
    )
  }

  mknod(path: string, mode: number, major = 0, minor = 0, caller = this.caller): Promise<number> {
    return this.#make(path, (parent, name, out) => {
      const real = this.#prepared(parent, mode, caller)
      return this.ops.mknod(callerOf(caller), parent, name, real, major, minor, out)
    })
  }

  symlink(target: string, path: string, caller = this.caller): Promise<number> {
    return this.#make(path, (parent, name, out) =>
      this.ops.symlink(callerOf(caller), parent, name, target, out),
    )
  }

  link(from: string, to: string): Promise<number> {
    return this.#on(from, node =>
      this.#make(to, (parent, name, out) => this.ops.link(node, parent, name, out)),
    )
  }

  unlink(path: string): Promise<number> {
    return this.#remove(path, (parent, name) => this.ops.unlink(parent, name))
  }

  rmdir(path: string): Promise<number> {
    return this.#remove(path, (parent, name) => this.ops.rmdir(parent, name))
  }

  #remove(path: string, remove: (parent: NodeId, name: string) => number): Promise<number> {
    return this.#call(held => {
      const place = this.#resolve(path, held)
      if (typeof place === 'number') return place
      if (place.node === 0) return -E.ENOENT
      return this.run(() => remove(place.parent, place.name))
    })
  }

  rename(from: string, to: string, flags = 0): Promise<number> {
    return this.#call(held => {
      const old = this.#resolve(from, held)
      if (typeof old === 'number') return old
      const target = this.#resolve(to, held)
      if (typeof target === 'number') return target
      if (old.node === 0) return -E.ENOENT
      const both = sys.RENAME.NOREPLACE | sys.RENAME.EXCHANGE
      if ((flags & both) === both) return -E.EINVAL
      if (target.node !== 0 && (flags & sys.RENAME.NOREPLACE) !== 0) return -E.EEXIST
      if (target.node === 0 && (flags & sys.RENAME.EXCHANGE) !== 0) return -E.ENOENT
      return this.run(() =>
        this.ops.rename(old.parent, old.name, target.parent, target.name, flags),
      )
    })
  }

  // Data

  /** Opens a file. The caller must release the handle. */
  async open(path: string, flags: number): Promise<Opened | number> {
    const opened = new Opened()
    const open = async (held: HeldLookups): Promise<number> => {
      const place = this.#resolve(path, held)
      if (typeof place === 'number') return place
      if (place.node === 0) return -E.ENOENT
      if (place.type === sys.S.IFLNK) return -E.ELOOP
      return this.#openNode(place.node, flags, opened)
    }
    // Without a handle the node must be kept.
    const result = await (this.#noOpen ? open(this.#held) : this.#call(open))
    return result < 0 ? result : opened
  }

  /**
   * With `noopen` the kernel sends no OPEN request. Requests name the node, and O_TRUNC becomes a
   * SETATTR request.
   */
  async #openNode(node: NodeId, flags: number, out: Opened): Promise<number> {
    if (!this.#noOpen) return this.run(() => this.ops.open(node, flags, false, out))
    out.fh = -node
    if ((flags & sys.O.TRUNC) === 0) return 0
    const cut = Object.assign(new SetAttr(), { valid: V.SIZE, size: 0 })
    return this.run(() => this.ops.setattr(node, cut, new Attr()))
  }

  write(path: string, text: string, offset = 0, flags = 0): Promise<number> {
    return this.#with(path, sys.O.WRONLY | flags, (fh, size) =>
      // The kernel determines the end of the file.
      this.pwrite(fh, text, (flags & sys.O.APPEND) === 0 ? offset : size),
    )
  }

  pwrite(fh: Fh, text: string, offset = 0, killPriv = false, late = false): number {
    const data = Buffer.from(text, 'latin1')
    return data.length === 0 ? 0 : this.ops.write(fh, data, 0, data.length, offset, killPriv, late)
  }

  read(path: string): Promise<string | number> {
    return this.#with(path, sys.O.RDONLY, fh => this.readAll(fh))
  }

  readAll(fh: Fh): string | number {
    const buf = chunk
    let text = ''
    for (;;) {
      const got = this.ops.read(fh, buf, 0, buf.length, text.length)
      if (got < 0) return got
      if (got === 0) return text
      text += buf.latin1Slice(0, got)
    }
  }

  async #with<T>(
    path: string,
    flags: number,
    use: (fh: Fh, size: number) => T,
  ): Promise<T | number> {
    const opened = await this.open(path, flags)
    if (typeof opened === 'number') return opened
    try {
      const stat = await this.stat(path)
      return use(opened.fh, typeof stat === 'number' ? 0 : stat.size)
    } finally {
      this.ops.release(opened.fh)
    }
  }

  // Attributes

  setattr(path: string, change: Partial<SetAttr>): Promise<number> {
    const set = Object.assign(new SetAttr(), change)
    return this.#on(path, node => this.run(() => this.ops.setattr(node, set, new Attr())))
  }

  truncate(path: string, size: number): Promise<number> {
    return this.setattr(path, { valid: V.SIZE, size })
  }

  chmod(path: string, mode: number): Promise<number> {
    return this.setattr(path, { valid: V.MODE, mode })
  }

  chown(path: string, uid: number, gid: number): Promise<number> {
    return this.setattr(path, {
      valid: (uid >= 0 ? V.UID : 0) | (gid >= 0 ? V.GID : 0),
      uid,
      gid,
    })
  }

  utimens(path: string, atime: Time, mtime: Time): Promise<number> {
    return this.setattr(path, {
      valid: V.ATIME | V.MTIME,
      atimeSec: atime.sec,
      atimeNsec: atime.nsec,
      mtimeSec: mtime.sec,
      mtimeNsec: mtime.nsec,
    })
  }

  readlink(path: string): Promise<string | number> {
    return this.#on(path, node => {
      const buf = Buffer.alloc(4096)
      const got = this.ops.readlink(node, buf, 0)
      return got < 0 ? got : buf.latin1Slice(0, got)
    })
  }

  setxattr(path: string, name: string, value: string, flags = 0): Promise<number> {
    const bytes = Buffer.from(value, 'latin1')
    return this.#on(path, node =>
      this.run(() => this.ops.setxattr(node, name, bytes, flags, false)),
    )
  }

  removexattr(path: string, name: string): Promise<number> {
    return this.#on(path, node => this.run(() => this.ops.removexattr(node, name)))
  }

  getxattr(path: string, name: string): Promise<string | number> {
    return this.#on(path, node => this.#getxattr(node, name))
  }

  #getxattr(node: NodeId, name: string): string | number {
    const length = this.ops.getxattr(node, name, Buffer.alloc(0), 0, 0)
    if (length <= 0) return length < 0 ? length : ''
    const buf = Buffer.alloc(length)
    const got = this.ops.getxattr(node, name, buf, 0, length)
    return got < 0 ? got : buf.latin1Slice(0, got)
  }

  listxattr(path: string): Promise<string[] | number> {
    return this.#on(path, node => this.#listxattr(node))
  }

  #listxattr(node: NodeId): string[] | number {
    const buf = chunk
    const got = this.ops.listxattr(node, buf, 0, buf.length, true)
    if (got < 0) return got
    return got === 0
      ? []
      : buf
          .latin1Slice(0, got - 1)
          .split('\0')
          .toSorted()
  }

  getFlags(path: string): Promise<number> {
    return this.#on(path, node => this.ops.getFlags(node))
  }

  setFlags(path: string, flags: number): Promise<number> {
    return this.#on(path, node => this.run(() => this.ops.setFlags(node, flags)))
  }

  stat(path: string): Promise<Stat | number> {
    return this.#on(path, node => {
      const attr = new Attr()
      const result = this.ops.getattr(node, 0, attr)
      return result < 0 ? result : statOf(attr)
    })
  }

  // Directories

  /** The entries of a listing in its order, with `.` and `..`. */
  listing(node: NodeId): Listed[] | number {
    const entries: Listed[] = []
    const listed = this.ops.readdir(node, 0, {
      add: (name, ino, type, cookie) => entries.push({ name, ino, type, cookie }) > 0,
    })
    return listed < 0 ? listed : entries
  }

  #entries(node: NodeId): Listed[] | number {
    const all = this.listing(node)
    if (typeof all === 'number') return all
    return all
      .filter(entry => entry.name !== '.' && entry.name !== '..')
      .toSorted((a, b) => (a.name < b.name ? -1 : 1))
  }

  list(path: string): Promise<string[] | number> {
    return this.#on(path, node => {
      const entries = this.#entries(node)
      return typeof entries === 'number' ? entries : entries.map(entry => entry.name)
    })
  }

  /** Reads the whole tree, in the format of `readTree`. */
  tree(): Promise<Tree> {
    return this.#call(async held => {
      const tree: Tree = { nodes: new Map(), ghosts: [] }
      const attr = new Attr()
      this.#must(this.ops.getattr(ROOT_ID, 0, attr), 'getattr')
      const root = { name: '.', ino: attr.ino, type: 4, cookie: 0 }
      tree.nodes.set('.', await this.#treeNode('.', ROOT_ID, attr, root))
      const walk = async (directory: NodeId, prefix: string): Promise<void> => {
        const entries = this.#entries(directory)
        if (typeof entries === 'number') throw new Error(`list ${prefix}: errno ${-entries}`)
        for (const listed of entries) {
          const path = prefix + listed.name
          const entry = this.lookup(directory, listed.name, held)
          if (typeof entry === 'number') {
            this.#must(entry === -E.ENOENT ? 0 : entry, `lookup ${path}`)
            tree.ghosts.push(path)
            continue
          }
          tree.nodes.set(path, await this.#treeNode(path, entry.nodeId, entry.attr, listed))
          if ((entry.attr.mode & sys.S.IFMT) === sys.S.IFDIR) await walk(entry.nodeId, `${path}/`)
        }
      }
      await walk(ROOT_ID, '')
      return tree
    })
  }

  #must(result: number, what: string): void {
    if (result < 0) throw new Error(`${what}: errno ${-result}`)
  }

  async #treeNode(path: string, node: NodeId, attr: Attr, listed: Listed): Promise<TreeNode> {
    const stat = statOf(attr)
    const names = this.#listxattr(node)
    const type = stat.mode & sys.S.IFMT
    const result: TreeNode = {
      path,
      stat,
      listedType: listed.type,
      listedIno: BigInt(listed.ino),
      xattrs:
        typeof names === 'number'
          ? [`list: errno ${-names}`]
          : names.map(name => {
              const value = this.#getxattr(node, name)
              const text =
                typeof value === 'number'
                  ? `errno ${-value}`
                  : Buffer.from(value, 'latin1').toString('hex')
              return `${name}=${text}`
            }),
      target: '',
      digest: '',
    }
    if (type === sys.S.IFLNK) {
      const buf = Buffer.alloc(4096)
      const got = this.ops.readlink(node, buf, 0)
      result.target = got < 0 ? `errno ${-got}` : buf.latin1Slice(0, got)
    } else if (type === sys.S.IFREG) result.digest = await this.#digest(node, stat.size)
    return result
  }

  async #digest(node: NodeId, size: number): Promise<string> {
    const opened = new Opened()
    const result = await this.#openNode(node, sys.O.RDONLY, opened)
    if (result < 0) return `open: errno ${-result}`
    const text = this.readAll(opened.fh)
    this.ops.release(opened.fh)
    if (typeof text === 'number') return `read: errno ${-text}`
    if (text.length !== size) return `end at ${text.length} of ${size}`
    return createHash('sha1').update(text, 'latin1').digest('hex')
  }
}

const PAUSE_MS = 100
const TRIES = 600

/**
 * Retries while another test's process has a copy of a kernel mount that was unmounted just before,
 * in its mount namespace (see mountKernel in parity.ts).
 */
const retryWhileBusy = <T>(open: () => T): T => {
  for (let tries = 0; ; tries++)
    try {
      return open()
    } catch (error) {
      const message = error instanceof MountError && error.code === 'EBUSY' ? error.message : ''
      if (tries === TRIES || !message.includes('in the mount namespace of process')) throw error
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, PAUSE_MS)
    }
}

/** Opening a union changes the umask. */
const withUmask = <T>(use: () => T): T => {
  const umask = process.umask()
  try {
    return use()
  } finally {
    sys.umask(umask)
  }
}

const hold = (held: HeldLookups, node: NodeId, count = 1): void =>
  void held.set(node, (held.get(node) ?? 0) + count)

export const optionsOf = (
  where: UnionDirectories,
  change: Partial<UnionOptions> = {},
): UnionOptions => ({
  ...defaultUnionOptions,
  lower: where.lower,
  upper: where.upper,
  work: where.work,
  ...change,
})

/** Without an upper layer. */
export const readOnlyOptions = (where: UnionDirectories): UnionOptions => ({
  ...defaultUnionOptions,
  lower: where.lower,
})

/** Opens a union, which is closed at the end of the test. */
export const open = (t: Test, options: UnionOptions, drive: DriverOptions = {}): UnionFs => {
  const union = new UnionFs(options, drive)
  t.teardown(() => union.close())
  return union
}

/** Descriptors of threads that are started in the meantime and kept. */
const OF_THREADS = /^(anon_inode:\[event(poll|fd)\]|pipe:.*)$/

/**
 * The descriptors that are open now and were not before. It waits for tasks of the pool, which end
 * asynchronously.
 */
export const leakedFds = async (before: string[]): Promise<string[]> => {
  for (let tries = 0; ; tries++) {
    const left = openFds().filter(target => !OF_THREADS.test(target))
    for (const target of before) {
      const at = left.indexOf(target)
      if (at >= 0) left.splice(at, 1)
    }
    if (left.length === 0 || tries === 3000) return left
    await new Promise(next => setTimeout(next, 10))
  }
}

/** The targets of this process' open descriptors. */
export const openFds = (): string[] =>
  fs
    .readdirSync('/proc/self/fd')
    .flatMap(fd => {
      try {
        return [fs.readlinkSync(`/proc/self/fd/${fd}`)]
      } catch {
        return []
      }
    })
    .filter(target => !target.endsWith('/fd'))
    .toSorted()
