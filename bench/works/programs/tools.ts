/**
 * Runs the programs that works consist of. Their start is part of the time, the same for all file
 * systems.
 */

import { spawnSync } from 'node:child_process'
import { plainEnvironment } from '../../run/environment.js'

/** A program that hangs must end before its client is given up, or it would keep the mount busy. */
const PATIENCE_MS = 170_000
const OUTPUT = 64 << 20

export interface Surroundings {
  cwd?: string
  env?: NodeJS.ProcessEnv
  /** What the program reads. */
  input?: string
}

/**
 * The environment without the settings of whoever started the benchmark: `npm run` exports its own.
 */
const environment = (more: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv => ({
  ...Object.fromEntries(
    Object.entries(plainEnvironment()).filter(([name]) => !/^(npm_|GIT_|PYTHON)/i.test(name)),
  ),
  LC_ALL: 'C',
  ...more,
})

/**
 * Runs a program and returns what it has written.
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

/** Throws unless a program has written what it should have. */
export const expect = (said: string, expected: string | number): void => {
  if (said.trim() !== String(expected))
    throw new Error(`expected ${expected}, and not: ${said.trim().slice(0, 200)}`)
}
