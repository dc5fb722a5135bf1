/**
 * Layers and the real directories in them. A real object is always addressed by a directory
 * descriptor and a single name. Descriptors of directories are O_PATH and are kept in a bounded
 * cache. A closed descriptor is reopened from the nearest open ancestor. Resolution never follows a
 * symlink and never leaves the layer.
 */

import { openat2 } from '../../sys/at.js'
import {
  O_CLOEXEC,
  O_DIRECTORY,
  O_NOATIME,
  O_NOFOLLOW,
  O_PATH,
  O_RDONLY,
  RESOLVE_BENEATH,
  RESOLVE_NO_MAGICLINKS,
  RESOLVE_NO_SYMLINKS,
} from '../../sys/constants.js'
import { E } from '../../sys/errno.js'
import { close } from '../../sys/io.js'
import { claim } from '../../sys/slow.js'
import type { Ino } from '../../sys/stat.js'
import { BoundedCache } from './bounded-cache.js'
import { directoryBudget, MAX_BUDGET } from './descriptor-budget.js'
import { refersTo, type Identity, type LayerNumbering } from './real-identity.js'
import { OverlayXattrs } from './overlay-xattrs.js'
import type { ByteString, Result } from '../ops.js'
import type { Idmap } from '../owner/idmap.js'
import { openRead } from '../../sys/real-dir.js'

const KERNEL_XATTRS = new OverlayXattrs(false)

/** A layer of the stack. Index 0 is the upper layer. Lower layers count from 1, top first. */
export class Layer implements LayerNumbering {
  readonly index: number
  readonly path: string
  /** The layer's root, open for reading. */
  readonly fd: number
  /** st_dev of the root. */
  readonly dev: number
  /**
   * The index of its file system among those of the union. 0 is the upper layer's, or the top lower
   * layer's if there is no upper layer.
   */
  readonly fsIndex: number
  /** sb->s_uuid, 16 bytes. All zeros if the file system has no UUID. */
  readonly uuid: Buffer
  readonly root: RealDir
  /**
   * Whether name_to_handle_at(2) works. Origin xattrs and index entries name objects by their
   * handle.
   */
  readonly handles: boolean
  /**
   * The layer has no handles, but its inode numbers are stable across mounts: the layer lies in
   * another union (origin.ts:encodeForIndex).
   */
  readonly keepsInos: boolean
  /**
   * False on a FUSE file system and in another union. Copy-up there gives a file a new birth time
   * (real-identity.ts).
   */
  readonly keepsBirthTimes: boolean
  /**
   * Whether inode numbers or handles identify the hard links of a file. A FUSE server may report
   * the same inode number for several files.
   */
  get identifiesLinks(): boolean {
    return this.keepsBirthTimes || this.keepsInos || this.handles
  }
  /**
   * False if the file system has no inode flags. The attributes that statx(2) reports there
   * describe the file system and not the inode: erofs reports each inode as immutable.
   */
  readonly hasFlags: boolean
  /**
   * The layer is accessed through a private mount (sys/mount.ts). The private mount of a lower
   * layer is read-only. That of the upper layer has the union's own read-only flag.
   */
  readonly isPrivate: boolean
  /**
   * Flags for opens on behalf of a caller that reads: O_NOATIME, or 0 if the mount itself decides
   * about the access time.
   */
  readonly readFlags: number
  /** Reads and writes the overlay xattrs of its objects. */
  xattrs = KERNEL_XATTRS
  /**
   * The name of the stat override xattr (stat-override.ts), or '' if owners and modes are those of
   * the inodes.
   */
  override: ByteString = ''
  /**
   * Users other than the mounter may have written stat overrides, and would gain privileges by it
   * (stat-override.ts:isCredible).
   */
  checksOverrides = false
  /**
   * The idmap that the layer's own mount applies. stat(2) on the layer returns mapped ids. This
   * idmap translates them back.
   */
  mountIdmap: Idmap | null = null
  /** System calls on the layer may block for an unbounded time (sys/slow.ts). */
  slow = false
  /** False if FICLONE from this layer fails, or may block. Undefined until it was tried. */
  sharesExtents: boolean | undefined = undefined

