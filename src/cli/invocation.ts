/** The invocation of this process: its name and arguments. */

import { argv, env } from 'node:process'

import { readInvocation, type Invocation } from '../config/compat.js'

/** The environment variable with the name under which tsoverlay.sh was invoked. */
const NAME = 'TSOVERLAY_CALLED_AS'

export const takeInvocation = (): Invocation => {
  const path = env[NAME] ?? argv[1] ?? ''
  Reflect.deleteProperty(env, NAME)
  return readInvocation(path.replace(/^.*\//s, ''), argv.slice(2), env)
}
