/**
 * The step that publishes a rename in the upper layer, for each form of whiteout. Mirrors the end
 * of fs/overlayfs/dir.c:ovl_rename().
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

/** A rename, with both directories open. */
export interface RealMove {
  from: RealDir
  fromFd: number
  name: ByteString
  into: RealDir
  intoFd: number
  newName: ByteString
  /** A lower layer would show an object under the old name. */
  whiteoutOld: boolean
  /**
   * The object that the upper layer has under the new name, as far as it matters. `own whiteout`: a
   * whiteout of the form that this union writes.
   */
  target: 'nothing' | 'file' | 'directory' | 'own whiteout' | 'other whiteout'
  /** A lower layer has the object that is replaced. */
  replacesLower: boolean
}

/** @returns 0 or more if the rename is done; -errno if nothing has changed */
export function publishMove(u: Union, workdir: Workdir, node: Node, m: RealMove): Result {
  const result = moveOnce(u, workdir, node, m)
  if (result >= 0) clearDotWhiteoutOf(workdir, m)
  return result
}

/** The single step that publishes a rename, for each form of whiteout. */
function moveOnce(u: Union, workdir: Workdir, node: Node, m: RealMove): Result {
  const { fromFd, name, intoFd, newName } = m
  const overWhiteout = m.target === 'own whiteout' || m.target === 'other whiteout'
  // A file replaces a whiteout. A directory is exchanged with it, and the whiteout is then removed.
  const swap = overWhiteout && node.isDir
  if (workdir.form === 'wh' && m.whiteoutOld) return moveWithDotWhiteout(workdir, m, swap)
  if (!m.whiteoutOld) {
    const result = swap
      ? exchangeWhiteout(intoFd, newName, fromFd, name)
      : renameat2(fromFd, name, intoFd, newName, 0)
    // The whiteout that is now under the old name hides nothing.
    if (result >= 0 && swap) void workdir.removeDirectory(fromFd, name)
    return result
  }
  if (workdir.form === 'char' && !overWhiteout) {
    const result = renameat2(fromFd, name, intoFd, newName, RENAME_WHITEOUT)
    // EINVAL: the file system does not support RENAME_WHITEOUT.
    if (result !== -E.EINVAL) return result
  }
  return moveByExchange(u, workdir, m)
}

/**
 * No single system call does everything here. If the upper layer has nothing, or a whiteout, under
 * the new name, a whiteout is put there first and exchanged with the object. Otherwise the object
 * is exchanged with the target, and a whiteout then replaces the target. The remaining step is
 * recorded in the workdir, so that the next mount can finish it if the server is killed in between.
 */
function moveByExchange(u: Union, workdir: Workdir, m: RealMove): Result {
  const { intoFd, newName } = m
  if (workdir.form === 'xattr') {
    const xattrSet = m.from === m.into ? 0 : u.xattrs.setXattrWhiteouts(m.fromFd)
    if (xattrSet < 0) return xattrSet
    m.from.xattrWhiteouts = true
    m.into.xattrWhiteouts = true
  }
  if (m.target === 'own whiteout') return exchangeWhiteout(intoFd, newName, m.fromFd, m.name)
  if (m.target === 'nothing' && !m.replacesLower) {
    const placed = workdir.whiteout(intoFd, newName, 'nothing')
    if (placed < 0) return placed
    const result = exchangeWhiteout(intoFd, newName, m.fromFd, m.name)
    // The whiteout hides nothing: no lower layer has that name.
    if (result < 0) void unlinkat(intoFd, newName)
    return result
  }
  return moveThenWhiteout(u, workdir, m)
}

/** Moves the object to its new name, then creates a whiteout under the old name. */
function moveThenWhiteout(u: Union, workdir: Workdir, m: RealMove): Result {
  const isFree = m.target === 'nothing'
  const stated = isFree ? 0 : statxat(m.intoFd, m.newName, st)
  if (stated < 0) return stated
  const moveRecord = recordMove(workdir.fd, { fd: m.fromFd, name: m.name }, isFree ? 0 : st.ino)
  if (typeof moveRecord === 'number') return moveRecord
  const flags = isFree ? RENAME_NOREPLACE : RENAME_EXCHANGE
  let result = renameat2(m.fromFd, m.name, m.intoFd, m.newName, flags)
  if (result < 0) {
    removeRecord(moveRecord, 0)
    return result
  }
  const kind = isFree ? 'nothing' : st.isDir ? 'directory' : 'file'
  result = workdir.whiteout(m.fromFd, m.name, kind)
  if (result >= 0) {
    removeRecord(moveRecord, 0)
    return 0
  }
  const undone = renameat2(m.intoFd, m.newName, m.fromFd, m.name, flags)
  if (undone < 0) u.log.error({ errno: -undone }, 'cannot undo a move: the next mount finishes it')
  else removeRecord(moveRecord, 0)
  return result
}

/** A `.wh.` file of the new name has no effect any more. */
function clearDotWhiteoutOf(workdir: Workdir, m: RealMove): void {
  if (m.into.dotWhiteouts !== undefined && !m.into.dotWhiteouts.delete(m.newName)) return
  workdir.clearDotWhiteout(m.intoFd, m.newName)
}

/** The `.wh.` file of the old name is created first, so that the lower object never appears. */
function moveWithDotWhiteout(workdir: Workdir, m: RealMove, swap: boolean): Result {
  const made = createMarkerFile(m.fromFd, '.wh.' + m.name)
  if (made < 0) return made
  const flags = swap ? RENAME_EXCHANGE : 0
  const result = renameat2(m.fromFd, m.name, m.intoFd, m.newName, flags)
  if (result < 0) {
    workdir.clearDotWhiteout(m.fromFd, m.name)
    return result
  }
  // The whiteout under the old name is redundant beside the `.wh.` file.
  if (swap) void workdir.removeDirectory(m.fromFd, m.name)
  m.from.dotWhiteouts?.add(m.name)
  return result
}
