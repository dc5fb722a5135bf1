/**
 * Merges the names of a directory from all layers: each name once, without names that whiteouts
 * hide. Mirrors fs/overlayfs/readdir.c:ovl_dir_read_merged().
 */

import { statxat } from '../../sys/at.js'
import { DT_CHR, DT_DIR, DT_REG, DT_UNKNOWN, O_DIRECTORY, O_NOATIME } from '../../sys/constants.js'
import { E } from '../../sys/errno.js'
import { close } from '../../sys/io.js'
import { Stat, type Ino } from '../../sys/stat.js'
import { invalidateAttrs } from '../inode/invalidate.js'
import type { RealDir } from '../layer/layer.js'
import { heap } from '../inode/heap.js'
import { OWNER_LIST, withOwnerAccess } from '../owner/owner-access.js'
import { YIELD, type IoTask } from '../jobs/task.js'
import { CACHED_FROM_LAYERS, sortByCookie, cookieOf, type CachedName } from './dir-cache.js'
import { Node } from '../inode/node.js'
import type { ByteString, Result } from '../ops.js'
import { specialsAreFiles } from '../layer/stat-override.js'
import { listChunk, openRead, type EntryVisitor } from '../../sys/real-dir.js'
import { shownIno } from '../layer/context.js'
import type { Union } from './context.js'
import {
  DOT_WHITEOUT,
  isActiveDotWhiteout,
  isDotWhiteoutName,
  isWhiteout,
} from '../layer/whiteout.js'

/**
 * The number of layer lookups in a directory after which the directory is listed instead. A listing
 * takes four system calls for each layer; the lookup of one name takes up to three (open of the
 * directory, `NAME`, `.wh.NAME`).
 */
const LISTED_FROM = 15

/** The heap limit is checked each time this many names were read. */
const LOOK_EVERY = 4096

const st = new Stat()

/** Merges the names of a directory, one real directory after the other. */
abstract class MergedReader implements EntryVisitor {
  readonly #u: Union
  readonly #node: Node
  readonly #single: boolean
  /** The flag that `openRead` gets for a directory of the upper layer. */
  readonly #noAtime: number
  /** Names that a layer above has (true) or hides (false). */
  readonly #seen = new Map<ByteString, boolean>()
  #taken = 0
  #stopped = false
  #failure: Result = 0
  // The real directory that is being read.
  #real: RealDir
  #fd = -1
  #last = false
  #hidden: ByteString[] = []
  #dotWhiteouts = new Set<ByteString>()

  /** @param read a caller reads the directory, which updates its access time */
  constructor(u: Union, node: Node, read = false) {
    this.#u = u
    this.#node = node
    this.#noAtime = read && u.upper !== null ? u.upper.readFlags : O_NOATIME
    this.#single = node.dirs.length === 1
    this.#real = node.dirs[0] as RealDir
  }

  /**
   * Gets one name of the merged directory.
   *
   * @param inoKnown false if lookup may show a number other than `ino`, the number of the layer's
   *   entry
   * @returns false: no more names are needed
   */
  abstract show(name: ByteString, ino: Ino, inoKnown: boolean, type: number, layer: number): boolean

  run(): Result {
    const pieces = this.pieces()
    for (;;) {
      const { done, value } = pieces.next()
      if (done === true) return value
    }
  }

