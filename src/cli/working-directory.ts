/** Where relative paths start from. */

import { chdir, cwd } from 'node:process'

/**
 * In its place where it was removed: what is looked for in it is not found, and the message says
 * why.
 */
const GONE = '/(the working directory was removed)'

let known: string | undefined

/**
 * The working directory that the program was started in. Where that was removed the process leaves
 * it: a thread can't be started there. So this is to be called before one is.
 */
export const workingDirectory = (): string => {
  if (known !== undefined) return known
  try {
    known = cwd()
  } catch {
    known = GONE
    chdir('/')
  }
  return known
}
