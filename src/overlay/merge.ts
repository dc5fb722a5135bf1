/**
 * The names of a folder: those of all layers, each once, without what whiteouts hide. Analogous to
 * fs/overlayfs/readdir.c:ovl_dir_read_merged().
 */

import { statxat } from '../sys/at.js'
import { DT_CHR, DT_DIR, DT_REG, DT_UNKNOWN, O_DIRECTORY } from '../sys/constants.js'
import { E } from '../sys/errno.js'
import { close } from '../sys/io.js'
import { Stat, type Ino } from '../sys/stat.js'
import type { RealDir } from './layer.js'
import { OWNER_LIST, withRight } from './lend.js'
import { MANY_LAYERS, order, placeOf, type Listed } from './listing.js'
import { Node } from './node.js'
import type { ByteString, Result } from './ops.js'
import { specialsAreFiles } from './override.js'
import { listOpened, openRead, type EntryTaker } from './tree.js'
import { shownIno, type Union } from './union.js'
import { DOT_WHITEOUT, isDotWhiteoutName, isWhiteout } from './whiteout.js'

/**
 * Where names were looked for in so many layers, all names of a folder together, it is worth listing the folder, once:
 * that takes four system calls a layer, and to look for a name up to three (the folder is opened, `NAME`, `.wh.NAME`).
 */
const LISTED_FROM = 15

const st = new Stat()

/** Puts the names of a folder's layers together, one real folder after the other. */
abstract class Merging implements EntryTaker {
  readonly #u: Union
  readonly #node: Node
  readonly #single: boolean
  /** Names that upper layers have (true) or hide (false). */
  readonly #seen = new Map<ByteString, boolean>()
  #stopped = false
  // Of the real folder that is being listed.
  #real: RealDir
  #fd = -1
  #last = false
  #hidden: ByteString[] = []
  #dotWhiteouts = new Set<ByteString>()

  constructor(u: Union, node: Node) {
    this.#u = u
    this.#node = node
    this.#single = node.dirs.length === 1
    this.#real = node.dirs[0] as RealDir
  }

  /**
   * Takes a name of the folder in the union.
   *
   * @param ino undefined where the number shown is another than the entry's own
   * @returns false: it needs no more
   */
  abstract show(name: ByteString, ino: Ino | undefined, type: number, layer: number): boolean

