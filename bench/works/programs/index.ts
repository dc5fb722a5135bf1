/** Programs that users wait for, on a union. */

import type { Workload } from '../work.js'
import { gitStatus } from './git.js'
import { compilation } from './make.js'
import { npmInstall } from './npm.js'
import { sqlite } from './sqlite.js'
import { startUp } from './start-up.js'

export const programs: Workload[] = [gitStatus, ...startUp, compilation, npmInstall, sqlite]
