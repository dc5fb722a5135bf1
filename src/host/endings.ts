/**
 * Mounts of this process that are ending. `unmount` waits only a limited time for the server's end,
 * and under load the server needs longer to close its layers. A new mount with the same upper
 * directory then waits for that end here, because lock.ts would refuse it.
 */

import { realpathSync } from 'node:fs'

import { mountPlaces } from './mount-namespaces.js'

/** The mount's device and mountpoint, as in mountinfo. */
interface Place {
  device: string
  mountpoint: string
}

/** A mount of this process. */
interface OwnMount {
  directories: ReadonlySet<string>
  place: Place
  closed: Promise<void>
  /** It ends when the last open file is closed, so its end is not awaited. */
  lazy: boolean
}

const live = new Set<OwnMount>()

/** How long to wait for a detached mount, in milliseconds. */
const PATIENCE_MS = 30_000

const realOf = (path: string): string => {
  try {
    return realpathSync.native(path)
  } catch {
    return path
  }
}

/**
 * Registers a mount until it has ended.
 * @param directories its upper directory and its workdir
 * @param place its device and mountpoint
 * @param closed settles when the mount has ended
 * @returns a function to call at a lazy unmount: its end is no longer awaited then
 */
export const registerMount = (
  directories: readonly string[],
  place: Place | undefined,
  closed: Promise<void>,
): (() => void) => {
  if (place === undefined || directories.length === 0) return () => {}
  const own = { directories: new Set(directories.map(realOf)), place, closed, lazy: false }
  live.add(own)
  const forget = (): void => void live.delete(own)
  closed.then(forget, forget)
  return () => {
    own.lazy = true
  }
}

/**
 * Whether it is no longer mounted in this mount namespace or in a copy. The device number alone
 * does not tell, because the kernel gives a free number to a later mount.
 */
const isDetached = (own: OwnMount): boolean => {
  const { device, mountpoint } = own.place
  const newest = [...live].findLast(
    ({ place }) => place.device === device && place.mountpoint === mountpoint,
  )
  return (
    newest !== own || !mountPlaces(new Set([device])).some(found => found.mountpoint === mountpoint)
  )
}

/**
 * Waits for mounts of this process that use one of the directories but are no longer mounted.
 * @param directories an upper directory and a workdir
 * @param patience the maximum time in milliseconds
 */
export const awaitEndings = async (
  directories: readonly string[],
  patience = PATIENCE_MS,
): Promise<void> => {
  if (live.size === 0) return
  const names = directories.map(realOf)
  const ending = [...live].filter(
    own => !own.lazy && names.some(name => own.directories.has(name)) && isDetached(own),
  )
  if (ending.length === 0) return
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<void>(resolve => {
    timer = setTimeout(resolve, patience)
  })
  await Promise.race([Promise.allSettled(ending.map(({ closed }) => closed)), late])
  clearTimeout(timer)
}
