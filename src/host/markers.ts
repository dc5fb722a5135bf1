/**
 * What a process says about its mounts, for others to see: an open file in memory for each, whose
 * name begins with `tsoverlay:`, and whose text says what it is. It is closed when the mount has
 * ended and its layers are closed. /proc/PID/fd shows it; nothing is left of it when the process
 * ends, however that does. mark.ts makes one.
 */

import { statSync } from 'node:fs'

import { descriptorsOf, readDescriptor } from '../sys/descriptors.js'
import type { UnionOptions } from '../overlay/options.js'

export interface Marker {
  mountpoint: string
  /** As mountinfo names it: `0:40`. */
  device: string
  lower: readonly string[]
  upper?: string
  work?: string
  /** Device and inode, `DEV:INO`, of the upper and the work directory. */
  keys: readonly string[]
  writable: boolean
  io: string
  /** When it was mounted, in milliseconds. */
  since: number
  /**
   * The descriptor of the pipe for questions (server/questions.ts); -1 or missing: there is none.
   */
  questions?: number
}

/** One that was found, with a name that no other of the process has. */
export interface Found extends Marker {
  name: string
}

/** Device and inode of a directory; '' where it can't be seen. */
export const keyOf = (path: string): string => {
  try {
    const { dev, ino } = statSync(path, { bigint: true })
    return `${dev}:${ino}`
  } catch {
    return ''
  }
}

/** To be asked before the mount: it may hide them. */
export const keysOf = ({ upper, work }: UnionOptions): string[] =>
  [upper, work].filter(path => path !== undefined).map(keyOf)

/** The names of a process' markers, whatever they say. */
export const markerNames = (pid: number): string[] => markedDescriptors(pid).map(([, name]) => name)

/** The mounts of a process, as far as it lets this one look. */
export const markersOf = (pid: number): Found[] =>
  markedDescriptors(pid).flatMap(([fd, name]) => {
    try {
      const marker = JSON.parse(readDescriptor(pid, fd) ?? '') as Marker | null
      // Another user's process may say anything.
      return Array.isArray(marker?.keys) ? [{ ...marker, name }] : []
    } catch {
      return [] // closed meanwhile
    }
  })

/** The marker of a mount among those of a process. */
export const markerOf = (pid: number, device: string): Found | undefined =>
  markersOf(pid).find(marker => marker.device === device)

const markedDescriptors = (pid: number): [fd: string, name: string][] =>
  descriptorsOf(pid).flatMap(([fd, target]) => {
    const name = /^\/memfd:(tsoverlay:\S+)/.exec(target)?.[1]
    return name === undefined ? [] : [[fd, name] as [string, string]]
  })
