/**
 * Loads the program's code from its own bundle, so that the entry points can start slower work
 * first.
 */

import { fileURLToPath } from 'node:url'

import { run, type Ran } from '../sys/code-cache.js'
import { entryPoint } from '../sys/entry-points.js'

const file = entryPoint('cli/program')

export const loadProgram = (): Ran<typeof import('./program.js')> => run(fileURLToPath(file))
