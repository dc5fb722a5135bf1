/**
 * Compiled code kept from one start to the next, where this Node can do that. The cache lies with the
 * package, not in the folder for temporary files that Node would take: whoever can write it decides
 * what is run.
 */

import { statSync } from 'node:fs'
import * as module from 'node:module'
import { env } from 'node:process'
import { fileURLToPath } from 'node:url'

const home = new URL('../../', import.meta.url)

/**
 * Has an effect on what is imported and which threads are started afterwards. A folder that can't be
 * written is no trouble.
 */
export const cacheCode = (): void => {
  const enable: unknown = Reflect.get(module, 'enableCompileCache')
  if (typeof enable !== 'function') return
  // Files of another user in somebody's node_modules would stand in the way of npm.
  if (statSync(home).uid !== process.geteuid?.()) return
  const folder = fileURLToPath(new URL('node_modules/.cache/tsoverlay/', home))
  enable(folder)
  env['NODE_COMPILE_CACHE'] ??= folder // how a thread is told
}
