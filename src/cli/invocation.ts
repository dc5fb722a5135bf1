/** The invocation of this process: its name and arguments. */

import { argv, env } from 'node:process'

import { readCall, type Call } from '../config/compat.js'

/** The environment variable with the name under which tsoverlay.sh was invoked. */
const NAME = 'TSOVERLAY_CALLED_AS'

export const takeInvocation = (): Call => {
  const path = env[NAME] ?? argv[1] ?? ''
  Reflect.deleteProperty(env, NAME)
  return readCall(path.replace(/^.*\//s, ''), argv.slice(2), env)
}
