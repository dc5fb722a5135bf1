/**
 * Runs scripts that print `ok NAME` or `FAILED NAME` for each step, the output of a failed step
 * indented, and `N passed, N failed` at the end. A script may instead print `skipped: REASON` and
 * exit with status 77.
 */

import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'

import type { Test } from 'tap'

import { outcomeOf, scratch } from './mount.js'

/** Runs a script of the directory `scripts`; each of its steps becomes an assertion. */
export const runSteps = async (t: Test, [name = '', ...args]: readonly string[]): Promise<void> => {
  const { top } = scratch(t, 'steps')
  const script = fileURLToPath(new URL(`../../scripts/${name}`, import.meta.url))
  const child = spawn('env', ['-u', 'NODE_OPTIONS', 'bash', script, ...args], {
    env: { ...process.env, TMPDIR: top },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const { status, stdout, stderr } = await outcomeOf(child)
  const last = stdout.trimEnd().split('\n').at(-1) ?? ''
  if (status === 77) {
    t.pass('not here', { skip: last })
    return
  }
  let passed = 0
  for (const part of stdout.split(/^(?=ok |FAILED )/m)) {
    const [, word, step = '', said = ''] = /^(ok|FAILED) (.*)\n([^]*)/.exec(part) ?? []
    if (word === undefined) continue
    if (word === 'ok') passed++
    t.ok(word === 'ok', step, { said })
  }
  t.match(last, new RegExp(`^${passed} passed, \\d+ failed$`), stderr)
  t.ok(passed > 0)
}