  constructor(init: {
    index: number
    path: string
    fd: number
    dev: number
    fsIndex: number
    uuid: Buffer
    handles: boolean
    keepsInos?: boolean
    keepsBirthTimes?: boolean
    hasFlags?: boolean
    isPrivate: boolean
    movesTimes?: boolean
  }) {
    this.index = init.index
    this.path = init.path
    this.fd = init.fd
    this.dev = init.dev
    this.fsIndex = init.fsIndex
    this.uuid = init.uuid
    this.handles = init.handles
    this.keepsInos = init.keepsInos === true
    this.keepsBirthTimes = init.keepsBirthTimes !== false
    this.hasFlags = init.hasFlags !== false
    this.isPrivate = init.isPrivate
    this.readFlags = init.movesTimes === true ? 0 : O_NOATIME
    this.root = new RealDir(this, null, '')
  }

  get isUpper(): boolean {
    return this.index === 0
  }
}

/**
 * A directory in a layer. It knows its parent and its name, so that its descriptor can be closed
 * and reopened.
 */
export class RealDir implements Identity {
  readonly layer: Layer
  /** Null for the layer's root, and for a removed directory. */
  parent: RealDir | null
  name: ByteString
  /** The identity of the directory. Unset for the layer's root. */
  real: Ino = 0
  birth = 0
  /**
   * At the last open another directory had its name. Everything that is merged from it must be
   * looked up again.
   */
  stale = false
  /** `overlay.opaque="x"`: regular files in it may be whiteouts by xattr. */
  xattrWhiteouts = false
  /** `overlay.impure`: it may contain objects whose shown inode number comes from another layer. */
  impure = false
  /**
   * The names `N` for which the directory contains `.wh.N`. Undefined until the directory was
   * listed as a whole.
   */
  dotWhiteouts: Set<ByteString> | undefined
  /** The number of probes for single `.wh.` names while `dotWhiteouts` is undefined. */
  dotProbes = 0

  constructor(layer: Layer, parent: RealDir | null, name: ByteString) {
    this.layer = layer
    this.parent = parent
    this.name = name
  }
}

const PATH_LIMIT = 4000
const DIRECTORY_FLAGS = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC
const LIST_FLAGS = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC
const RESOLVE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS

/** The bounded cache of open directory descriptors. The unions of a thread share it. */
export class DirectoryFds {
  readonly #cache: BoundedCache<RealDir, number>
  /**
   * The last result of `get`: most calls ask for the same directory as the call before. It is the
   * most recently used entry.
   */
  #last: RealDir | null = null
  #lastFd = -1
  /** The number of unions that use the cache. */
  #users = 0

  /**
   * @param max the maximum of open descriptors (at least 8, because an operation needs several at
   *   once); `bound` may return less
   */
  constructor(max: number, bound = () => max) {
    this.#cache = new BoundedCache<RealDir, number>(
      Math.max(8, max),
      () => Math.max(8, bound()),
      (fd, dir) => {
        if (dir === this.#last) this.#last = null
        close(fd)
      },
    )
  }

  /** Registers a union. The union calls `leave` at its end. */
  join(): this {
    this.#users++
    return this
  }

