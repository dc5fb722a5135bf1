/**
 * Markers: a process publishes each of its mounts for other processes. A marker is an in-memory
 * file that is open in the process. Its name begins with `tsoverlay:`, and its contents describe
 * the mount. It is visible in /proc/PID/fd. It is closed when the mount has ended and its layers
 * are closed, or when the process ends for any reason. mark.ts creates them.
 */

import { statSync } from 'node:fs'

import { descriptorsOf, readDescriptor } from '../sys/descriptors.js'
import type { UnionOptions } from '../overlay/options.js'

export interface Marker {
  mountpoint: string
  /** As in mountinfo: `0:40`. */
  device: string
  lower: readonly string[]
  upper?: string
  work?: string
  /** Device and inode number, `DEV:INO`, of the upper directory and the workdir. */
  keys: readonly string[]
  writable: boolean
  io: string
  /** The time of the mount, in milliseconds since 1970. */
  since: number
  /**
   * The descriptor of the pipe for questions (server/questions.ts); -1 or missing: there is none.
   */
  questions?: number
}

/** A marker of another process. Its name is unique in that process. */
export interface PublishedMarker extends Marker {
  name: string
}

/** Device and inode number of a directory; '' if access is denied. */
export const keyOf = (path: string): string => {
  try {
    const { dev, ino } = statSync(path, { bigint: true })
    return `${dev}:${ino}`
  } catch {
    return ''
  }
}

/** Called before mounting, because the mount may hide the directories. */
export const keysOf = ({ upper, work }: UnionOptions): string[] =>
  [upper, work].filter(path => path !== undefined).map(keyOf)

/** The names of a process's markers, regardless of their contents. */
export const markerNames = (pid: number): string[] => markedDescriptors(pid).map(([, name]) => name)

/** The mounts that a process publishes, if this process may read them. */
export const markersOf = (pid: number): PublishedMarker[] =>
  markedDescriptors(pid).flatMap(([fd, name]) => {
    try {
      const marker = JSON.parse(readDescriptor(pid, fd) ?? '') as Marker | null
      // Another user's process may write arbitrary contents.
      return Array.isArray(marker?.keys) ? [{ ...marker, name }] : []
    } catch {
      return [] // closed meanwhile
    }
  })

/** The marker of a mount among those of a process. */
export const markerOf = (pid: number, device: string): PublishedMarker | undefined =>
  markersOf(pid).find(marker => marker.device === device)

const markedDescriptors = (pid: number): [fd: string, name: string][] =>
  descriptorsOf(pid).flatMap(([fd, target]) => {
    const name = /^\/memfd:(tsoverlay:\S+)/.exec(target)?.[1]
    return name === undefined ? [] : [[fd, name] as [string, string]]
  })
