/**
 * Effects that a client or its options must not have on other processes and on other mounts of the
 * server.
 */

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
  waitUntil,
  type Scratch,
} from '../helpers/mount.js'
import {
  layersIn,
  impersonateServer,
  resident,
  servedBy,
  type Layers,
} from '../helpers/resident.js'

const quiet = { status: 0, signal: null, stdout: '', stderr: '' }

const which = (f: Layers): string => fs.readFileSync(`${f.merged}/which`, 'utf8')

test(t, 'a client only signals its own children', { skip: skipMounts }, async t => {
  const where = scratch(t, 'resident')
  const server = resident(t, where)
  const f = layersIn(where, 'first')
  t.same(await server.run('server', 'start', '--linger', '100'), quiet)
  const directory = server.directory()
  const dead = server.pid()
  process.kill(dead, 'SIGKILL')
  await waitUntil('its end', () => !isAlive(dead))
  // A process that clients take for the server and that does not answer.
  const posing = spawn('sleep', ['100'], { stdio: 'ignore' })
  const pipe = impersonateServer(directory, posing.pid ?? 0)
  // bash imports functions from the environment. This function records process ids that do not
  // exist.
  const [gone, there] = [`${where.top}/gone`, `${where.top}/there`]
  const kill = `() { for n; do case $n in -s | URG) continue ;; esac; [ -e /proc/$n ] && echo $n >>${there} || echo $n >>${gone}; done; builtin kill "$@"; }`
  const args = ['mount', '--linger', '0', '-o', 'lowerdir=/no/such/directory', f.merged]
  const child = server.start(args, { through: ['bash'], env: { 'BASH_FUNC_kill%%': kill } })
  const outcome = outcomeOf(child)
  await pause(300)
  child.kill('SIGTERM')
  t.match(await outcome, { status: 8, stderr: '' })
  t.ok(fs.existsSync(there), 'waiting processes are ended')
  t.notOk(fs.existsSync(gone))
  pipe.close()
  posing.kill()
  fs.rmSync(directory, { recursive: true })
})

