/** Creates the markers that markers.ts reads. */

import { writeSync } from 'node:fs'

import { close } from '../sys/io.js'
import { namedDescriptor } from '../sys/pidfd.js'
import type { Marker } from './markers.js'

let made = 0

/**
 * @returns a function to call when the mount has ended. Without a free descriptor there is no
 *   marker
 */
export const mark = (marker: Marker): (() => void) => {
  const fd = namedDescriptor(`tsoverlay:${marker.device}:${made++}`)
  if (fd < 0) return () => {}
  try {
    writeSync(fd, JSON.stringify(marker))
  } catch {
    // the marker's name alone shows the mount
  }
  return () => void close(fd)
}
