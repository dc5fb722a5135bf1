/**
 * Detaches the live mounts when the process exits, so that no mount outlives its server. A process
 * that is killed cannot do this.
 */

import { closeSync, openSync } from 'node:fs'

import type { Mount } from './live-mount.js'
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
 * Guards a mount until it is closed.
 * @param abandon ends the server at once. Otherwise a file that the program itself has open would
 *   block the exit: the kernel closes the file only after the process has ended, and the server
 *   waits for that. Neither fusermount3, which cannot abort a connection (MNT_FORCE), nor a lazy
 *   unmount ends such a server
 * @param device the mounted device, as major:minor
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
    // Open files die with the process, but their written data must not be lost.
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
