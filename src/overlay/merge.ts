/**
 * The names of a folder: those of all layers, each once, without what whiteouts hide. Analogous to
 * fs/overlayfs/readdir.c:ovl_dir_read_merged().
 */

import { statxat } from '../sys/at.js'
import { DT_CHR, DT_DIR, DT_REG, DT_UNKNOWN } from '../sys/constants.js'
import { E } from '../sys/errno.js'
import { close } from '../sys/io.js'
import { Stat, type Ino } from '../sys/stat.js'
import type { RealDir } from './layer.js'
import { OWNER_LIST, withRight } from './lend.js'
import { MANY_LAYERS, order, placeOf, type Listed } from './listing.js'
import type { Node } from './node.js'
import type { ByteString, Result } from './ops.js'
import { specialsAreFiles } from './override.js'
import { listOpened, listReal } from './tree.js'
import { shownIno, type Union } from './union.js'
import { DOT_WHITEOUT, isDotWhiteoutName, isWhiteout } from './whiteout.js'

/**
 * Where names were looked for in so many layers, all names of a folder together, it is worth listing the folder, once:
 * that takes four system calls a layer, and to look for a name up to three (the folder is opened, `NAME`, `.wh.NAME`).
 */
const LISTED_FROM = 15

const st = new Stat()

/**
 * Calls `each` for every name of the folder in the union, until it returns false.
 *
 * @param each `ino` is undefined where the number shown is another than the entry's own
 */
function listMerged(
  u: Union,
  node: Node,
  each: (name: ByteString, ino: Ino | undefined, type: number, layer: number) => boolean,
): Result {
  const dirs = node.dirs
  const single = dirs.length === 1
  // Names that upper layers have (true) or hide (false).
  const seen = new Map<ByteString, boolean>()
  let stopped = false
  for (const [i, real] of dirs.entries()) {
    const last = i === dirs.length - 1
    const { isUpper } = real.layer
    const fd = isUpper ? u.fds.get(real) : u.fds.openRead(real)
    if (fd < 0) {
      if (fd === -E.ENOENT) continue
      return fd
    }
    const hidden: ByteString[] = []
    const dotWhiteouts = new Set<ByteString>()
    const note = (name: ByteString, ino: Ino, type: number): boolean => {
      if (isDotWhiteoutName(name)) {
        dotWhiteouts.add(name.slice(DOT_WHITEOUT.length))
        return true
      }
      if (!single && seen.has(name)) return true
      if (isHidden(real, fd, name, type)) {
        if (!last) hidden.push(name)
        return true
      }
      if (!last) seen.set(name, true)
      const shown = u.override && type === DT_REG ? overriddenType(node, real, name) : type
      stopped = !each(name, entryIno(u, node, real, name, ino, type), shown, real.layer.index)
      return !stopped
    }
    const result = isUpper
      ? withRight(fd, '', OWNER_LIST, () => listReal(fd, '', note))
      : listOpened(fd, note)
    // Where few layers have the folder, its names will be asked for in each.
    if (!isUpper && dirs.length < MANY_LAYERS) u.fds.put(real, fd)
    else if (!isUpper) close(fd)
    if (result < 0) return result
    if (stopped) return 0
    real.dotWhiteouts = dotWhiteouts
    if (last) break
    for (const name of hidden) seen.set(name, false)
    for (const name of dotWhiteouts) if (!seen.has(name)) seen.set(name, false)
  }
  return 0
}

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
  const entries: Listed[] = []
  if (node.unlinked) return entries
  const result = listMerged(u, node, (name, ino, type, layer) => {
    entries.push({ name, ino, type, layer, cookie: placeOf(name) })
    return true
  })
  if (result < 0) return result
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
  let found = false
  const result = listMerged(u, node, () => {
    found = true
    return false
  })
  return found ? -E.ENOTEMPTY : result
}
