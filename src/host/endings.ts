/**
 * Mounts of this process whose end is under way: unmounting waits for it, but not for long, and
 * under load a server needs longer to close its layers. Whoever mounts the same upper directory
 * then waits for that, where lock.ts would refuse it.
 */

import { realpathSync } from 'node:fs'

import { whereabouts } from './mount-namespaces.js'

/** Where a mount is, as mountinfo names it. */
interface Place {
  device: string
  mountpoint: string
}

/** A mount of this process. */
interface Own {
  directories: ReadonlySet<string>
  place: Place
  closed: Promise<void>
  /** Its end may take as long as files stay open. */
  lazy: boolean
}

const live = new Set<Own>()

/** How long to wait for a mount that is nowhere any more, in milliseconds. */
const PATIENCE_MS = 30_000

const realOf = (path: string): string => {
  try {
    return realpathSync.native(path)
  } catch {
    return path
  }
}

/**
 * Makes a mount known until it has ended.
 * @param directories its upper and its work directory
 * @param place what is mounted where
 * @param closed settles when it has ended
 * @returns to be called when it is unmounted lazily: nobody waits for it then
 */
export const noteLive = (
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
 * Whether it is mounted nowhere any more, neither here nor in a mount namespace that was copied.
 * The device number alone does not tell: once it is free, a later mount gets it.
 */
const isGone = (own: Own): boolean => {
  const { device, mountpoint } = own.place
  const newest = [...live].findLast(
    ({ place }) => place.device === device && place.mountpoint === mountpoint,
  )
  return (
    newest !== own || !whereabouts(new Set([device])).some(found => found.mountpoint === mountpoint)
  )
}

/**
 * Waits for mounts of this process that have one of the directories, but are mounted nowhere any
 * more.
 * @param directories an upper and a work directory
 * @param patience for how long at most, in milliseconds
 */
export const awaitEndings = async (
  directories: readonly string[],
  patience = PATIENCE_MS,
): Promise<void> => {
  if (live.size === 0) return
  const names = directories.map(realOf)
  const ending = [...live].filter(
    own => !own.lazy && names.some(name => own.directories.has(name)) && isGone(own),
  )
  if (ending.length === 0) return
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<void>(resolve => {
    timer = setTimeout(resolve, patience)
  })
  await Promise.race([Promise.allSettled(ending.map(({ closed }) => closed)), late])
  clearTimeout(timer)
}
