/** `tsoverlay umount` for several mounts: unmounts them one after the other. */

import { MountError } from '../../errors.js'
import { mountedUnions } from '../../host/mounted-unions.js'
import { readMountInfo } from '../../host/proc-mounts.js'
import { ExitCode } from '../exit-codes.js'
import { lineOf, statusOf } from '../failures.js'
import { say } from '../say.js'
import { oneWord } from '../table.js'
import { unmount } from './umount.js'

/**
 * Continues with the other mounts if one can't be unmounted.
 * @returns the highest exit status
 */
export const unmountEach = async (
  mountpoints: readonly string[],
  lazy: boolean,
): Promise<number> => {
  let worst: number = ExitCode.OK
  for (const path of mountpoints) worst = Math.max(worst, await reported(() => unmount(path, lazy)))
  return worst
}

/**
 * Unmounts all unions and prints the name of each. The newest mount comes first, so that a mount on
 * top of another is unmounted before it.
 */
export const unmountAll = async (lazy: boolean): Promise<number> => {
  let worst: number = ExitCode.OK
  for (const { mount } of mountedUnions().toReversed()) {
    const { id, mountpoint, device } = mount
    // Another process has unmounted it.
    if (readMountInfo().every(one => one.id !== id)) continue
    const status = await reported(async () => {
      const ended = await unmount(mountpoint, lazy, device)
      console.log(oneWord(mountpoint))
      return ended
    })
    worst = Math.max(worst, status)
  }
  return worst
}

/** Runs a step; prints the message of a MountError and returns its exit status. */
const reported = async (step: () => Promise<number>): Promise<number> => {
  try {
    return await step()
  } catch (error) {
    if (!(error instanceof MountError)) throw error
    say(lineOf(error))
    return statusOf(error)
  }
}
