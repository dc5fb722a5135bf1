import { execFileSync } from 'node:child_process'
import * as fs from 'node:fs'

import t from 'tap'

import { bundle } from '../../helpers/bundle.js'
import { moveToScope, scopeArguments } from '../../../src/resident/scope.js'

const module = bundle(t, 'resident/scope')

t.test('what systemd is asked for', async t => {
  t.strictSame(scopeArguments(7, true), ['--user', ...scopeArguments(7, false)])
  const args = scopeArguments(7, false)
  t.strictSame(args.slice(args.indexOf('PIDs'), args.indexOf('PIDs') + 4), ['PIDs', 'au', '1', '7'])
})

t.test('without systemd nothing is asked', async t => {
  t.equal(await moveToScope('/no/such/directory'), false)
})

t.test('where systemd refuses, the process stays where it is', async t => {
  const bin = t.testdir({ busctl: '#!/bin/sh\nexit 1\n' })
  fs.chmodSync(`${bin}/busctl`, 0o755)
  const code = `import { moveToScope } from '${module}'; console.log(await moveToScope('/'))`
  const run = (path: string): string =>
    execFileSync(process.execPath, ['--input-type=module', '-e', code], {
      encoding: 'utf8',
      env: { PATH: path },
    })
  t.equal(run(bin), 'false\n')
  t.equal(run('/no/such/directory'), 'false\n', 'there is no busctl')
})
