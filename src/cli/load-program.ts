/**
 * The program's code, which has a file of its own: programs load it when they have begun what takes
 * longer.
 */

import { fileURLToPath } from 'node:url'

import { run, type Ran } from '../sys/code-cache.js'
import { entryPoint } from '../sys/entry-points.js'

const file = entryPoint('cli/program')

export const loadProgram = (): Ran<typeof import('./program.js')> => run(fileURLToPath(file))
