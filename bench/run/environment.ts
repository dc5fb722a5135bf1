/** The paths of the program, and the environment of started processes. */

import * as fs from 'node:fs'
import * as path from 'node:path'
import { fileURLToPath } from 'node:url'

/** The repository: the compiled benchmark lies somewhere below it. */
export const root: string = (() => {
  for (let at = path.dirname(fileURLToPath(import.meta.url)); at !== '/'; at = path.dirname(at))
    if (fs.existsSync(`${at}/bench/launch.mjs`)) return at
  throw new Error('the repository is not found')
})()

/** The built program. */
export const cli = `${root}/dist/cli/tsoverlay`
/**
 * The environment without variables that would instrument the Node processes of one file system
 * only.
 */
export const plainEnvironment = (): NodeJS.ProcessEnv => {
  const { NODE_OPTIONS: _options, NODE_V8_COVERAGE: _coverage, ...env } = process.env
  return env
}

/** The mountpoints below a directory, the innermost first. */
export const mountsBelow = (directory: string): string[] =>
  fs
    .readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map(line => line.split(' ')[4] ?? '')
    .filter(point => point.startsWith(`${directory}/`))
    .toReversed()

/** The path of a program; null if it is not found. */
export const findProgram = (name: string): string | null => {
  const directories = name.includes('/') ? [''] : (process.env['PATH'] ?? '').split(':')
  for (const directory of directories) {
    const at = directory === '' ? path.resolve(name) : `${directory}/${name}`
    try {
      fs.accessSync(at, fs.constants.X_OK)
      return at
    } catch {
      // the program is not in this directory
    }
  }
  return null
}

export const hasProgram = (name: string): boolean => findProgram(name) !== null
