/**
 * Runs the programs of workloads. The time includes their start, which is the same for all file
 * systems.
 */

import { spawnSync } from 'node:child_process'
import { plainEnvironment } from '../../run/environment.js'

/**
 * A hanging program must end before its client is given up; otherwise it would keep the mount busy.
 */
const PATIENCE_MS = 170_000
const OUTPUT = 64 << 20

export interface Surroundings {
  cwd?: string
  env?: NodeJS.ProcessEnv
  /** The program's standard input. */
  input?: string
}

/** The environment without the settings of the benchmark's caller: `npm run` exports its own. */
const environment = (more: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv => ({
  ...Object.fromEntries(
    Object.entries(plainEnvironment()).filter(([name]) => !/^(npm_|GIT_|PYTHON)/i.test(name)),
  ),
  LC_ALL: 'C',
  ...more,
})

/**
 * Runs a program.
 * @returns its output
 * @throws {Error} it has failed
 */
export const run = (
  [program = '', ...args]: readonly string[],
  { cwd, env, input = '' }: Surroundings = {},
): string => {
  const { status, signal, error, stdout, stderr } = spawnSync(program, args, {
    cwd,
    env: environment(env),
    input,
    encoding: 'utf8',
    timeout: PATIENCE_MS,
    killSignal: 'SIGKILL',
    maxBuffer: OUTPUT,
  })
  if (status === 0) return stdout
  const [said = ''] = stderr.trim().split('\n')
  throw new Error(`${program}: ${error?.message ?? (said === '' ? `${signal ?? status}` : said)}`)
}

/** Throws if a program's output is not the expected one. */
export const expect = (said: string, expected: string | number): void => {
  if (said.trim() !== String(expected))
    throw new Error(`expected ${expected}, and not: ${said.trim().slice(0, 200)}`)
}
