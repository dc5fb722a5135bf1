import { spawnSync } from 'node:child_process'

import t from 'tap'

import { bundle } from '../../helpers/bundle.js'

const module = bundle(t, 'cli/say')

/** Runs a shell's command with `$NODE "$CODE"` in it. */
const shell = (command: string, code: string) =>
  spawnSync('sh', ['-c', command], {
    encoding: 'latin1',
    timeout: 60_000,
    env: {
      PATH: process.env['PATH'] ?? '',
      NODE: process.execPath,
      CODE: `import { say } from '${module}'; ${code}`,
    },
  })

t.test('a line is written whole and at once', async t => {
  const { stderr, status } = shell(
    'exec "$NODE" --input-type=module -e "$CODE"',
    "say('one'); say('\\u00e4'); process.exit(3)",
  )
  t.strictSame([stderr, status], ['one\n\xc3\xa4\n', 3])
})

t.test('a reader that is slow gets all of it, although the pipe is full', async t => {
  const { stdout } = shell(
    '"$NODE" --input-type=module -e "$CODE" 2>&1 >/dev/null | (sleep 0.2; wc -c)',
    `import { setNonblock } from '${bundle(t, 'sys/io')}'; setNonblock(2); say('x'.repeat(199_999)); process.exit()`,
  )
  t.equal(Number(stdout), 200_000)
})

t.test('a reader that is gone is no reason to fail', async t => {
  const { stdout } = shell(
    'exec 3>&1; { "$NODE" --input-type=module -e "$CODE" 2>&1 >&3; echo "status $?" >&3; } | true',
    "await new Promise(done => setTimeout(done, 200)); say('nobody'); console.log('went on')",
  )
  t.equal(stdout, 'went on\nstatus 0\n')
})
