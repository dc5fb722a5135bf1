/** What this process was called with. */

import { argv, env } from 'node:process'

import { readCall, type Call } from '../config/compat.js'

/** In the environment: the name by which tsoverlay.sh was called. */
const NAME = 'TSOVERLAY_CALLED_AS'

export const takeCall = (): Call => {
  const path = env[NAME] ?? argv[1] ?? ''
  Reflect.deleteProperty(env, NAME)
  return readCall(path.replace(/^.*\//s, ''), argv.slice(2), env)
}
