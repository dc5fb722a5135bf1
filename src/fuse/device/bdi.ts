/**
 * How far ahead the kernel reads and how much it holds back of what is written, for this mount
 * alone. FUSE may not say so in its own protocol beyond the kernel's defaults, but root may, in
 * /sys/class/bdi (Documentation/ABI/testing/sysfs-class-bdi).
 */

import { writeFileSync } from 'node:fs'
import type { Logger } from '../../log.js'

/**
 * KiB that are asked for ahead of a sequential reader. With the kernel's 128 a large file that is
 * read for the first time takes an eighth longer; beyond 512 nothing gets faster, and a page fault
 * would fetch more for nothing.
 */
const READ_AHEAD_KB = 512

/**
 * Percent of the machine's dirty pages that may be this mount's. With the kernel's 1
 * (fs/fuse/inode.c:fuse_bdi_init) who writes waits for the server all the time: the third file of
 * 128 MiB in a row took 0.5 s, with 10 it takes 0.1.
 */
const MAX_RATIO = 10

/**
 * @param device of the mount, as major:minor. Best effort: who is not root keeps the kernel's
 *   defaults.
 */
export const tuneBdi = (device: string, log: Logger): void => {
  const settings = { read_ahead_kb: READ_AHEAD_KB, max_ratio: MAX_RATIO }
  for (const [name, value] of Object.entries(settings)) {
    try {
      writeFileSync(`/sys/class/bdi/${device}/${name}`, `${value}\n`)
    } catch (error) {
      log.debug({ error: String(error) }, `${name} stays as it is`)
    }
  }
}
