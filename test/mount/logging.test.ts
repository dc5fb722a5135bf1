/**
 * The destination of a server's log: a file, set on the command line or by mount options, and the
 * system log.
 */

import { spawn, spawnSync } from 'node:child_process'
import * as fs from 'node:fs'

import t from 'tap'

import {
  CLI,
  directories,
  duplicateKeys,
  DETACH_COPIES,
  mountedOn,
  NODE,
  outcomeOf,
  scratch,
  serve,
  serversOf,
  skipMounts,
  test,
  tsoverlay,
  waitUntil,
} from '../helpers/mount.js'
import { isNative } from '../helpers/transport.js'
import { datagramsAt } from '../helpers/syscalls.js'

const SILENT = { status: 0, stdout: '', stderr: '' }

t.test('a line with a duplicate key', async t => {
  t.same(duplicateKeys('{"a":1,"b":{"a":2},"c":"\\"a\\":1,","d":[{"a":1}]}'), [])
  t.same(duplicateKeys('{"pid":1,"b":"x","pid":2}'), ['pid'])
  t.same(duplicateKeys('text'), [])
})

test(t, 'no line of the log has a duplicate key', { skip: skipMounts }, async t => {
  const f = directories(t, 'logging')
  const server = await serve(t, f, '--log-level', 'trace')
  fs.writeFileSync(`${f.merged}/file`, 'text')
  fs.readdirSync(f.merged)
  server.process.kill('SIGUSR1')
  await waitUntil('counters', () => server.log().includes('"counters"'))
  await server.unmount()
  const lines = server.log().trimEnd().split('\n')
  t.ok(isNative() || lines.some(line => line.includes('rx ')))
  for (const line of lines) t.same(duplicateKeys(line), [], line)
})

test(t, 'log_level and log_file are mount options', { skip: skipMounts }, async t => {
  const f = directories(t, 'logging')
  const file = `${f.top}/a,log`
  f.before(async () => {
    if (mountedOn(f.merged).length > 0) await tsoverlay('umount', f.merged)
  })
  const named = `log_file=${file.replace(',', '\\,')}`
  const mount = (more: string, ...args: string[]) =>
    tsoverlay('mount', ...args, '-o', `${f.options},${more}`, f.merged)
  const end = async (): Promise<void> => {
    t.match(await tsoverlay('umount', f.merged), SILENT)
    await waitUntil('the end', () => serversOf(f.merged).length === 0)
  }
  t.match(await mount(named), SILENT)
  await end()
  const info = fs.readFileSync(file, 'utf8')
  t.match(info, /"mounted"/)
  t.notMatch(info, /"negotiated"/)
  t.equal(fs.statSync(file).mode & 0o777, 0o600)

  t.match(await mount(`${named},log_level=debug`), SILENT)
  await end()
  const debug = fs.readFileSync(file, 'utf8')
  t.ok(debug.startsWith(info), 'it is appended to')
  t.match(debug.slice(info.length), /"mounted"/)
  if (!isNative()) t.match(debug, /"negotiated"/)

  t.match(await mount(`${named},log_level=debug`, '--log-level', 'silent'), SILENT)
  await end()
  t.equal(fs.readFileSync(file, 'utf8'), debug, 'the command line comes first')

  t.match(await mount(`log_file=${f.top}/none/log`), {
    status: 32,
    stderr: /^tsoverlay: log_file=.*none\/log: can't be opened for writing \(ENOENT\)/,
  })
  t.match(await mount('log_file=/dev/full,log_level=debug'), SILENT, 'a full disk')
  for (let i = 0; i < 50; i++) fs.writeFileSync(`${f.merged}/${i}`, '')
  t.equal(fs.readdirSync(f.merged).length, 50, 'does not end the server')
  await end()
})

const noNamespace =
  skipMounts ||
  (isNative() && 'one transport is enough') ||
  (spawnSync('unshare', ['-m', 'true']).status !== 0 && 'needs a mount namespace, by unshare(1)')

test(t, 'warnings of a background server go to the system log', { skip: noNamespace }, async t => {
  const f = directories(t, 'logging')
  const { top } = scratch(t, 'log')
  fs.mkdirSync(`${top}/dev`)
  // /dev with or without a log socket, in a temporary mount namespace.
  const inside = (script: string) =>
    spawn('unshare', ['--propagation', 'private', '-m', 'bash', '-ec', script, 'bash', top], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, NODE_OPTIONS: '' },
    })
  const dev = `${DETACH_COPIES}
    mount -t tmpfs none "$1/dev"
    for name in null fuse urandom; do : >"$1/dev/$name"; mount --bind "/dev/$name" "$1/dev/$name"; done
    ln -s /proc/self/fd "$1/dev/fd"
  `
  const cover = `mount --rbind "$1/dev" /dev`
  const program = [...NODE, CLI].map(word => `'${word}'`).join(' ')
  // The server gets SIGTERM while a program uses the mount.
  const busy = `
    cd '${f.merged}'
    pid=$(pgrep -f '^tsoverlay mount ${f.merged}')
    kill "$pid"
    for i in $(seq 300); do grep -q ' ${f.merged} ' /proc/self/mounts || break; sleep 0.1; done
    cd /
    # The process that has become its parent may not reap it.
    for i in $(seq 300); do grep -q '^State:.[^Z]' "/proc/$pid/status" 2>/dev/null || break; sleep 0.1; done
  `
  const log = datagramsAt(`${top}/log`)
  t.teardown(() => log.close())
  const mount = (more: string): string => `${program} mount ${more} -o '${f.options}' '${f.merged}'`
  const withLog = `${dev} ln -s "$1/log" "$1/dev/log"; ${cover};`
  t.match(await outcomeOf(inside(`${withLog} ${mount('')}; ${busy}`)), SILENT)
  t.match(log.next(), /^<28>.*tsoverlay\[\d+\]: not unmounted: detached from the tree/)
  t.equal(log.next(), undefined)

  const umount = `${program} umount '${f.merged}'`
  t.match(await outcomeOf(inside(`${withLog} ${mount('--log-level debug')}; ${umount}`)), {
    status: 0,
    stderr:
      /^tsoverlay: log level debug: \/dev\/log receives only warnings and errors; name a file/,
  })
  t.match(await outcomeOf(inside(`${withLog} ${mount('--log-level error')}; ${umount}`)), SILENT)
  t.match(await outcomeOf(inside(`${dev} ${cover}; ${mount('--log-level warn')}; ${umount}`)), {
    status: 0,
    stderr: /^tsoverlay: log level warn: there is no \/dev\/log; name a file/,
  })
  t.match(await outcomeOf(inside(`${dev} ${cover}; ${mount('')}; ${busy}`)), SILENT)
  t.equal(log.next(), undefined)
})
