/**
 * Cleans up what an earlier mount left in the workdir, for example after a crash: temporary
 * objects, permission bits that the server added for one call, unfinished moves, and index entries
 * without a name.
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
import { listReal, removeTree } from '../../sys/real-dir.js'

const st = new Stat()

/** Not removed from the workdir: it holds feature flags (kernel: ovl_workdir_cleanup_recurse). */
const INCOMPAT = 'incompat'

/**
 * Opens `workdir/work` or `workdir/index`, and creates it if it does not exist. The mode is 0, as
 * in the kernel, unless that would lock out an unprivileged server.
 */
export function openSubdirectory(base: number, name: ByteString): { fd: Result; fresh: boolean } {
  const made = mkdirat(base, name, 0)
  if (made < 0 && made !== -E.EEXIST) return { fd: made, fresh: false }
  // If the chmod fails, the open fails too.
  if (geteuid() !== 0) void fchmodat(base, name, 0o700)
  return { fd: openat(base, name, O_RDONLY | O_DIRECTORY), fresh: made >= 0 }
}

/**
 * Empties `workdir/work`. An entry that cannot be removed stays; `Workdir.stage` skips names that
 * exist.
 */
export function emptyWorkdir(
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
    if (result < 0) log.warn({ name, errno: -result }, 'cannot remove a stale entry of the workdir')
  }
  return listed
}

/** The part of the workdir that ends a move. */
interface MoveWorkdir {
  readonly fd: number
  whiteout(dirfd: number, name: ByteString, over: 'nothing' | 'file' | 'directory'): Result
}

/**
 * Creates the whiteout under the old name of an object whose move an earlier mount did not finish.
 */
export function finishMove(
  workdir: MoveWorkdir,
  upperFd: number,
  { directory, name, ino, record }: UnfinishedMove,
  log: Logger,
): void {
  const dirfd = openat2(upperFd, directory, O_PATH | O_DIRECTORY, 0, RESOLVE_RECORD)
  let result = dirfd
  if (dirfd >= 0) {
    const stated = statxat(dirfd, name, st)
    const kind = stated === -E.ENOENT ? 'nothing' : st.isDir ? 'directory' : 'file'
    result = stated < 0 && stated !== -E.ENOENT ? stated : 0
    const wanted = ino === (kind === 'nothing' ? '0' : String(st.ino))
    if (result >= 0 && wanted) result = workdir.whiteout(dirfd, name, kind)
    close(dirfd)
  } else if (isDangling(dirfd)) result = 0
  if (result >= 0) result = unlinkat(workdir.fd, record)
  if (result < 0) log.warn({ name, errno: -result }, 'cannot finish a move of an earlier mount')
}

/**
 * Removes index entries that no name in the union leads to: orphan index entries, left by a crash.
 */
export function removeOrphanEntries(fd: number, xattrs: OverlayXattrs, log: Logger): Result {
  const orphans: ByteString[] = []
  const listed = listReal(fd, '', name => {
    if (statxat(fd, name, st) < 0 || st.isDir || st.nlink !== 1) return true
    const nlinkValue = xattrs.value(fd, name, 'nlink')
    // A value relative to the lower inode, which has links, is no orphan.
    if (
      typeof nlinkValue === 'string' &&
      nlinkValue.startsWith('U') &&
      nlinkAdjust(nlinkValue, 1, null) <= -1
    )
      orphans.push(name)
    return true
  })
  if (listed < 0) return listed
  for (const name of orphans) {
    const result = unlinkat(fd, name)
    if (result < 0) log.warn({ name, errno: -result }, 'cannot remove a stale index entry')
  }
  return 0
}
