/**
 * The mount option `remount`: changes the flags of an existing mount, as mount(2) with MS_REMOUNT
 * does on a kernel overlayfs. It mounts nothing and starts no server. The options of the union stay
 * unchanged.
 */

import { MountError } from '../../errors.js'
import { addMountFlag, isMountFlag } from '../../config/mount-flags.js'
import type { MountInfo } from '../../host/proc-mounts.js'
import { servesWritable, serversOf } from '../../host/servers.js'
import {
  MS_NOATIME,
  MS_NODIRATIME,
  MS_RDONLY,
  MS_RELATIME,
  MS_REMOUNT,
  MS_STRICTATIME,
} from '../../sys/constants.js'
import { E, errnoMessage, errnoName } from '../../sys/errno.js'
import { mount } from '../../sys/mount.js'
import { parseMountOptions } from '../../config/options.js'
import { splitOptions } from '../../config/syntax.js'
import { say } from '../say.js'
import { findMount } from './umount.js'
import { checkUnknown, type OnUnknown } from '../../config/unknown-options.js'

const REMOUNT = 'remount'

/**
 * Options that the kernel shows for a FUSE mount beside its flags (fs/fuse/inode.c:
 * fuse_show_options), or that a FUSE mounter passes. mount(8) repeats them from
 * /proc/self/mountinfo; here they are ignored. `default_permissions` and `allow_other` are absent
 * from this list because tsoverlay has options of these names.
 */
const SHOWN = /^(?:user_id|group_id|max_read|blksize|rootmode|fd)=\d+$/

/** Whether the values of `-o` contain `remount`. */
export const isRemount = (lists: readonly string[]): boolean =>
  lists.flatMap(splitOptions).includes(REMOUNT)

/** The option names for a mount's flags. /proc shows no name for strictatime. */
const wordsOf = (options: string): string[] => {
  const words = options.split(',')
  return words.some(word => /^(no|rel)atime$/.test(word)) ? words : [...words, 'strictatime']
}

/**
 * Computes the MS_* flags after a remount: the current flags, then the given options. The last
 * option wins. mount(8) passes all of them.
 * @param current the mount's options in mountinfo
 */
export const remountFlags = (current: string, lists: readonly string[]): number =>
  [...wordsOf(current), ...lists.flatMap(splitOptions)].filter(isMountFlag).reduce(addMountFlag, 0)

/** The MS_* flags that decide which reads update access times (kernel: path_mount). */
const atimeOf = (flags: number): number => {
  const which = [MS_STRICTATIME, MS_NOATIME].find(bit => (flags & bit) !== 0) ?? MS_RELATIME
  return which | (flags & MS_NODIRATIME)
}

/**
 * Changes the flags of the topmost mount on a directory.
 * @param lists the values of `-o`
 * @throws {MountError} nothing is changed then
 */
export const remount = (path: string, lists: readonly string[], onUnknown: OnUnknown): void => {
  const others = lists.map(list =>
    splitOptions(list)
      .filter(item => item !== REMOUNT && !SHOWN.test(item))
      .join(','),
  )
  const options = parseMountOptions(others, '/') // the paths are not used
  for (const line of checkUnknown(options.ignored, options.labels, onUnknown)) say(line)
  const there = findMount(path)
  const { mountpoint } = there
  const flags = remountFlags(there.options, lists)
  if ((flags & MS_RDONLY) === 0 && isReadOnly(there) && !mayBecomeWritable(there))
    throw failure(
      mountpoint,
      'EROFS',
      'the union was mounted read-only or without upperdir; to write, unmount it and mount it again',
    )
  // The server has already set the atime flags on its private mount of the upper layer.
  if (atimeOf(flags) !== atimeOf(remountFlags(there.options, [])) && mayBecomeWritable(there))
    throw failure(
      mountpoint,
      'EINVAL',
      'whether reading moves access times is said when a union is mounted; mount it anew',
    )
  const r = mount(null, mountpoint, null, MS_REMOUNT | flags)
  if (r >= 0) return
  const why =
    r === -E.EBUSY
      ? 'a file is open for writing'
      : r === -E.EPERM
        ? 'it needs the right to mount, which root has'
        : errnoMessage(r)
  throw failure(mountpoint, errnoName(r), why)
}

const isReadOnly = ({ options, superOptions }: MountInfo): boolean =>
  [options, superOptions].some(words => words.split(',').includes('ro'))

const mayBecomeWritable = (there: MountInfo): boolean =>
  serversOf(there).some(pid => servesWritable(pid, there.device))

const failure = (mountpoint: string, code: string, why: string): MountError =>
  new MountError(`${mountpoint} can't be remounted: ${why}`, {
    option: 'remount',
    path: mountpoint,
    code,
  })
