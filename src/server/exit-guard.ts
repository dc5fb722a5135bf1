/**
 * No mount outlives its server: when the process exits while mounts are live, they are taken out of
 * the tree first. (A process that is killed has no such chance.)
 */

import { closeSync, openSync } from 'node:fs'

import type { Mount } from './mount.js'
import { isCovered } from '../host/proc-mounts.js'
import { MNT_DETACH, MNT_FORCE } from '../sys/constants.js'
import { E } from '../sys/errno.js'

interface Guarded {
  device: string | undefined
  abandon: () => void
}

const live = new Map<Mount, Guarded>()
let detach: ((mountpoint: string) => void) | undefined

/**
 * Watches over a mount until it is closed.
 * @param abandon ends the server. A program's own open file would keep it waiting for the program's
 *   end, which waits for it: fusermount3 cannot abort a connection (MNT_FORCE), and a lazy unmount
 *   alone does not end it
 * @param device what is mounted, as /proc/self/mountinfo names it
 */
export const guardExit = async (
  mount: Mount,
  abandon: () => void,
  device?: string,
): Promise<void> => {
  live.set(mount, { device, abandon })
  mount.closed.then(
    () => live.delete(mount),
    () => live.delete(mount),
  )
  if (detach !== undefined) return
  const [{ unmount }, { syncfs }] = await Promise.all([
    import('../fuse/mount/mount.js'),
    import('../sys/io.js'),
  ])
  if (detach !== undefined) return
  detach = mountpoint => {
    const result = unmount(mountpoint, 0)
    if (result !== -E.EBUSY) return
    // Open files die with the process; what was written through them shall not.
    const fd = openSync(mountpoint, 'r')
    syncfs(fd)
    closeSync(fd)
    unmount(mountpoint, MNT_FORCE | MNT_DETACH)
  }
  process.on('exit', () => {
    for (const [{ mountpoint }, { device: own, abandon: end }] of live) {
      if (own === undefined || !isCovered(mountpoint, own)) detach?.(mountpoint)
      end()
    }
  })
}
