/**
 * Truncations that free much space. A job thread truncates the file, and the operation is then
 * started again: the file already has its size, and the rest of the operation runs as for any file.
 * Another operation that changes the same file, or needs its inode lock, waits for `Node.busy`.
 */

import { fstatx, statxat } from '../../sys/at.js'
import { close } from '../../sys/io.js'
import { Stat } from '../../sys/stat.js'
import type { Off } from '../../sys/types.js'
import { invalidateAttrs } from '../inode/invalidate.js'
import { restoreMtime } from '../inode/killpriv.js'
import type { Node } from '../inode/node.js'
import { Pending } from '../ops.js'
import { BULKY, isBulky } from '../jobs/bulky.js'
import type { Place } from '../inode/place.js'
import type { CopyUpContext } from '../copy-up/context.js'
import { forgetVersion } from '../inode/lower-version.js'

const BLOCK = 512

const st = new Stat()

/** Whether a size change of the object at (fd, name) may delay other requests. */
export function freesMuch(
  node: Node,
  { fd, name }: Pick<Place, 'fd' | 'name'>,
  size: Off,
): boolean {
  if (node.unread >= 0 && node.unread < BULKY * BLOCK) return false
  const stated = statxat(fd, name, st)
  // If the stat fails, the change fails too.
  if (stated < 0 || !isBulky(st)) return false
  if (size < st.size64) return true
  // Space allocated after the end of the file. Checked once, because the block count may not
  // change.
  const before = node.prepared
  node.prepared = false
  return !before && size === st.size64 && isBulky({ blocks: st.blocks - st.size / BLOCK })
}

/**
 * Truncates a file of the upper layer on a job thread.
 *
 * @param fd open for writing; the job closes it
 * @param keepTime the mtime is restored
 * @throws Pending always
 */
export function truncateInBackground(
  u: CopyUpContext,
  node: Node,
  fd: number,
  size: Off,
  keepTime: boolean,
): never {
  const timed = keepTime && fstatx(fd, st) >= 0
  const { mtimeSec, mtimeNsec } = st
  const job = u.pool.submit(
    { kind: 'truncate', fd, size },
    result => {
      if (timed && result >= 0) restoreMtime(u, fd, mtimeSec, mtimeNsec)
      close(fd)
      // A getattr during the job may have reported intermediate attributes.
      forgetVersion(node)
      invalidateAttrs(u, node)
      node.busy = null
      node.prepared = result >= 0
      u.nodes.release(node)
      return result
    },
    () => void close(fd),
  )
  node.busy = job
  // As in the kernel, a truncation continues even if its caller is killed.
  throw new Pending({ onDone: callback => job.onDone(callback), uninterruptible: true }, false)
}
