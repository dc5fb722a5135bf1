/** What a client or its options must not do to others: to processes that are not its own, and to mounts of the same server. */

import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import * as fs from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'

import t from 'tap'

import {
  isAlive,
  mountedOn,
  outcomeOf,
  scratch,
  skipMounts,
  test,
  until,
} from '../helpers/mount.js'
import { layersIn, resident, servedBy, type Layers } from '../helpers/resident.js'

const quiet = { status: 0, signal: null, stdout: '', stderr: '' }

const which = (f: Layers): string => fs.readFileSync(`${f.merged}/which`, 'utf8')

test(t, 'a client signals no number that is not a child', { skip: skipMounts }, async t => {
  const where = scratch(t, 'resident')
  const server = resident(t, where)
  const f = layersIn(where, 'first')
  t.same(await server.run('server', 'start', '--linger', '100'), quiet)
  const folder = server.folder()
  const dead = server.pid()
  process.kill(dead, 'SIGKILL')
  await until('its end', () => !isAlive(dead))
  // What poses as a server and does not answer.
  const posing = spawn('sleep', ['100'], { stdio: 'ignore' })
  const start = fs
    .readFileSync(`/proc/${posing.pid}/stat`, 'latin1')
    .replace(/^.*\) /, '')
    .split(' ')[19]
  fs.writeFileSync(`${folder}/pid`, `${posing.pid}\n${start}\nstays\n`)
  const fd = fs.openSync(`${folder}/control`, fs.constants.O_RDWR | fs.constants.O_NONBLOCK)
  // bash takes functions from the environment: this one says which numbers are nobody's.
  const [gone, there] = [`${where.top}/gone`, `${where.top}/there`]
  const kill = `() { for n; do [ -e /proc/$n ] && echo $n >>${there} || echo $n >>${gone}; done; builtin kill "$@"; }`
  const args = ['mount', '--linger', '0', '-o', 'lowerdir=/no/such/folder', f.merged]
  const child = server.start(args, { through: ['bash'], env: { 'BASH_FUNC_kill%%': kill } })
  const outcome = outcomeOf(child)
  await pause(300)
  child.kill('SIGTERM')
  t.match(await outcome, { status: 8, stderr: '' })
  t.ok(fs.existsSync(there), 'what waits is ended')
  t.notOk(fs.existsSync(gone))
  fs.closeSync(fd)
  posing.kill()
  fs.rmSync(folder, { recursive: true })
})

test(t, 'a log that keeps whoever opens it waiting', { skip: skipMounts }, async t => {
  const where = scratch(t, 'resident')
  const server = resident(t, where)
  const [first, second, third] = ['first', 'second', 'third'].map(name =>
    layersIn(where, name),
  ) as [Layers, Layers, Layers]
  t.same(await server.run('mount', '-o', first.options, first.merged), quiet)
  const pid = await server.registered()
  const log = `${where.top}/log`
  spawnSync('mkfifo', [log])
  const child = server.start(['mount', '--log-file', log, '-o', second.options, second.merged])
  const outcome = outcomeOf(child)
  await pause(500)
  t.same(await server.run('mount', '-o', third.options, third.merged), quiet)
  t.strictSame(servedBy(third.merged), [pid], 'others are served')
  const read = once(spawn('cat', [log], { stdio: 'ignore' }), 'exit')
  t.same(await outcome, quiet)
  t.not(servedBy(second.merged)[0], pid)
  t.equal(which(second), 'second')
  t.same(await server.run('umount', second.merged), quiet)
  await read
  t.equal(server.pid(), pid)
})

test(t, 'two at once, of which one leads through the other', { skip: skipMounts }, async t => {
  const where = scratch(t, 'resident')
  const server = resident(t, where)
  const [first, outer, inner] = ['first', 'outer', 'inner'].map(name => layersIn(where, name)) as [
    Layers,
    Layers,
    Layers,
  ]
  for (const folder of [outer.lower, outer.merged]) fs.mkdirSync(`${folder}/low`)
  t.same(await server.run('mount', '-o', first.options, first.merged), quiet)
  const pid = await server.registered()
  for (let i = 0; i < 16; i++) {
    const all = [outcomeOf(server.start(['mount', '-o', `lowerdir=${outer.lower}`, outer.merged]))]
    await pause(i % 8)
    const second = server.start(['mount', '-o', `lowerdir=${outer.merged}/low`, inner.merged])
    all.push(outcomeOf(second))
    const stuck = setTimeout(() => process.kill(pid, 'SIGKILL'), 8000)
    for (const one of await Promise.all(all)) t.same(one, quiet)
    clearTimeout(stuck)
    t.ok(isAlive(pid), `it has not waited for itself: round ${i}`)
    if (!isAlive(pid)) break
    t.equal(which(first), 'first')
    for (const { merged } of [inner, outer]) {
      t.equal(mountedOn(merged).length, 1)
      t.equal(spawnSync('umount', [merged]).status, 0)
    }
  }
})

test(t, 'an answer that comes before the client waits', { skip: skipMounts }, async t => {
  const where = scratch(t, 'resident')
  const server = resident(t, where)
  const f = layersIn(where, 'first')
  t.same(await server.run('server', 'start', '--linger', '100'), quiet)
  const answer = `${server.folder()}/answer.$$`
  const wait = `() { until [ -e ${answer} ]; do :; done; sleep 0.1; builtin wait "$@"; }`
  const args = ['mount', '--linger', '0', '-o', 'lowerdir=/no/such/folder', f.merged]
  const child = server.start(args, {
    through: ['setpriv', '--groups', '0,1234', 'bash'],
    env: { 'BASH_FUNC_wait%%': wait },
  })
  const begun = Date.now()
  t.match(await outcomeOf(child), { status: 32 })
  t.ok(Date.now() - begun < 1900, 'it waits for no timer')
})
