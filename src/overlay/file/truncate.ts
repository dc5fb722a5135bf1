/**
 * Truncations that give much space back: a thread of the pool does them, and the operation is
 * called again when that is done. Then the file has its size already, and what belongs to the
 * change is done as for any other. Whoever changes the same file meanwhile, or needs the lock of
 * its inode otherwise, waits for `Node.busy`.
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

/** Whether to cut or extend the object, which is at (fd, name), may keep others waiting. */
export function freesMuch(
  node: Node,
  { fd, name }: Pick<Place, 'fd' | 'name'>,
  size: Off,
): boolean {
  if (node.unread >= 0 && node.unread < BULKY * BLOCK) return false
  const stated = name === '' ? fstatx(fd, st) : statxat(fd, name, st)
  // Where that fails, so does the change.
  if (stated < 0 || !isBulky(st)) return false
  if (size < st.size64) return true
  // Space that was allotted behind the end. Once: what the file system counts may not change.
  const before = node.prepared
  node.prepared = false
  return !before && size === st.size64 && isBulky({ blocks: st.blocks - st.size / BLOCK })
}

/**
 * Cuts a file of the upper layer.
 *
 * @param fd may write; it is closed in the end
 * @param keepTime the time of the last change of the data stays
 * @throws Pending always
 */
export function cutInBackground(
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
      // Attributes may have been told in the middle.
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
  // As in the kernel: a truncation that has begun is ended, whatever becomes of its caller.
  throw new Pending({ onDone: callback => job.onDone(callback), lasting: true }, false)
}
