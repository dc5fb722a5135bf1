/**
 * What an earlier mount has left in the workdir, after a crash too: temporary objects, lent modes,
 * moves that were not ended, entries of the index that have no name.
 */

import { fchmodat, mkdirat, openat, openat2, statxat, unlinkat } from '../../sys/at.js'
import { O_DIRECTORY, O_PATH, O_RDONLY } from '../../sys/constants.js'
import { E } from '../../sys/errno.js'
import { close } from '../../sys/io.js'
import { geteuid } from '../../sys/proc.js'
import { Stat } from '../../sys/stat.js'
import type { Logger } from '../../log.js'
import {
  isDangling,
  RECORD_PREFIX,
  RESOLVE_RECORD,
  replayRecord,
  type UnfinishedMove,
} from '../owner/owner-access-records.js'
import type { OverlayXattrs } from '../layer/overlay-xattrs.js'
import { nlinkAdjust } from './nlink.js'
import type { ByteString, Result } from '../ops.js'
import { listReal, removeTree } from '../layer/real-dir.js'
import type { Workdir } from './workdir.js'

const st = new Stat()

/**
 * Left alone when the workdir is emptied: marks of features (kernel: ovl_workdir_cleanup_recurse).
 */
const INCOMPAT = 'incompat'

/**
 * Opens `work` or `index`, which is made where it is not there: without any permission, as the
 * kernel's, unless that would keep out its owner.
 */
export function openPart(base: number, name: ByteString): { fd: Result; fresh: boolean } {
  const made = mkdirat(base, name, 0)
  if (made < 0 && made !== -E.EEXIST) return { fd: made, fresh: false }
  // Where that fails, opening it does.
  if (geteuid() !== 0) void fchmodat(base, name, 0o700)
  return { fd: openat(base, name, O_RDONLY | O_DIRECTORY), fresh: made >= 0 }
}

/**
 * Empties `workdir/work`. What can't be removed stays; names that are taken are passed over later.
 */
export function emptyWork(
  base: number,
  fd: number,
  upperFd: number,
  log: Logger,
  unhidden: UnfinishedMove[],
): Result {
  const stale: ByteString[] = []
  const listed = listReal(fd, '', name => (name === INCOMPAT ? true : stale.push(name) > 0))
  for (const name of stale) {
    const result = name.startsWith(RECORD_PREFIX)
      ? replayRecord(base, fd, upperFd, name, unhidden)
      : removeTree(fd, name)
    if (result < 0) log.warn({ name, errno: -result }, 'stale entry of the workdir stays')
  }
  return listed
}

/** Puts the whiteout under the old name of an object whose move an earlier mount has not ended. */
export function endMove(
  work: Workdir,
  upperFd: number,
  { directory, name, ino, record }: UnfinishedMove,
  log: Logger,
): void {
  const dirfd = openat2(upperFd, directory, O_PATH | O_DIRECTORY, 0, RESOLVE_RECORD)
  let result = dirfd
  if (dirfd >= 0) {
    const stated = statxat(dirfd, name, st)
    const there = stated === -E.ENOENT ? 'nothing' : st.isDir ? 'directory' : 'file'
    result = stated < 0 && stated !== -E.ENOENT ? stated : 0
    const wanted = ino === (there === 'nothing' ? '0' : String(st.ino))
    if (result >= 0 && wanted) result = work.whiteout(dirfd, name, there)
    close(dirfd)
  } else if (isDangling(dirfd)) result = 0
  if (result >= 0) result = unlinkat(work.fd, record)
  if (result < 0) log.warn({ name, errno: -result }, 'a move is only half done')
}

/**
 * Removes the entries of the index that no name of the union leads to any more: a crash has left
 * them (kernel: orphan index).
 */
export function removeOrphans(fd: number, xattrs: OverlayXattrs, log: Logger): Result {
  const orphans: ByteString[] = []
  const listed = listReal(fd, '', name => {
    if (statxat(fd, name, st) < 0 || st.isDir || st.nlink !== 1) return true
    const mark = xattrs.value(fd, name, 'nlink')
    // Relative to the lower inode, which has links: it is none.
    if (typeof mark === 'string' && mark.startsWith('U') && nlinkAdjust(mark, 1, null) <= -1)
      orphans.push(name)
    return true
  })
  if (listed < 0) return listed
  for (const name of orphans) {
    const result = unlinkat(fd, name)
    if (result < 0) log.warn({ name, errno: -result }, 'stale entry of the index stays')
  }
  return 0
}
