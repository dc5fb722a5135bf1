import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'

import t, { type Test } from 'tap'

import { bundle } from '../../helpers/bundle.js'

const module = bundle(t, 'server/exit-guard')
const namespace = spawnSync('unshare', ['-m', 'true']).status === 0

/**
 * Mounts `$M` in a separate mount namespace, runs a process that guards it, and checks the result.
 */
const after = (t: Test, code: string): string => {
  const directory = mkdtempSync(`${tmpdir()}/tsoverlay-guard-`)
  t.teardown(() => rmSync(directory, { recursive: true }))
  const { stdout, stderr } = spawnSync(
    'unshare',
    [
      '-m',
      'sh',
      '-c',
      'mount -t tmpfs guarded "$M" && "$NODE" --input-type=module -e "$CODE"; grep -c " $M " /proc/self/mountinfo',
    ],
    {
      encoding: 'utf8',
      timeout: 60_000,
      env: {
        PATH: process.env['PATH'] ?? '',
        NODE: process.execPath,
        M: directory,
        CODE: `import { guardExit } from '${module}'
import { openSync, readFileSync } from 'node:fs'
import { execFileSync } from 'node:child_process'
const mountpoint = process.env.M
const device = readFileSync('/proc/self/mountinfo', 'utf8').split('\\n').map(line => line.split(' ')).find(words => words[4] === mountpoint)[2]
const never = new Promise(() => {})
${code}`,
      },
    },
  )
  t.equal(stderr, '')
  return stdout.trim()
}

t.test(
  'a mount goes with its process',
  { skip: !namespace && 'needs a mount namespace' },
  async t => {
    t.equal(after(t, 'await guardExit({ mountpoint, closed: never }, () => {}, device)'), '0')
    t.equal(
      after(t, 'await guardExit({ mountpoint, closed: never }, () => {})'),
      '0',
      'of any device',
    )
    t.equal(
      after(
        t,
        "await guardExit({ mountpoint, closed: never }, () => {}, device); openSync(mountpoint + '/f', 'w')",
      ),
      '0',
      'a busy one, too',
    )
  },
)

t.test('but no other', { skip: !namespace && 'needs a mount namespace' }, async t => {
  t.equal(
    after(t, 'await guardExit({ mountpoint, closed: Promise.resolve() }, device); await null'),
    '1',
    'its own has ended',
  )
  t.equal(
    after(
      t,
      `await guardExit({ mountpoint, closed: never }, () => {}, device)
execFileSync('mount', ['-t', 'tmpfs', 'above', mountpoint])`,
    ),
    '2',
    'it lies below another one',
  )
})