  /** Closes the open descriptors of a union's layers. */
  leave(layers: readonly Layer[]): void {
    if (--this.#users <= 0) this.#cache.close()
    else this.#cache.close(dir => layers.includes(dir.layer))
  }

  /**
   * An O_PATH descriptor of the directory, or -errno. The cache owns it: callers do not close it.
   * It stays open at least during the next seven calls.
   */
  get(dir: RealDir): Result {
    if (dir === this.#last) return this.#lastFd
    const cached = this.#cache.get(dir)
    if (cached !== undefined) {
      this.#last = dir
      this.#lastFd = cached
      return cached
    }
    if (dir.parent === null) return dir === dir.layer.root ? dir.layer.fd : -E.ENOENT
    return this.#reopen(dir)
  }

  /**
   * A new descriptor for listing the directory once, or -errno. The caller passes it to
   * `adoptIfNone` or closes it.
   */
  openRead(dir: RealDir): Result {
    const cached = this.#cache.get(dir) ?? (dir === dir.layer.root ? dir.layer.fd : -1)
    if (cached >= 0) return openRead(cached, '.', O_DIRECTORY)
    const fd = this.#open(dir, LIST_FLAGS | O_NOATIME)
    return fd === -E.EPERM ? this.#open(dir, LIST_FLAGS) : fd
  }

  /**
   * Puts a descriptor from `openRead` into the cache, or closes it if the directory has a
   * descriptor already.
   */
  adoptIfNone(dir: RealDir, fd: number): void {
    if (dir.parent === null || this.#cache.has(dir)) close(fd)
    else {
      claim(fd)
      this.#cache.set(dir, fd)
      this.#last = null
    }
  }

  /** Puts a newly opened descriptor into the cache. The cache owns it from now on. */
  adopt(dir: RealDir, fd: number): void {
    const old = this.#cache.get(dir)
    if (old !== undefined) this.#cache.delete(dir)
    claim(fd)
    this.#cache.set(dir, fd)
    this.#last = null
  }

  /** Removes the descriptor from the cache without closing it. Returns -1 if none is open. */
  detach(dir: RealDir): number {
    const fd = this.#cache.peek(dir)
    if (fd === undefined) return -1
    // `dispose` would close the descriptor. Replace the value with -1 first.
    this.#cache.set(dir, -1)
    this.#cache.delete(dir)
    return fd
  }

  /** Closes the directory's descriptor, if it is open. */
  drop(dir: RealDir): void {
    this.#cache.delete(dir)
  }

  /**
   * Closes the least recently used half. Called after EMFILE or ENFILE. Returns false if it closed
   * nothing.
   */
  shrink(): boolean {
    // The walk in `#open` may be starting from the most recently used descriptor.
    return this.#cache.halve(1)
  }

  /**
   * Closes descriptors until the cache is within its bound. Called after the bound became lower.
   */
  trim(): void {
    this.#cache.trim()
  }

  closeAll(): void {
    this.#cache.close()
  }

  #reopen(dir: RealDir): Result {
    const fd = this.#open(dir, DIRECTORY_FLAGS)
    if (fd >= 0) {
      claim(fd)
      this.#cache.set(dir, fd)
    }
    return fd
  }

  #open(dir: RealDir, flags: number): Result {
    this.#last = null
    // Walk up to the nearest open directory. `get` marks its descriptor as recently used, so that
    // nothing below evicts it.
    const names: ByteString[] = []
    let at: RealDir = dir
    let fd = -1
    while (fd < 0) {
      names.push(at.name)
      if (at.parent === null) return -E.ENOENT
      at = at.parent
      const cached = this.#cache.get(at)
      if (cached !== undefined) fd = cached
      else if (at === at.layer.root) fd = at.layer.fd
    }
    names.reverse()
    let from = 0
    let temporary = -1
    while (from < names.length) {
      let path = names[from++] as string
      while (from < names.length && path.length + (names[from] as string).length < PATH_LIMIT)
        path += '/' + (names[from++] as string)
      const wanted = from === names.length ? flags : DIRECTORY_FLAGS
      let next = openat2(fd, path, wanted, 0, RESOLVE)
      if (next === -E.EMFILE || next === -E.ENFILE) {
        // A temporary descriptor is not in the cache. The starting descriptor may be, but it is the
        // most recently used one, so `shrink` keeps it.
        this.shrink()
        next = openat2(fd, path, wanted, 0, RESOLVE)
      }
      if (temporary >= 0) close(temporary)
      if (next < 0) return next
      fd = temporary = next
    }
    dir.stale = !refersTo(fd, dir)
    if (!dir.stale) return fd
    close(fd)
    return -E.ESTALE
  }
}

/** The cache of this thread. */
export const directoryFds = new DirectoryFds(MAX_BUDGET, directoryBudget)
