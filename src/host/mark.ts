/** Makes what markers.ts reads. */

import { writeSync } from 'node:fs'

import { close } from '../sys/io.js'
import { namedDescriptor } from '../sys/pidfd.js'
import type { Marker } from './markers.js'

let made = 0

/**
 * @returns to be called when the mount has ended; it goes without where there is no descriptor left
 */
export const mark = (marker: Marker): (() => void) => {
  const fd = namedDescriptor(`tsoverlay:${marker.device}:${made++}`)
  if (fd < 0) return () => {}
  try {
    writeSync(fd, JSON.stringify(marker))
  } catch {
    // then its name says that there is a mount
  }
  return () => void close(fd)
}