test(t, 'a log that blocks when it is opened', { skip: skipMounts }, async t => {
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

test(
  t,
  'two simultaneous mounts, one of which leads through the other',
  { skip: skipMounts },
  async t => {
    const where = scratch(t, 'resident')
    const server = resident(t, where)
    const [first, outer, inner] = ['first', 'outer', 'inner'].map(name =>
      layersIn(where, name),
    ) as [Layers, Layers, Layers]
    for (const directory of [outer.lower, outer.merged]) fs.mkdirSync(`${directory}/low`)
    t.same(await server.run('mount', '-o', first.options, first.merged), quiet)
    const pid = await server.registered()
    for (let i = 0; i < 16; i++) {
      const all = [
        outcomeOf(server.start(['mount', '-o', `lowerdir=${outer.lower}`, outer.merged])),
      ]
      await pause(i % 8)
      const second = server.start(['mount', '-o', `lowerdir=${outer.merged}/low`, inner.merged])
      all.push(outcomeOf(second))
      const stuck = setTimeout(() => process.kill(pid, 'SIGKILL'), 60_000)
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
  },
)

test(t, 'an answer that arrives before the client waits', { skip: skipMounts }, async t => {
  const where = scratch(t, 'resident')
  const server = resident(t, where)
  const f = layersIn(where, 'first')
  t.same(await server.run('server', 'start', '--linger', '100'), quiet)
  const answer = `${server.directory()}/answer.$$`
  const wait = `() { until [ -e ${answer} ]; do :; done; sleep 0.1; builtin wait "$@"; }`
  const args = ['mount', '--linger', '0', '-o', 'lowerdir=/no/such/directory', f.merged]
  const child = server.start(args, {
    through: ['setpriv', '--groups', '0,1234', 'bash'],
    env: { 'BASH_FUNC_wait%%': wait, ...timeless(where) },
  })
  t.match(await outcomeOf(child), { status: 32 }, 'it waits for no timer')
})

/** A PATH for a client whose long timers never end. */
const timeless = (where: Scratch): { PATH: string } => {
  const directory = `${where.top}/timeless`
  fs.mkdirSync(directory)
  const script = '#!/bin/sh\n[ "$1" != 2 ] || exec /bin/sleep 1000\nexec /bin/sleep "$@"\n'
  fs.writeFileSync(`${directory}/sleep`, script, { mode: 0o755 })
  return { PATH: `${directory}:${process.env['PATH'] ?? ''}` }
}

const ofMount = (f: Layers): string[] => ['mount', '--linger', '0', '-o', f.options, f.merged]

/**
 * Runs a program in a Landlock domain that forbids creating symlinks, without no_new_privs. Status
 * 99: Landlock is not available.
 */
const CONFINE =
  '$a = pack("Q", 1 << 12); $f = syscall(444, $a, 8, 0); $f >= 0 && syscall(446, $f, 0) == 0 or exit 99; exec @ARGV'
const confined = ['perl', '-e', CONFINE]
const noLandlock =
  spawnSync('perl', ['-e', CONFINE, 'true']).status !== 0 && 'needs perl and Landlock'

test(t, 'a client in a Landlock domain', { skip: skipMounts || noLandlock }, async t => {
  const where = scratch(t, 'resident')
  const server = resident(t, where)
  const [first, second] = [layersIn(where, 'first'), layersIn(where, 'second')]
  t.same(await server.run('server', 'start', '--linger', '100'), quiet)
  const child = server.start(ofMount(second), { through: confined })
  t.match(await outcomeOf(child), { status: 32 }, 'as if there were no server')
  t.same(mountedOn(second.merged), [])
  t.same(await server.run(...ofMount(first)), quiet)
  t.strictSame(servedBy(first.merged), [server.pid()])
})

for (const [what, through, skip] of [
  ['is in a Landlock domain', confined, noLandlock],
  ['has fewer capabilities', ['setpriv', '--bounding-set', '-net_raw', '--inh-caps', '-net_raw']],
] as const) {
  test(t, `a server that ${what}`, { skip: skipMounts || (skip ?? false) }, async t => {
    const where = scratch(t, 'resident')
    const server = resident(t, where)
    const f = layersIn(where, 'first')
    const start = server.start(['server', 'start', '--linger', '100'], { through })
    t.same(await outcomeOf(start), quiet)
    const child = server.start(ofMount(f), { env: timeless(where) })
    t.same(
      await outcomeOf(child),
      quiet,
      'a client that the server can not inspect waits for no timer',
    )
    t.not(servedBy(f.merged)[0], server.pid())
    t.equal(servedBy(f.merged).length, 1)
    await waitUntil('the answers are gone', () => fs.readdirSync(server.directory()).length === 1)
  })
}

for (const [what, through] of [
  ['ignored', ['sh', '-c', `trap '' URG; exec "$@"`, 'sh']],
  [
    'blocked',
    ['perl', '-MPOSIX', '-e', 'sigprocmask(SIG_BLOCK, POSIX::SigSet->new(SIGURG)); exec @ARGV'],
  ],
] as const) {
  test(t, `a client of a parent that has SIGURG ${what}`, { skip: skipMounts }, async t => {
    const where = scratch(t, 'resident')
    const server = resident(t, where)
    const f = layersIn(where, 'first')
    t.same(await server.run('server', 'start', '--linger', '100'), quiet)
    const child = server.start(ofMount(f), { through, env: timeless(where) })
    t.same(await outcomeOf(child), quiet)
    t.strictSame(servedBy(f.merged), [server.pid()])
  })
}

const noTime =
  spawnSync('unshare', ['--time', '--fork', '--boottime', '1000', 'true']).status !== 0 &&
  'needs time namespaces'

test(t, 'a client of another time namespace', { skip: skipMounts || noTime }, async t => {
  const where = scratch(t, 'resident')
  const server = resident(t, where)
  const [first, second] = [layersIn(where, 'first'), layersIn(where, 'second')]
  t.same(await server.run('server', 'start', '--linger', '100'), quiet)
  const [directory, pid] = [server.directory(), server.pid()]
  const through = ['unshare', '--time', '--fork', '--boottime', '1000000']
  t.same(await outcomeOf(server.start(ofMount(second), { through })), quiet)
  t.not(servedBy(second.merged)[0], pid)
  t.ok(fs.existsSync(directory), 'the server is not replaced')
  t.same(await server.run(...ofMount(first)), quiet)
  t.strictSame(servedBy(first.merged), [pid])
  t.equal(spawnSync('umount', [second.merged]).status, 0)
  await waitUntil('the end of the other', () => fs.readdirSync(server.top).length === 1)
})

test(t, 'a server whose directory was removed', { skip: skipMounts }, async t => {
  const where = scratch(t, 'resident')
  const server = resident(t, where)
  t.same(await server.run('server', 'start', '--linger', '1000'), quiet)
  const pid = server.pid()
  fs.rmSync(server.directory(), { recursive: true })
  await waitUntil('its end', () => !isAlive(pid))
})

test(t, 'a server that no client can inspect', { skip: skipMounts }, async t => {
  const where = scratch(t, 'resident')
  const server = resident(t, where)
  const [first, second] = [layersIn(where, 'first'), layersIn(where, 'second')]
  // Containers do not have this capability.
  const through = ['setpriv', '--bounding-set', '-sys_ptrace', '--inh-caps', '-sys_ptrace']
  t.same(await outcomeOf(server.start(['server', 'start', '--linger', '100'], { through })), quiet)
  const holder = Number(fs.readFileSync(`${server.directory()}/pid`, 'latin1').split('\n')[3])
  const pid = server.pid()
  t.not(holder, pid)
  t.same(await outcomeOf(server.start(ofMount(first), { through })), quiet)
  fs.chmodSync(first.merged, 0o777)
  const user = ['setpriv', '--reuid', '1234', '--regid', '1234', '--clear-groups']
  fs.chmodSync(where.top, 0o755)
  t.equal(spawnSync(user[0] ?? '', [...user.slice(1), 'touch', `${first.merged}/new`]).status, 0)
  t.equal(fs.statSync(`${first.merged}/new`).uid, 1234, 'it has acted for another user')
  t.same(await outcomeOf(server.start(ofMount(second), { through })), quiet)
  t.strictSame(servedBy(second.merged), [pid])
  process.kill(holder, 'SIGKILL')
  await waitUntil('it leaves', () => server.directory() === '')
  t.ok(isAlive(pid), 'and serves what it has')
  for (const { merged } of [first, second]) t.equal(spawnSync('umount', [merged]).status, 0)
  await waitUntil('its end', () => !isAlive(pid))
})

test(t, 'a file that looks like a marker and does not answer', { skip: skipMounts }, async t => {
  const where = scratch(t, 'resident')
  const server = resident(t, where)
  const [first, second] = [layersIn(where, 'first'), layersIn(where, 'second')]
  const name = 'memfd:tsoverlay:0:1:0 (deleted)'
  fs.writeFileSync(`${second.lower}/${name}`, '{"keys":[]}')
  t.same(await server.run(...ofMount(first)), quiet)
  const env = { TSOVERLAY_SERVER: '' }
  t.same(await outcomeOf(server.start(ofMount(second), { env })), quiet)
  const [silent = 0] = servedBy(second.merged)
  const fd = fs.openSync(`${second.merged}/${name}`, 'r')
  const holder = spawn('sleep', ['1000'], { stdio: [fd, 'ignore', 'ignore'] })
  fs.closeSync(fd)
  // The mount was detached from the tree, so the path begins at its root.
  t.equal(spawnSync('umount', ['-l', second.merged]).status, 0)
  t.equal(fs.readlinkSync(`/proc/${holder.pid}/fd/0`), `/${name}`)
  process.kill(silent, 'SIGSTOP')
  const ls = server.start(['ls', '--json'])
  const stuck = setTimeout(() => process.kill(silent, 'SIGCONT'), 20_000)
  const { status, stdout } = await outcomeOf(ls)
  t.equal(status, 0)
  t.match(stdout, first.merged)
  t.match(fs.readFileSync(`/proc/${silent}/stat`, 'latin1'), /\) T /, 'no process waits for it')
  clearTimeout(stuck)
  process.kill(silent, 'SIGCONT')
  holder.kill()
  await waitUntil('its end', () => !isAlive(silent))
})

test(t, 'clients of a starting server', { skip: skipMounts }, async t => {
  const where = scratch(t, 'resident')
  const server = resident(t, where)
  const all = Array.from({ length: 4 }, (_, i) => layersIn(where, `k${i}`))
  t.same(await server.run('server', 'start', '--linger', '100'), quiet)
  const [directory, pid] = [server.directory(), server.pid()]
  // The starting server has no directory yet, and its parent has locked the file.
  const aside = `${server.top}/.aside`
  fs.renameSync(directory, aside)
  const lock = `${server.top}/.starting-${directory.replace(/^.*\//, '')}`
  fs.writeFileSync(lock, '')
  const holder = spawn('flock', [lock, 'sh', '-c', 'echo; read -r _'], {
    stdio: ['pipe', 'pipe', 'ignore'],
  })
  await once(holder.stdout, 'data')
  // A busy machine may need longer than clients wait.
  const bin = `${where.top}/bin`
  fs.mkdirSync(bin)
  const script =
    '#!/bin/sh\ncase $* in "-s -w 2 9") touch "$0.$PPID"; exec /usr/bin/flock -s 9 ;; esac\nexec /usr/bin/flock "$@"\n'
  fs.writeFileSync(`${bin}/flock`, script, { mode: 0o755 })
  const env = { PATH: `${bin}:${process.env['PATH'] ?? ''}` }
  const outcomes = all.map(f =>
    outcomeOf(server.start(['mount', '-o', f.options, f.merged], { env })),
  )
  await waitUntil('they wait', () => fs.readdirSync(bin).length === 1 + all.length)
  fs.renameSync(aside, directory)
  holder.stdin.end('\n')
  for (const outcome of outcomes) t.same(await outcome, quiet)
  // On a busy machine the server may take longer to answer than a client waits.
  t.ok(all.some(({ merged }) => servedBy(merged)[0] === pid))
  fs.rmSync(lock)
})

test(t, 'the lock file of launcher scripts', { skip: skipMounts }, async t => {
  const where = scratch(t, 'resident')
  const server = resident(t, where)
  const f = layersIn(where, 'first')
  t.same(await server.run('mount', '-o', f.options, f.merged), quiet)
  await server.registered()
  await waitUntil('it is gone', () => fs.readdirSync(server.top).length === 1)
  t.same(await server.run('umount', f.merged), quiet)
  t.same((await server.run('server', 'stop')).status, 0)
  t.match(await server.run('mount', '-o', 'lowerdir=/no/such/directory', f.merged), { status: 32 })
  t.strictSame(fs.readdirSync(server.top), [])
})
