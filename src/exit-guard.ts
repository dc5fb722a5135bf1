/**
 * No mount outlives its server: when the process exits while mounts are live, they are taken out of the
 * tree first. (A process that is killed has no such chance.)
 */

import { closeSync, openSync } from 'node:fs'

import type { Mount } from './mount.js'
import { MNT_DETACH, MNT_FORCE, UMOUNT_NOFOLLOW } from './sys/constants.js'
import { E } from './sys/errno.js'

const live = new Set<Mount>()
let detach: ((mountpoint: string) => void) | undefined

/** Watches over a mount until it is closed. */
export const guardExit = async (mount: Mount): Promise<void> => {
  live.add(mount)
  mount.closed.then(
    () => live.delete(mount),
    () => live.delete(mount),
  )
  if (detach !== undefined) return
  const [{ umount }, { syncfs }] = await Promise.all([
    import('./sys/mount.js'),
    import('./sys/io.js'),
  ])
  if (detach !== undefined) return
  detach = mountpoint => {
    const result = umount(mountpoint, UMOUNT_NOFOLLOW)
    if (result !== -E.EBUSY) return
    // Open files die with the process; what was written through them shall not.
    const fd = openSync(mountpoint, 'r')
    syncfs(fd)
    closeSync(fd)
    umount(mountpoint, UMOUNT_NOFOLLOW | MNT_FORCE | MNT_DETACH)
  }
  process.on('exit', () => {
    for (const { mountpoint } of live) detach?.(mountpoint)
  })
}
