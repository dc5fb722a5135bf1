/**
 * Readahead and the limit of dirty pages, for this mount alone. The FUSE protocol cannot raise them
 * above the kernel's defaults. Root can, in /sys/class/bdi
 * (Documentation/ABI/testing/sysfs-class-bdi).
 */

import { writeFileSync } from 'node:fs'
import type { Logger } from '../../log.js'

/**
 * Readahead of a sequential reader, in KiB. The kernel's default of 128 slows down the first read
 * of a large file. More than 512 gains nothing, and a page fault would read more pages that are not
 * needed.
 */
const READ_AHEAD_KB = 512

/**
 * This mount's maximum share of the machine's dirty pages, in percent. With the kernel's default of
 * 1 (fs/fuse/inode.c:fuse_bdi_init), a writer waits for the server constantly.
 */
const MAX_RATIO = 10

/**
 * Best effort: without root's rights the kernel's defaults stay.
 *
 * @param device of the mount, as major:minor
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