  /** As `run`, in pieces. */
  *pieces(): Generator<IoTask, Result> {
    const { dirs } = this.#node
    const { fds } = this.#u
    for (const [i, real] of dirs.entries()) {
      const { isUpper } = real.layer
      const fd = isUpper ? this.#openUpper(fds.get(real)) : fds.openRead(real)
      if (fd < 0) {
        if (fd === -E.ENOENT) continue
        return fd
      }
      this.#real = real
      this.#fd = fd
      this.#last = i === dirs.length - 1
      this.#hidden = []
      this.#dotWhiteouts = new Set()
      let result
      let suspended = false
      try {
        while ((result = listChunk(fd, this)) > 0) {
          suspended = true
          yield YIELD
          suspended = false
        }
      } finally {
        // The generator was closed at the yield. An exception instead leaves the descriptor open,
        // because the slow layers keep it for the next attempt.
        if (suspended) close(fd)
      }
      // With few layers, lookups of the names will need the descriptor in each layer.
      if (!isUpper && dirs.length < CACHED_FROM_LAYERS) fds.adoptIfNone(real, fd)
      else close(fd)
      if (result < 0) return result
      if (this.#failure < 0) return this.#failure
      if (this.#stopped) return 0
      real.dotWhiteouts = this.#dotWhiteouts
      if (this.#last) break
      for (const name of this.#hidden) this.#seen.set(name, false)
      for (const name of this.#dotWhiteouts) if (!this.#seen.has(name)) this.#seen.set(name, false)
    }
    return 0
  }

  #openUpper(fd: number): Result {
    if (fd < 0) return fd
    const open = (): Result => openRead(fd, '.', O_DIRECTORY, this.#noAtime)
    let dir = open()
    if (dir === -E.EACCES) {
      dir = withOwnerAccess(fd, '', OWNER_LIST, open)
      // The temporary change of the mode has changed the ctime.
      if (dir !== -E.EACCES) invalidateAttrs(this.#u, this.#node)
    }
    return dir
  }

  visit(name: ByteString, ino: Ino, type: number): boolean {
    if (++this.#taken % LOOK_EVERY === 0 && !heap.hasRoom()) {
      this.#failure = -E.ENOMEM
      return false
    }
    const real = this.#real
    const dotted = isDotWhiteoutName(name)
      ? isActiveDotWhiteout(real.layer, !real.layer.isUpper, this.#fd, name)
      : 0
    if (dotted < 0) {
      this.#failure = dotted
      return false
    }
    if (dotted > 0) {
      this.#dotWhiteouts.add(name.slice(DOT_WHITEOUT.length))
      return true
    }
    if (!this.#single && this.#seen.has(name)) return true
    const hidden = isHidden(real, this.#fd, name, type)
    if (hidden < 0) {
      this.#failure = hidden
      return false
    }
    if (hidden > 0) {
      if (!this.#last) this.#hidden.push(name)
      return true
    }
    if (!this.#last) this.#seen.set(name, true)
    const u = this.#u
    const node = this.#node
    const shown = u.override && type === DT_REG ? overriddenType(node, real, name) : type
    const known = node.children?.get(name)
    const own = known === undefined ? shownIno(u, real.layer, ino) : known.ino
    const inoKnown = known !== undefined || isOwnIno(node, real, ino, type)
    const more = this.show(name, own, inoKnown, shown, real.layer.index)
    this.#stopped = !more
    return more
  }
}

class AllNames extends MergedReader {
  readonly entries: CachedName[] = []

  show(name: ByteString, ino: Ino, inoKnown: boolean, type: number, layer: number): boolean {
    this.entries.push({ name, ino, inoKnown, type, layer, cookie: cookieOf(name) })
    return true
  }
}

class AnyName extends MergedReader {
  found = false

  show(): boolean {
    this.found = true
    return false
  }
}

/**
 * Whether a real entry is a whiteout: 1 or 0, or -errno. Only an entry of a possible type costs a
 * system call.
 */
function isHidden(real: RealDir, fd: number, name: ByteString, type: number): Result {
  const candidate =
    type === DT_CHR || type === DT_UNKNOWN || (type === DT_REG && real.xattrWhiteouts)
  if (!candidate) return 0
  const result = statxat(fd, name, st)
  if (result < 0) return result === -E.ENOENT || result === -E.EACCES ? 0 : result
  return isWhiteout(real.layer.xattrs, fd, name, st, !real.layer.isUpper)
}

/**
 * Whether lookup shows the inode number of a layer's entry whose node is unknown. A file system
 * that does not report numbers in readdir reports 0.
 */
function isOwnIno(node: Node, real: RealDir, ino: Ino, type: number): boolean {
  if (ino === 0) return false
  if (!real.layer.isUpper) return true
  if (real.impure) return false
  // A merged directory shows the number of a lower layer.
  return node.dirs.length === 1 || (type !== DT_DIR && type !== DT_UNKNOWN)
}

/**
 * A regular file of the layer may be shown with another type, which only a lookup can determine.
 */
function overriddenType(node: Node, real: RealDir, name: ByteString): number {
  if (!specialsAreFiles(real.layer)) return DT_REG
  const known = node.children?.get(name)
  return known === undefined ? DT_UNKNOWN : known.type >> 12
}

/**
 * Reads all names and stores them in the directory cache. Returns -errno on failure.
 *
 * @param read a caller reads the directory, which updates its access time
 */
export function listDirectory(u: Union, node: Node, read: boolean): CachedName[] | Result {
  if (node.unlinked) return []
  const names = new AllNames(u, node, read)
  const result = names.run()
  // A READDIR carries no name that the kernel could look up again. The kernel does so when the
  // directory is used the next time.
  if (result === -E.ESTALE) invalidateAttrs(u, node)
  if (result < 0) return result
  const { entries } = names
  u.dirCache.set(node.id, sortByCookie(entries))
  return entries
}

/**
 * The index of the topmost lower layer that may have a name of the directory, as
 * `DirCache.topmost`. A directory of many layers is listed for this. A directory of fewer layers is
 * listed after some lookups, because each lookup searches every layer.
 */
export function topmostLowerWith(u: Union, node: Node, name: ByteString): number {
  const layers = node.dirs.length
  if (layers < CACHED_FROM_LAYERS) return 0
  const lower = node.dirs[node.upperDir === null ? 0 : 1] as RealDir
  if (lower.dotWhiteouts === undefined && (lower.dotProbes + 1) * layers >= LISTED_FROM) {
    // If the directory cannot be listed, each name is looked up in every layer. The error is
    // reported to a caller that lists the directory.
    if (typeof listDirectory(u, node, false) === 'number') lower.dotProbes = -Infinity
  }
  return u.dirCache.topmost(node.id, name)
}

/** -ENOTEMPTY if the union shows any entry in the directory, else 0. */
export function checkEmpty(u: Union, node: Node): Result {
  const any = new AnyName(u, node)
  const result = any.run()
  return any.found ? -E.ENOTEMPTY : result
}

/** As `checkEmpty`, in pieces. The node's layers do not change between the pieces. */
export function* emptyInPieces(u: Union, node: Node): Generator<IoTask, Result> {
  const any = new AnyName(u, node)
  const result = yield* any.pieces()
  return any.found ? -E.ENOTEMPTY : result
}
