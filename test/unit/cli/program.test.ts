/**
 * Exit statuses, and what is written where: the program as a user starts it. Mounts: test/mount.
 */

import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'

import t from 'tap'

import { CLI } from '../../helpers/mount.js'

const run = (...args: string[]) => {
  const { stdout, stderr, status } = spawnSync(process.execPath, [CLI, ...args], {
    encoding: 'utf8',
    timeout: 60_000,
    env: {},
  })
  return { stdout, stderr, status }
}

t.test('questions are answered on standard output', { skip: !existsSync(CLI) }, async t => {
  t.match(run('--version'), { status: 0, stdout: /^tsoverlay \d+\.\d+\.\d+/, stderr: '' })
  for (const args of [['--help'], ['mount', '--help']])
    t.match(run(...args), { status: 0, stdout: /^Usage: tsoverlay/, stderr: '' })
})

t.test('wrong usage is 1, a mount that failed 32, on standard error', async t => {
  if (!existsSync(CLI)) return t.comment('needs the built program: npm run build')
  for (const args of [
    ['mount'],
    ['mount', '--log-level', 'loud', '/mnt'],
    ['nonsense'],
    ['mount', '-f', '-o', 'lowerdir=', '/mnt'],
    ['mount', '-o', 'index=maybe', '/mnt'],
  ])
    t.match(run(...args), { status: 1, stdout: '', stderr: /\S/ }, args.join(' '))
  for (const args of [
    ['mount', '-f', '-o', 'lowerdir=/no/such/directory', '/'],
    ['mount', '-o', 'lowerdir=/no/such/directory', '/'],
    ['umount', '/no/such/directory'],
  ])
    t.match(run(...args), { status: 32, stdout: '', stderr: /^tsoverlay: \S/ }, args.join(' '))
})
