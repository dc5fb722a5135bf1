/**
 * The step that publishes a move in the upper layer, with each form of whiteout. Analogous to the
 * end of fs/overlayfs/dir.c:ovl_rename().
 */

import { renameat2, statxat, unlinkat } from '../../sys/at.js'
import { RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT } from '../../sys/constants.js'
import { E } from '../../sys/errno.js'
import { Stat } from '../../sys/stat.js'
import { createMarkerFile } from '../layer/opaque-file.js'
import type { RealDir } from '../layer/layer.js'
import { removeRecord, recordMove } from '../owner/owner-access-records.js'
import type { Node } from '../inode/node.js'
import type { ByteString, Result } from '../ops.js'
import type { Union } from './context.js'
import { exchangeWhiteout } from '../layer/whiteout.js'
import type { Workdir } from '../copy-up/workdir.js'

const st = new Stat()

/** A move, with both directories open. */
export interface RealMove {
  from: RealDir
  fromFd: number
  name: ByteString
  into: RealDir
  intoFd: number
  newName: ByteString
  /** A lower layer would show under the old name what is moved away. */
  whiteoutOld: boolean
  /**
   * What the upper layer has in the new place, where that matters; `own`: a whiteout of the form
   * that is written.
   */
  there: 'nothing' | 'file' | 'directory' | 'own whiteout' | 'other whiteout'
  /** A lower layer has what it replaces. */
  replacesLower: boolean
}

/** @returns 0 or more where it is done; -errno where nothing is */
export function publishMove(u: Union, workdir: Workdir, node: Node, m: RealMove): Result {
  const result = moveOnce(u, workdir, node, m)
  if (result >= 0) clearMark(workdir, m)
  return result
}

/** The one step that publishes a move, with whatever form of whiteout. */
function moveOnce(u: Union, workdir: Workdir, node: Node, m: RealMove): Result {
  const { fromFd, name, intoFd, newName } = m
  const overWhiteout = m.there === 'own whiteout' || m.there === 'other whiteout'
  // A whiteout makes way for a file; with a directory it changes places, and goes then.
  const swap = overWhiteout && node.isDir
  if (workdir.form === 'wh' && m.whiteoutOld) return moveWithMark(workdir, m, swap)
  if (!m.whiteoutOld) {
    const result = swap
      ? exchangeWhiteout(intoFd, newName, fromFd, name)
      : renameat2(fromFd, name, intoFd, newName, 0)
    // A whiteout under the old name hides nothing there.
    if (result >= 0 && swap) void workdir.removeDirectory(fromFd, name)
    return result
  }
  if (workdir.form === 'char' && !overWhiteout) {
    const result = renameat2(fromFd, name, intoFd, newName, RENAME_WHITEOUT)
    // EINVAL: a file system without it.
    if (result !== -E.EINVAL) return result
  }
  return moveBySwap(u, workdir, m)
}

/**
 * Where no one step does all. With nothing in the upper layer in the way, or a whiteout, that goes
 * to the new name first, and changes places with the object. Else the object and what it replaces
 * change places, and a whiteout replaces that: which is left to do is recorded, for the mount after
 * one that was ended in between.
 */
function moveBySwap(u: Union, workdir: Workdir, m: RealMove): Result {
  const { intoFd, newName } = m
  if (workdir.form === 'xattr') {
    const marked = m.from === m.into ? 0 : u.xattrs.setXattrWhiteouts(m.fromFd)
    if (marked < 0) return marked
    m.from.xattrWhiteouts = true
    m.into.xattrWhiteouts = true
  }
  if (m.there === 'own whiteout') return exchangeWhiteout(intoFd, newName, m.fromFd, m.name)
  if (m.there === 'nothing' && !m.replacesLower) {
    const placed = workdir.whiteout(intoFd, newName, 'nothing')
    if (placed < 0) return placed
    const result = exchangeWhiteout(intoFd, newName, m.fromFd, m.name)
    // It hides nothing: there is nothing of that name.
    if (result < 0) void unlinkat(intoFd, newName)
    return result
  }
  return moveAndHide(u, workdir, m)
}

/** The object goes to its new name, and a whiteout to the old one. */
function moveAndHide(u: Union, workdir: Workdir, m: RealMove): Result {
  const isFree = m.there === 'nothing'
  const stated = isFree ? 0 : statxat(m.intoFd, m.newName, st)
  if (stated < 0) return stated
  const loan = recordMove(workdir.fd, { fd: m.fromFd, name: m.name }, isFree ? 0 : st.ino)
  if (typeof loan === 'number') return loan
  const flags = isFree ? RENAME_NOREPLACE : RENAME_EXCHANGE
  let result = renameat2(m.fromFd, m.name, m.intoFd, m.newName, flags)
  if (result < 0) {
    removeRecord(loan, 0)
    return result
  }
  const kind = isFree ? 'nothing' : st.isDir ? 'directory' : 'file'
  result = workdir.whiteout(m.fromFd, m.name, kind)
  if (result >= 0) {
    removeRecord(loan, 0)
    return 0
  }
  const undone = renameat2(m.intoFd, m.newName, m.fromFd, m.name, flags)
  if (undone < 0) u.log.error({ errno: -undone }, 'cannot undo a move: the next mount finishes it')
  else removeRecord(loan, 0)
  return result
}

/** A `.wh.` mark of the new name hides nothing any more. */
function clearMark(workdir: Workdir, m: RealMove): void {
  if (m.into.dotWhiteouts !== undefined && !m.into.dotWhiteouts.delete(m.newName)) return
  workdir.clearDotWhiteout(m.intoFd, m.newName)
}

/** A `.wh.` mark of the old name is written first, so that at no time what is below it shows. */
function moveWithMark(workdir: Workdir, m: RealMove, swap: boolean): Result {
  const made = createMarkerFile(m.fromFd, '.wh.' + m.name)
  if (made < 0) return made
  const flags = swap ? RENAME_EXCHANGE : 0
  const result = renameat2(m.fromFd, m.name, m.intoFd, m.newName, flags)
  if (result < 0) {
    workdir.clearDotWhiteout(m.fromFd, m.name)
    return result
  }
  // A whiteout under the old name hides no more than the mark does.
  if (swap) void workdir.removeDirectory(m.fromFd, m.name)
  m.from.dotWhiteouts?.add(m.name)
  return result
}
