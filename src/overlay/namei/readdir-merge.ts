/**
 * The names of a directory: those of all layers, each once, without what whiteouts hide. Analogous
 * to fs/overlayfs/readdir.c:ovl_dir_read_merged().
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
import { PAUSE, type IoTask } from '../jobs/task.js'
import { MANY_LAYERS, order, placeOf, type Listed } from './dir-cache.js'
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
 * Where names were looked for in so many layers, all names of a directory together, it is worth
 * listing the directory, once: that takes four system calls a layer, and to look for a name up to
 * three (the directory is opened, `NAME`, `.wh.NAME`).
 */
const LISTED_FROM = 15

/** Whether there is room for more names is looked at after so many. */
const LOOK_EVERY = 4096

const st = new Stat()

/** Puts the names of a directory's layers together, one real directory after the other. */
abstract class Merging implements EntryVisitor {
  readonly #u: Union
  readonly #node: Node
  readonly #single: boolean
  /** As `openRead` takes it, for a directory of the upper layer. */
  readonly #noAtime: number
  /** Names that upper layers have (true) or hide (false). */
  readonly #seen = new Map<ByteString, boolean>()
  #taken = 0
  #stopped = false
  #failure: Result = 0
  // Of the real directory that is being listed.
  #real: RealDir
  #fd = -1
  #last = false
  #hidden: ByteString[] = []
  #dotWhiteouts = new Set<ByteString>()

  /** @param read somebody reads the directory, which moves its access time */
  constructor(u: Union, node: Node, read = false) {
    this.#u = u
    this.#node = node
    this.#noAtime = read && u.upper !== null ? u.upper.readFlags : O_NOATIME
    this.#single = node.dirs.length === 1
    this.#real = node.dirs[0] as RealDir
  }

  /**
   * Takes a name of the directory in the union.
   *
   * @param inoKnown false where lookup may show another number than `ino`, the entry's own
   * @returns false: it needs no more
   */
  abstract show(name: ByteString, ino: Ino, inoKnown: boolean, type: number, layer: number): boolean

  run(): Result {
    const pieces = this.pieces()
    for (;;) {
      const { done, value } = pieces.next()
      if (done === true) return value
    }
  }

  /** The same in pieces. */
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
          yield PAUSE
          suspended = false
        }
      } finally {
        // It is not gone on with. What is thrown has slow layers keep the descriptor, for another
        // try.
        if (suspended) close(fd)
      }
      // Where few layers have the directory, its names will be asked for in each.
      if (!isUpper && dirs.length < MANY_LAYERS) fds.adoptIfNone(real, fd)
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
      // Its mode was another one for a moment, which moves the ctime.
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

class Names extends Merging {
  readonly entries: Listed[] = []

  show(name: ByteString, ino: Ino, inoKnown: boolean, type: number, layer: number): boolean {
    this.entries.push({ name, ino, inoKnown, type, layer, cookie: placeOf(name) })
    return true
  }
}

class AnyName extends Merging {
  found = false

  show(): boolean {
    this.found = true
    return false
  }
}

/** Whether a real entry is a whiteout: 1 or 0, or -errno. Only what may be one costs a call. */
function isHidden(real: RealDir, fd: number, name: ByteString, type: number): Result {
  const candidate =
    type === DT_CHR || type === DT_UNKNOWN || (type === DT_REG && real.xattrWhiteouts)
  if (!candidate) return 0
  const result = statxat(fd, name, st)
  if (result < 0) return result === -E.ENOENT || result === -E.EACCES ? 0 : result
  return isWhiteout(real.layer.xattrs, fd, name, st, !real.layer.isUpper)
}

/**
 * Whether lookup shows the number of a layer's entry, of whose name no node is known. A file system
 * that tells no numbers in its listings says 0.
 */
function isOwnIno(node: Node, real: RealDir, ino: Ino, type: number): boolean {
  if (ino === 0) return false
  if (!real.layer.isUpper) return true
  if (real.impure) return false
  // A merged directory shows a lower layer's number.
  return node.dirs.length === 1 || (type !== DT_DIR && type !== DT_UNKNOWN)
}

/** A regular file of the layer may be shown as something else: only who looks it up knows. */
function overriddenType(node: Node, real: RealDir, name: ByteString): number {
  if (!specialsAreFiles(real.layer)) return DT_REG
  const known = node.children?.get(name)
  return known === undefined ? DT_UNKNOWN : known.type >> 12
}

/**
 * All names as of now, which are kept for who goes on reading them; or -errno.
 *
 * @param read somebody reads the directory, which moves its access time
 */
export function listAnew(u: Union, node: Node, read: boolean): Listed[] | Result {
  if (node.unlinked) return []
  const names = new Names(u, node, read)
  const result = names.run()
  // A READDIR has no name that the kernel could look up again: it does so when the directory is
  // used the next time.
  if (result === -E.ESTALE) invalidateAttrs(u, node)
  if (result < 0) return result
  const { entries } = names
  u.listings.keep(node.id, order(entries))
  return entries
}

/**
 * The index of the topmost lower layer that may have a name of the directory, as
 * `Listings.topmost`. A directory of many layers is listed for that, one of a few when some names
 * were looked up: each would be asked for in every layer.
 */
export function topmostWith(u: Union, node: Node, name: ByteString): number {
  const layers = node.dirs.length
  if (layers < MANY_LAYERS) return 0
  const lower = node.dirs[node.upperDir === null ? 0 : 1] as RealDir
  if (lower.dotWhiteouts === undefined && (lower.dotProbes + 1) * layers >= LISTED_FROM) {
    // Where it can't be listed, each name is asked for, and an error is that of who wants the
    // names.
    if (typeof listAnew(u, node, false) === 'number') lower.dotProbes = -Infinity
  }
  return u.listings.topmost(node.id, name)
}

/** -ENOTEMPTY where the union shows anything in the directory, else 0. */
export function checkEmpty(u: Union, node: Node): Result {
  const any = new AnyName(u, node)
  const result = any.run()
  return any.found ? -E.ENOTEMPTY : result
}

/** The same in pieces, which the node's layers do not change between. */
export function* emptyInPieces(u: Union, node: Node): Generator<IoTask, Result> {
  const any = new AnyName(u, node)
  const result = yield* any.pieces()
  return any.found ? -E.ENOTEMPTY : result
}
