/** A server that comes to nothing. Those that live: test/mount/lifecycle.test.ts. */

import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'

import t from 'tap'

import { CLI } from '../../helpers/mount.js'

const skip = !existsSync(CLI) && 'needs the built program: npm run build'

const run = (...more: string[]) => {
  const args = [CLI, 'mount', ...more, '-o', 'lowerdir=/no/such/folder', '/no/such/mountpoint']
  const { status, stderr, stdout } = spawnSync(process.execPath, args, {
    encoding: 'utf8',
    timeout: 60_000,
    env: {},
  })
  return { status, stderr, stdout }
}

t.test('its words and its status are those of the command', { skip }, async t => {
  const background = run()
  t.match(background, { status: 32, stdout: '', stderr: /^tsoverlay: .*\n$/ })
  t.strictSame(background, run('-f'), 'as in the foreground')
})

t.test('who interrupts the wait is told so, and no server is left', { skip }, async t => {
  const folder = mkdtempSync(`${tmpdir()}/tsoverlay-daemon-`)
  t.teardown(() => rmSync(folder, { recursive: true }))
  // Nobody writes to the pipe: opening its log file, the server waits for ever.
  t.equal(spawnSync('mkfifo', [`${folder}/log`]).status, 0)
  const args = [CLI, 'mount', '--log-file', `${folder}/log`, '-o', `lowerdir=${folder}`, folder]
  const child = spawn(process.execPath, args, { stdio: 'ignore', env: {} })
  let server = ''
  for (let tries = 0; server === '' && tries < 1000; tries++) {
    await new Promise(next => setTimeout(next, 20))
    server = readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'latin1').trim()
  }
  t.not(server, '')
  child.kill('SIGTERM')
  const [status] = (await once(child, 'exit')) as [number]
  t.equal(status, 8)
  t.notOk(existsSync(`/proc/${server}/exe`))
})
