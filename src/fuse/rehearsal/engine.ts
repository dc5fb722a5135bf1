/**
 * Has the engine compile what runs often sooner than it would, so that practice need not last long. Only in a
 * process of our own: these settings hold for all of it.
 */

import { setFlagsFromString } from 'node:v8'
import { getEnvironmentData, setEnvironmentData } from 'node:worker_threads'

const KEY = 'tsoverlay: compile'

/** Words for the command line of the engine: before practice is over, during it, and after. */
interface Settings {
  readonly before: string
  readonly eager: string
  readonly last: string
  readonly after: string
}

/**
 * To be called in the main thread of a process that does nothing but serve. Nothing is set yet: other settings than the
 * default ones keep a thread that starts from using what Node brings compiled for it, which takes it 28 ms more.
 */
export const allowEagerCompiling = (settings: Settings): void => {
  setEnvironmentData(KEY, { ...settings })
}

const set = (which: keyof Settings): void => {
  const settings = getEnvironmentData(KEY) as Settings | undefined
  if (settings !== undefined) setFlagsFromString(settings[which])
}

/** @param last what has run seldom is to be compiled, too */
export const compileEagerly = (last: boolean): void => set(last ? 'last' : 'eager')

/** @param more there will be more practice */
export const compileAsUsual = (more: boolean): void => set(more ? 'before' : 'after')
