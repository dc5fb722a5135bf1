/** `tsoverlay umount` for several mounts, one after the other. */

import { MountError } from '../../errors.js'
import { mountedUnions } from '../../host/mounted-unions.js'
import { readMountInfo } from '../../host/proc-mounts.js'
import { ExitCode } from '../exit-codes.js'
import { lineOf, statusOf } from '../failures.js'
import { say } from '../say.js'
import { oneWord } from '../table.js'
import { unmount } from './umount.js'

/**
 * Goes on after one that can't be unmounted.
 * @returns the worst of the exit statuses
 */
export const unmountEach = async (
  mountpoints: readonly string[],
  lazy: boolean,
): Promise<number> => {
  let worst: number = ExitCode.OK
  for (const path of mountpoints) worst = Math.max(worst, await told(() => unmount(path, lazy)))
  return worst
}

/** Names each that is unmounted. What is mounted on top of another one goes first. */
export const unmountAll = async (lazy: boolean): Promise<number> => {
  let worst: number = ExitCode.OK
  for (const { mount } of mountedUnions().toReversed()) {
    const { id, mountpoint, device } = mount
    // Somebody else was quicker.
    if (readMountInfo().every(one => one.id !== id)) continue
    const status = await told(async () => {
      const ended = await unmount(mountpoint, lazy, device)
      console.log(oneWord(mountpoint))
      return ended
    })
    worst = Math.max(worst, status)
  }
  return worst
}

/** Says why it has failed. */
const told = async (step: () => Promise<number>): Promise<number> => {
  try {
    return await step()
  } catch (error) {
    if (!(error instanceof MountError)) throw error
    say(lineOf(error))
    return statusOf(error)
  }
}
