/** The directory that relative paths start from. */

import { chdir, cwd } from 'node:process'

/**
 * Replaces the working directory if it was removed. Paths relative to it are not found, and the
 * error message shows the reason.
 */
const REMOVED = '/(the working directory was removed)'

let cached: string | undefined

/**
 * The working directory at start-up. If it was removed the process changes to /, because a thread
 * can't be started in a removed directory. So call it before starting a thread.
 */
export const workingDirectory = (): string => {
  if (cached !== undefined) return cached
  try {
    cached = cwd()
  } catch {
    cached = REMOVED
    chdir('/')
  }
  return cached
}
