/** Tests the package as users get it. */

import t from 'tap'

import { skipMounts, test } from '../helpers/mount.js'
import { runSteps } from '../helpers/steps.js'

test(t, 'packed, installed and used for mounts', { skip: skipMounts }, t =>
  runSteps(t, ['package.sh']),
)
