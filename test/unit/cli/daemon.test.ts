/**
 * A server that comes to nothing, started by Node and by the shell of tsoverlay.sh. Those that
 * live: test/mount/lifecycle.test.ts.
 */

import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'

import t, { type Test } from 'tap'

import { CLI, PROGRAM, spawnPlain } from '../../helpers/mount.js'

const skip = !existsSync(CLI) && 'needs the built program: npm run build'

const { PATH = '' } = process.env

const run = (program: string, args: readonly string[], path = PATH) => {
  const { status, stderr, stdout } = spawnSync(program, args, {
    encoding: 'utf8',
    timeout: 60_000,
    env: { PATH: path, TSOVERLAY_SERVER: '' },
  })
  return { status, stderr, stdout }
}

const failing = ['-o', 'lowerdir=/no/such/directory', '/no/such/mountpoint']

for (const [program, ...first] of [[process.execPath, CLI], [PROGRAM]] as const) {
  t.test(`its words and its status are those of the command: ${program}`, { skip }, async t => {
    const background = run(program, [...first, 'mount', ...failing])
    t.match(background, { status: 32, stdout: '', stderr: /^tsoverlay: .*\n$/ })
    t.strictSame(
      background,
      run(program, [...first, 'mount', '-f', ...failing]),
      'in the foreground',
    )
  })
}

/** Interrupts a program that waits for a server, and tells its status and what is left. */
const interrupt = async (t: Test, program: string, args: readonly string[], path = PATH) => {
  const child = spawn(program, args, { stdio: 'ignore', env: { PATH: path, TSOVERLAY_SERVER: '' } })
  let server = ''
  for (let tries = 0; server === '' && tries < 1000; tries++) {
    await new Promise(next => setTimeout(next, 20))
    server = readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'latin1').trim()
  }
  t.not(server, '')
  child.kill('SIGTERM')
  const [status] = (await once(child, 'exit')) as [number]
  t.equal(status, 8)
  t.notOk(existsSync(`/proc/${server}/exe`), 'no server is left')
}

const scratch = (t: Test): string => {
  const directory = mkdtempSync(`${tmpdir()}/tsoverlay-daemon-`)
  t.teardown(() => rmSync(directory, { recursive: true }))
  return directory
}

t.test('who interrupts Node is told so, and no server is left', { skip }, async t => {
  const directory = scratch(t)
  // Nobody writes to the pipe: opening its log file, the server waits for ever.
  t.equal(spawnSync('mkfifo', [`${directory}/log`]).status, 0)
  const args = ['--log-file', `${directory}/log`, '-o', `lowerdir=${directory}`, directory]
  await interrupt(t, process.execPath, [CLI, 'mount', ...args])
})

t.test('who interrupts Node while it starts the server', { skip }, async t => {
  const directory = scratch(t)
  t.equal(spawnSync('mkfifo', [`${directory}/log`]).status, 0)
  writeFileSync(
    `${directory}/hook.mjs`,
    `import process from 'node:process'
    import { writeFileSync } from 'node:fs'
    import { syncBuiltinESMExports } from 'node:module'
    import children from 'node:child_process'
    const { spawn } = children
    children.spawn = (...args) => {
      const child = spawn(...args)
      writeFileSync(${JSON.stringify(`${directory}/server`)}, String(child.pid))
      process.kill(process.pid, 'SIGTERM')
      return child
    }
    syncBuiltinESMExports()`,
  )
  const args = ['--log-file', `${directory}/log`, '-o', `lowerdir=${directory}`, directory]
  const hooked = ['--import', `${directory}/hook.mjs`, CLI, 'mount', ...args]
  const child = spawnPlain(process.execPath, hooked, { stdio: 'ignore' })
  t.strictSame(await once(child, 'exit'), [8, null])
  const server = readFileSync(`${directory}/server`, 'latin1')
  const left = existsSync(`/proc/${server}/exe`)
  if (left) process.kill(Number(server))
  t.notOk(left, 'no server is left')
})

t.test('the shell and a server that is not the real one', { skip }, async t => {
  const directory = scratch(t)
  const path = `${directory}:${PATH}`
  const serverIs = (script: string) =>
    writeFileSync(`${directory}/node`, `#!/bin/sh\n${script}\n`, { mode: 0o755 })

  serverIs('exec sleep 1000')
  await interrupt(t, PROGRAM, ['mount', ...failing], path)
  serverIs('kill -9 "$$"')
  t.match(run(PROGRAM, ['mount', ...failing], path), {
    status: 2,
    stderr: /^tsoverlay: the server was ended by signal 9 before the mount was live$/m,
  })
  serverIs('exit 0')
  t.equal(run(PROGRAM, ['mount', ...failing], path).status, 2, 'it was never live')
  serverIs('kill -USR2 "$TSOVERLAY_LAUNCHER"; exec sleep 1')
  t.equal(run(PROGRAM, ['mount', ...failing], path).status, 0, 'live')
  serverIs('echo "$TSOVERLAY_CALLED_AS $*"; exit 3')
  t.match(run(PROGRAM, ['mount', '-oa', '-o', 'b c', '/m'], path), { status: 3, stdout: '' })
  for (const args of [['umount', '/m'], ['mount', '-fo', 'b', '/m'], ['mount', '--help'], []]) {
    const stdout = `tsoverlay ${[PROGRAM.replace(/[^/]*$/, 'main.cjs'), ...args].join(' ')}\n`
    t.strictSame(run(PROGRAM, args, path), { status: 3, stdout, stderr: '' }, 'goes to Node')
  }
})