  run(): Result {
    const { dirs } = this.#node
    const { fds } = this.#u
    for (const [i, real] of dirs.entries()) {
      const { isUpper } = real.layer
      const fd = isUpper ? fds.get(real) : fds.openRead(real)
      if (fd < 0) {
        if (fd === -E.ENOENT) continue
        return fd
      }
      this.#real = real
      this.#fd = fd
      this.#last = i === dirs.length - 1
      this.#hidden = []
      this.#dotWhiteouts = new Set()
      const result = isUpper ? this.#listUpper(fd) : listOpened(fd, this)
      // Where few layers have the folder, its names will be asked for in each.
      if (!isUpper && dirs.length < MANY_LAYERS) fds.put(real, fd)
      else if (!isUpper) close(fd)
      if (result < 0) return result
      if (this.#stopped) return 0
      real.dotWhiteouts = this.#dotWhiteouts
      if (this.#last) break
      for (const name of this.#hidden) this.#seen.set(name, false)
      for (const name of this.#dotWhiteouts) if (!this.#seen.has(name)) this.#seen.set(name, false)
    }
    return 0
  }

  #listUpper(fd: number): Result {
    let dir = openRead(fd, '.', O_DIRECTORY)
    if (dir === -E.EACCES) dir = withRight(fd, '', OWNER_LIST, () => openRead(fd, '.', O_DIRECTORY))
    if (dir < 0) return dir
    const result = listOpened(dir, this)
    close(dir)
    return result
  }

  take(name: ByteString, ino: Ino, type: number): boolean {
    const real = this.#real
    if (isDotWhiteoutName(name)) {
      this.#dotWhiteouts.add(name.slice(DOT_WHITEOUT.length))
      return true
    }
    if (!this.#single && this.#seen.has(name)) return true
    if (isHidden(real, this.#fd, name, type)) {
      if (!this.#last) this.#hidden.push(name)
      return true
    }
    if (!this.#last) this.#seen.set(name, true)
    const u = this.#u
    const node = this.#node
    const shown = u.override && type === DT_REG ? overriddenType(node, real, name) : type
    const more = this.show(name, entryIno(u, node, real, name, ino, type), shown, real.layer.index)
    this.#stopped = !more
    return more
  }
}

class Names extends Merging {
  readonly entries: Listed[] = []

  show(name: ByteString, ino: Ino | undefined, type: number, layer: number): boolean {
    this.entries.push({ name, ino, type, layer, cookie: placeOf(name) })
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

const nowhere = new Node(0, 0, 0, [])
/** While nobody lists there are no others, and what is compiled for their shapes would go with them (see fuse/data-mode.ts). */
export const keptShapes = [Names, AnyName].map(Kind => {
  const kept = new Kind(null as never, nowhere)
  kept.show('', 0, 0, 0)
  return kept
})

/** Whether a real entry is a whiteout. Only what may be one costs a call. */
function isHidden(real: RealDir, fd: number, name: ByteString, type: number): boolean {
  const candidate =
    type === DT_CHR || type === DT_UNKNOWN || (type === DT_REG && real.xattrWhiteouts)
  return candidate && statxat(fd, name, st) >= 0 && isWhiteout(fd, name, st)
}

/**
 * The number to show for an entry, as lookup would: that of a known node; the entry's own where nothing
 * can change it; else undefined.
 */
function entryIno(
  u: Union,
  node: Node,
  real: RealDir,
  name: ByteString,
  ino: Ino,
  type: number,
): Ino | undefined {
  const known = node.children?.get(name)
  if (known !== undefined) return known.ino
  if (real.layer.isUpper) {
    if (real.impure) return undefined
    // A merged folder shows a lower layer's number.
    if (node.dirs.length > 1 && (type === DT_DIR || type === DT_UNKNOWN)) return undefined
  }
  return shownIno(u, real.layer, ino)
}

/** A regular file of the layer may be shown as something else: only who looks it up knows. */
function overriddenType(node: Node, real: RealDir, name: ByteString): number {
  if (!specialsAreFiles(real.layer)) return DT_REG
  const known = node.children?.get(name)
  return known === undefined ? DT_UNKNOWN : known.type >> 12
}

/** All names as of now, which are kept for who goes on reading them; or -errno. */
export function listAnew(u: Union, node: Node): Listed[] | Result {
  if (node.unlinked) return []
  const names = new Names(u, node)
  const result = names.run()
  if (result < 0) return result
  const { entries } = names
  u.listings.keep(node.id, order(entries))
  return entries
}

/**
 * The index of the topmost lower layer that may have a name of the folder, as `Listings.topmost`. A folder of many
 * layers is listed for that, one of a few when some names were looked up: each would be asked for in every layer.
 */
export function topmostWith(u: Union, node: Node, name: ByteString): number {
  const layers = node.dirs.length
  if (layers < MANY_LAYERS) return 0
  const lower = node.dirs[node.upperDir === null ? 0 : 1] as RealDir
  if (lower.dotWhiteouts === undefined && (lower.dotProbes + 1) * layers >= LISTED_FROM) {
    // Where it can't be listed, each name is asked for, and an error is that of who wants the names.
    if (typeof listAnew(u, node) === 'number') lower.dotProbes = -Infinity
  }
  return u.listings.topmost(node.id, name)
}

/** -ENOTEMPTY where the union shows anything in the folder, else 0. */
export function checkEmpty(u: Union, node: Node): Result {
  const any = new AnyName(u, node)
  const result = any.run()
  return any.found ? -E.ENOTEMPTY : result
}
