/**
 * Mounts of this process whose end is under way: unmounting waits for it, but not for long, and under load a server needs longer
 * to close its layers. Whoever mounts the same upper folder then waits for that, where lock.ts would refuse it.
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
  folders: ReadonlySet<string>
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
 * @param folders its upper and its work folder
 * @param place what is mounted where
 * @param closed settles when it has ended
 * @returns to be called when it is unmounted lazily: nobody waits for it then
 */
export const noteLive = (
  folders: readonly string[],
  place: Place | undefined,
  closed: Promise<void>,
): (() => void) => {
  if (place === undefined || folders.length === 0) return () => {}
  const own = { folders: new Set(folders.map(realOf)), place, closed, lazy: false }
  live.add(own)
  const forget = (): void => void live.delete(own)
  closed.then(forget, forget)
  return () => {
    own.lazy = true
  }
}

/**
 * Whether it is mounted nowhere any more, neither here nor in a mount namespace that was copied. The device number alone does
 * not tell: once it is free, a later mount gets it.
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
 * Waits for mounts of this process that have one of the folders, but are mounted nowhere any more.
 * @param folders an upper and a work folder
 * @param patience for how long at most, in milliseconds
 */
export const awaitEndings = async (
  folders: readonly string[],
  patience = PATIENCE_MS,
): Promise<void> => {
  if (live.size === 0) return
  const names = folders.map(realOf)
  const ending = [...live].filter(
    own => !own.lazy && names.some(name => own.folders.has(name)) && isGone(own),
  )
  if (ending.length === 0) return
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<void>(resolve => {
    timer = setTimeout(resolve, patience)
  })
  await Promise.race([Promise.allSettled(ending.map(({ closed }) => closed)), late])
  clearTimeout(timer)
}
