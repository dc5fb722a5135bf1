/**
 * Layers and the real directories in them. A real object is always addressed as (directory
 * descriptor, one name); descriptors of directories are O_PATH, kept in a bounded cache, and
 * reopened from the nearest ancestor that is still open, never through a symlink and never out of
 * the layer.
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

/** One directory of the stack. Index 0 is the upper layer; lower layers count from 1, top first. */
export class Layer implements LayerNumbering {
  readonly index: number
  readonly path: string
  /** The layer's root, open for reading. */
  readonly fd: number
  /** st_dev of the root. */
  readonly dev: number
  /** Which of the union's file systems it is on, 0 for the upper's (or the top lower's). */
  readonly fsIndex: number
  /** sb->s_uuid, 16 bytes; zeros where the file system has none. */
  readonly uuid: Buffer
  readonly root: RealDir
  /** name_to_handle_at(2) works, so that objects can be named in origin xattrs and in the index. */
  readonly handles: boolean
  /**
   * There are none, but inode numbers are those of a file system below: another union's
   * (origin.ts:encodeForIndex).
   */
  readonly keepsInos: boolean
  /**
   * False on a FUSE file system and in another union: what is copied up there is born anew
   * (identity.ts).
   */
  readonly keepsBirthTimes: boolean
  /**
   * Its inode numbers, or handles, tell which names are one file's. A FUSE server may show one
   * number for several files.
   */
  get identifiesLinks(): boolean {
    return this.keepsBirthTimes || this.keepsInos || this.handles
  }
  /**
   * False where its file system has no inode flags: what statx(2) says of them is no inode's (erofs
   * calls each immutable).
   */
  readonly hasFlags: boolean
  /**
   * It is reached through a private mount (sys/mount.ts): a lower layer read-only, the upper one as
   * the union is mounted.
   */
  readonly isPrivate: boolean
  /**
   * What a caller's reading opens a file or directory with: O_NOATIME, where the mount would move
   * times as it likes.
   */
  readonly readFlags: number
  /** Reads what its objects bear. */
  xattrs = KERNEL_XATTRS
  /** The attribute that owners and modes are kept in (stat-override.ts); '': the inodes tell. */
  override: ByteString = ''
  /**
   * Others than the mounter may have written such attributes, and would gain by it
   * (stat-override.ts:isCredible).
   */
  checksOverrides = false
  /**
   * It was mapped by the mount it is reached through: its ids come as they are shown, and this is
   * the way back.
   */
  mountIdmap: Idmap | null = null
  /** Calls on it may wait for somebody else (slow.ts). */
  slow = false
  /**
   * False where a copy-up has found that files cannot share their extents with the upper layer's.
   */
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
 * A directory in a layer. Knows its place, so that its descriptor can be closed and opened again.
 */
export class RealDir implements Identity {
  readonly layer: Layer
  /** Null for the layer's root, and for a directory that was removed. */
  parent: RealDir | null
  name: ByteString
  /** Which directory it is, of all but the layer's root. */
  real: Ino = 0
  birth = 0
  /**
   * Another directory had its place when it was opened last: whatever is merged from it has to be
   * looked up again.
   */
  stale = false
  /** `overlay.opaque="x"`: regular files in it may be whiteouts by xattr. */
  xattrWhiteouts = false
  /** `overlay.impure`: it may hold objects whose inode number comes from another layer. */
  impure = false
  /**
   * Names `N` for which `.wh.N` is here; undefined while nobody has looked at the whole directory.
   */
  dotWhiteouts: Set<ByteString> | undefined
  /** How often a single `.wh.` name was probed for while `dotWhiteouts` was undefined. */
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

/** The bounded cache of open directory descriptors: one for all unions of a thread. */
export class DirectoryFds {
  readonly #cache: BoundedCache<RealDir, number>
  /**
   * What `get` gave last: most calls ask for the same directory as the one before. It is the
   * youngest entry.
   */
  #last: RealDir | null = null
  #lastFd = -1
  /** How many unions have it. */
  #users = 0

  /**
   * @param max how many descriptors may be open at once (at least 8: one operation needs a few);
   *   `bound` may say less
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

  /** For a union, which calls `leave` at its end. */
  join(): this {
    this.#users++
    return this
  }

  /** Closes what is open of a union's layers. */
  leave(layers: readonly Layer[]): void {
    if (--this.#users <= 0) this.#cache.close()
    else this.#cache.close(dir => layers.includes(dir.layer))
  }

  /**
   * An O_PATH descriptor of the directory, or -errno. It stays open at least over the next seven
   * calls; callers do not close it.
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
   * A descriptor of the directory that it can be listed by, once, or -errno. The caller gives it to
   * `put` or closes it.
   */
  openRead(dir: RealDir): Result {
    const cached = this.#cache.get(dir) ?? (dir === dir.layer.root ? dir.layer.fd : -1)
    if (cached >= 0) return openRead(cached, '.', O_DIRECTORY)
    const fd = this.#open(dir, LIST_FLAGS | O_NOATIME)
    return fd === -E.EPERM ? this.#open(dir, LIST_FLAGS) : fd
  }

  /** What `openRead` gave becomes the directory's descriptor, if it has none. */
  adoptIfNone(dir: RealDir, fd: number): void {
    if (dir.parent === null || this.#cache.has(dir)) close(fd)
    else {
      claim(fd)
      this.#cache.set(dir, fd)
      this.#last = null
    }
  }

  /** Puts a descriptor that was just opened into the cache, which from now on owns it. */
  adopt(dir: RealDir, fd: number): void {
    const old = this.#cache.get(dir)
    if (old !== undefined) this.#cache.delete(dir)
    claim(fd)
    this.#cache.set(dir, fd)
    this.#last = null
  }

  /** Takes the descriptor out of the cache without closing it; -1 if none is open. */
  detach(dir: RealDir): number {
    const fd = this.#cache.peek(dir)
    if (fd === undefined) return -1
    // `dispose` would close it: hand over a value that closing does not touch.
    this.#cache.set(dir, -1)
    this.#cache.delete(dir)
    return fd
  }

  /** Closes the directory's descriptor, if one is open. */
  drop(dir: RealDir): void {
    this.#cache.delete(dir)
  }

  /**
   * Closes the least recently used half: called when the process runs out of descriptors. False:
   * there was nothing to close.
   */
  shrink(): boolean {
    // A walk may be on its way from the last one.
    return this.#cache.halve(1)
  }

  /** Closes what is beyond the bound, which is lower by now. */
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
    // Walk up to a directory that is open; its fd is touched by get(), so that nothing below evicts
    // it.
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
        // A step's own descriptor is not in the cache, the start's may be: it is the newest, so
        // kept.
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

/** Of this thread. */
export const directoryFds = new DirectoryFds(MAX_BUDGET, directoryBudget)
