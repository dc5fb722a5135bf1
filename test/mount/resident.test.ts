/**
 * The resident server: how clients pass mounts to it, and the results if the client or the server
 * fails.
 */

import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import * as fs from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'

import t, { type Test } from 'tap'

import { startOf } from '../../src/resident/processes.js'
import { descriptorsOf } from '../../src/sys/descriptors.js'
import { install } from '../helpers/installed.js'
import {
  isAlive,
  isRoot,
  mountedOn,
  outcomeOf,
  PROGRAM,
  scratch,
  serversOf,
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
  type Resident,
} from '../helpers/resident.js'

const quiet = { status: 0, signal: null, stdout: '', stderr: '' }

const ofMount = (f: Layers, ...args: string[]): string[] => [
  'mount',
  ...args,
  '-o',
  f.options,
  f.merged,
]

const which = (f: Layers): string => fs.readFileSync(`${f.merged}/which`, 'utf8')

/** A server with one mount. */
const begin = async (
  t: Test,
  ...args: string[]
): Promise<{ where: Scratch; server: Resident; first: Layers; pid: number }> => {
  const where = scratch(t, 'resident')
  const server = resident(t, where)
  const first = layersIn(where, 'first')
  t.same(await server.run(...ofMount(first, ...args)), quiet, 'the first mount starts a server')
  return { where, server, first, pid: await server.registered() }
}

test(t, 'one process serves several mounts', { skip: skipMounts }, async t => {
  const { where, server, first, pid } = await begin(t, '--linger', '1')
  t.equal(fs.statSync(server.top).mode & 0o7777, 0o700)
  const more = ['second', 'third', 'fourth', 'fifth'].map(name => layersIn(where, name))
  for (const f of more) t.same(await server.run(...ofMount(f)), quiet)
  const all = [first, ...more]
  t.strictSame(
    all.map(f => servedBy(f.merged)),
    all.map(() => [pid]),
  )
  t.strictSame(all.map(which), ['first', 'second', 'third', 'fourth', 'fifth'])
  t.equal(
    fs.readFileSync(`/proc/${pid}/cmdline`, 'latin1').slice(0, 17),
    'tsoverlay server ',
    'the title',
  )
  for (const f of all) fs.writeFileSync(`${f.merged}/new`, f.merged)

  // Each of the mounts is unmounted in another way.
  const [second, third, fourth, fifth] = more as [Layers, Layers, Layers, Layers]
  t.same(await server.run('umount', second.merged), quiet)
  t.notOk(server.mounts().includes(second.merged), 'its layers are already closed')
  t.equal(spawnSync('umount', [third.merged]).status, 0)
  t.equal(spawnSync('fusermount3', ['-u', fourth.merged]).status, 0)
  t.equal(spawnSync('umount', ['-l', fifth.merged]).status, 0)
  await waitUntil('the end of three mounts', () => server.mounts().length === 1)
  t.equal(which(first), 'first', 'the others continue')
  // The same layers are mounted again at once.
  for (const f of more) t.same(await server.run(...ofMount(f)), quiet)
  t.equal(fs.readFileSync(`${second.merged}/new`, 'utf8'), second.merged)
  t.equal(server.pid(), pid)

  for (const f of all) t.same(await server.run('umount', f.merged), quiet)
  t.ok(isAlive(pid), 'it stays for a while')
  await waitUntil('the end of the server', () => !isAlive(pid))
  t.strictSame(fs.readdirSync(server.top), [], 'and leaves nothing')
})

test(t, 'an upper layer in use is reported with its mount', { skip: skipMounts }, async t => {
  const { where, server, first } = await begin(t)
  const second = layersIn(where, 'second')
  t.same(await server.run(...ofMount(second)), quiet)
  const { status, stderr } = await server.run('mount', '-o', first.options, where.top + '/second/l')
  t.equal(status, 32)
  t.match(stderr, `mounted on ${first.merged};`)
  const elsewhere = layersIn(where, 'elsewhere')
  const other = await server.run('mount', '-o', second.options, elsewhere.merged)
  t.match(other, { status: 32, stderr: `mounted on ${second.merged};` })
})

test(t, 'the properties of the client apply to its mount', { skip: skipMounts }, async t => {
  const { where, server, pid } = await begin(t)
  const f = layersIn(where, 'second')
  // Relative paths, a log with a umask, and environment variables.
  const log = `${where.top}/second/log`
  const child = server.start(
    [
      '-c',
      `umask 0277; exec "$0" "$@"`,
      PROGRAM,
      'mount',
      '--log-file',
      'log',
      '--log-level',
      'debug',
      '-o',
      'lowerdir=l,upperdir=u,workdir=w,fsname=mine',
      'm',
    ],
    { program: 'sh', cwd: `${where.top}/second` },
  )
  t.same(await outcomeOf(child), quiet)
  t.strictSame(servedBy(f.merged), [pid])
  t.equal(fs.statSync(log).mode & 0o777, 0o400)
  t.match(fs.readFileSync(log, 'utf8'), new RegExp(`"mountpoint":"${f.merged}".*"mounted"`))
  t.equal(which(f), 'second')
  t.same(await server.run('umount', f.merged), quiet)
  t.match(fs.readFileSync(log, 'utf8'), '"ended"')
  await waitUntil('the log is closed', () => !targetsOf(pid).includes(log))

  fs.symlinkSync(PROGRAM, `${where.top}/fuse-overlayfs`)
  const alias = { program: `${where.top}/fuse-overlayfs` }
  const args = ['-o', `${f.options},plugins=x,no_such_option`, f.merged]
  const told = await outcomeOf(
    server.start(args, { ...alias, env: { FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT: '1' } }),
  )
  t.match(told, { status: 0, stdout: '', stderr: /^unknown argument ignored: no_such_option$/m })
  t.match(told.stderr, 'plugins=x has no effect')
  t.strictSame(servedBy(f.merged), [pid])
  fs.rmSync(`${f.merged}/which`)
  t.strictSame(fs.readdirSync(f.upper), ['.wh.which'])
})

const targetsOf = (pid: number): string[] => descriptorsOf(pid).map(([, target]) => target)

test(t, 'a mount that fails', { skip: skipMounts }, async t => {
  const { where, server, first, pid } = await begin(t)
  const f = layersIn(where, 'second')
  for (const [options, status, line] of [
    ['lowerdir=/no/such/directory', 32, 'lowerdir=/no/such/directory: no such directory'],
    [`lowerdir=${f.lower},index=maybe`, 1, 'index=maybe: not a value'],
    [`lowerdir=${f.lower},uperdir=/x`, 1, 'did you mean upperdir'],
  ] as const)
    t.match(await server.run('mount', '-o', options, f.merged), { status, stderr: line })
  t.match(await server.run('mount', '-o', options(f), `${f.merged}/none`), { status: 32 })
  t.same(mountedOn(f.merged), [])
  t.strictSame(server.mounts(), [first.merged])
  t.equal(server.pid(), pid)
})

const options = (f: Layers): string => f.options

test(t, 'a server that is stopped', { skip: skipMounts }, async t => {
  const { where, server, first, pid } = await begin(t)
  const [second, third] = ['second', 'third'].map(name => layersIn(where, name)) as [Layers, Layers]
  process.kill(pid, 'SIGSTOP')
  t.same(await server.run(...ofMount(second)), quiet, 'another server is started')
  const next = await server.registered(pid)
  t.strictSame(servedBy(second.merged), [next])
  t.same(await server.run(...ofMount(third)), quiet)
  t.strictSame(servedBy(third.merged), [next], 'the new server replaces it')

  process.kill(pid, 'SIGCONT')
  t.equal(which(first), 'first')
  t.same(await server.run('umount', first.merged), quiet)
  await waitUntil('the end of the first server', () => !isAlive(pid))
  t.equal(server.pid(), next)
  t.equal(which(third), 'third')
})

/** Whether a process has the request pipe open as descriptor 3, which the launcher script uses. */
const asks = (pid: number): boolean =>
  descriptorsOf(pid).some(([fd, target]) => fd === '3' && target.startsWith('pipe:'))

/**
 * Whether the process has also found the server running. The next step of the launcher script is to
 * start the process that writes the request.
 */
const writes = (pid: number): boolean =>
  asks(pid) && spawnSync('pgrep', ['-P', String(pid)]).status === 0

test(t, 'a server that is stopped while it mounts', { skip: skipMounts }, async t => {
  for (const wait of [0, 3, 10]) {
    const { where, server, first, pid } = await begin(t)
    const f = layersIn(where, 'second')
    const child = server.start(ofMount(f))
    const outcome = outcomeOf(child)
    await waitUntil('the request', () => asks(child.pid ?? 0) || child.exitCode !== null)
    await pause(wait)
    process.kill(pid, 'SIGSTOP')
    await Promise.race([outcome, pause(4000)])
    process.kill(pid, 'SIGCONT')
    t.same(await outcome, quiet, `${wait} ms`)
    await waitUntil('one mount', () => mountedOn(f.merged).length === 1)
    await pause(100)
    t.equal(mountedOn(f.merged).length, 1, 'no late one')
    t.equal(servedBy(f.merged).length, 1)
    t.equal(which(f), 'second')
    t.equal(which(first), 'first')
    for (const one of [f, first]) t.same(await server.run('umount', one.merged), quiet)
    t.same(await server.run('server', 'stop'), { ...quiet, stderr: '' })
    await waitUntil('the end of the first', () => !isAlive(pid))
  }
})

test(t, 'a server that is dead', { skip: skipMounts }, async t => {
  const { where, server, first, pid } = await begin(t)
  const second = layersIn(where, 'second')
  process.kill(pid, 'SIGKILL')
  await waitUntil('its end', () => !isAlive(pid))
  spawnSync('umount', ['-l', first.merged])
  fs.writeFileSync(`${server.directory()}/answer.1`, '0\n')
  t.ok(fs.existsSync(`${server.directory()}/pid`), 'its directory remains')
  t.same(await server.run(...ofMount(second)), quiet)
  t.strictSame(servedBy(second.merged), [await server.registered(pid)])
  t.strictSame(fs.readdirSync(server.directory()), ['pid'], 'a new server replaces it')
})

test(t, 'a pipe without a reader, or a full pipe', { skip: skipMounts }, async t => {
  const where = scratch(t, 'resident')
  const server = resident(t, where)
  const f = layersIn(where, 'first')
  t.same(await server.run('server', 'start', '--linger', '60'), quiet)
  const { top } = server
  const directory = server.directory()
  const dead = server.pid()
  process.kill(dead, 'SIGKILL')
  await waitUntil('its end', () => !isAlive(dead))
  const other = spawn('sleep', ['100'], { stdio: 'ignore' })
  const { pid = 0 } = other
  const start = startOf(pid)
  for (const [how, since, least] of [
    // The process id belongs to another process now.
    ['not running', '1', 0],
    ['full', start, 1900],
    ['not read', start, 9500],
  ] as const) {
    const pipe = impersonateServer(directory, pid, since)
    if (how === 'full') {
      try {
        for (;;) fs.writeSync(pipe.fd, `${process.pid}\n`.padEnd(4096, ' '))
      } catch {
        // the pipe is full
      }
    }
    const begun = Date.now()
    t.same(await server.run(...ofMount(f, '--linger', '0')), quiet, how)
    t.ok(Date.now() - begun >= least)
    pipe.close()
    t.equal(mountedOn(f.merged).length, 1)
    t.same(await server.run('umount', f.merged), quiet)
    await waitUntil('the end of its server', () => !fs.existsSync(directory))
  }
  t.strictSame(fs.readdirSync(top), [])
  other.kill()
  await once(other, 'exit')
})

test(t, 'an interrupted client has no mount', { skip: skipMounts }, async t => {
  const { where, server, first, pid } = await begin(t)
  const f = layersIn(where, 'second')
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGKILL'] as const) {
    const child = server.start(ofMount(f))
    const outcome = outcomeOf(child)
    await waitUntil('the request', () => writes(child.pid ?? 0) || child.exitCode !== null)
    process.kill(pid, 'SIGSTOP')
    await pause(300)
    child.kill(signal)
    const { status, stderr } = await outcome
    t.equal(stderr, '')
    process.kill(pid, 'SIGCONT')
    // The request may already have been answered.
    t.ok(status === 8 || status === 0 || (signal === 'SIGKILL' && status === null), `${status}`)
    t.match(await server.run('mount', '-o', 'lowerdir=/no/such/directory', f.merged), {
      status: 32,
    })
    if (status === 0) t.same(await server.run('umount', f.merged), quiet)
    await waitUntil('no mount', () => server.mounts().length === 1)
    t.equal(mountedOn(f.merged).length, 0)
    // A late mount that is still being unmounted would make the next client wait for the stopped
    // server.
    await waitUntil('the answers are gone', () => fs.readdirSync(server.directory()).length === 1)
  }
  t.strictSame(server.mounts(), [first.merged])
  t.equal(server.pid(), pid)
})

test(t, 'clients that are killed while they wait', { skip: skipMounts }, async t => {
  const { where, server, first, pid } = await begin(t)
  const all = Array.from({ length: 24 }, (_, i) => layersIn(where, `k${i}`))
  await Promise.all(
    all.map(async (f, i) => {
      const child = server.start(ofMount(f))
      const outcome = outcomeOf(child)
      await pause(i * 3)
      child.kill('SIGKILL')
      await outcome
    }),
  )
  // The last request is answered last.
  const last = layersIn(where, 'last')
  t.same(await server.run(...ofMount(last)), quiet)
  await waitUntil('the answers are gone', () => fs.readdirSync(server.directory()).length === 1)
  // The mount was answered before the client was killed, or the server is still unmounting it.
  // Either state may be visible for a moment.
  const mounted = () => all.filter(f => mountedOn(f.merged).length > 0)
  t.comment(`${mounted().length} were mounted before they were killed`)
  await waitUntil('the end of those', () => {
    for (const f of mounted()) spawnSync('umount', [f.merged])
    return mounted().length === 0 && server.mounts().length === 2
  })
  t.equal(which(first), 'first')
  t.equal(server.pid(), pid)
})

test(t, 'many clients at once', { skip: skipMounts }, async t => {
  const { where, server, first, pid } = await begin(t)
  const all = Array.from({ length: 50 }, (_, i) => layersIn(where, `n${i}`))
  let others = 0
  await Promise.all(
    all.map(async (f, i) => {
      for (let round = 0; round < 4; round++) {
        t.same(await server.run(...ofMount(f)), quiet)
        t.equal(which(f), `n${i}`)
        const other = servedBy(f.merged).includes(pid) ? 0 : 1
        // A later request may arrive before the layers are closed.
        if (round === 0) t.equal(other, 0, 'the server accepts it')
        others += other
        fs.writeFileSync(`${f.merged}/${round}`, '')
        if (spawnSync('umount', [f.merged]).status !== 0) t.fail('busy')
      }
      t.strictSame(fs.readdirSync(f.upper), ['0', '1', '2', '3'])
    }),
  )
  t.comment(`${others} of 200 had another server`)
  await waitUntil('the end of all', () => server.mounts().length === 1)
  await waitUntil('the answers are gone', () => fs.readdirSync(server.directory()).length === 1)
  t.equal(which(first), 'first')
  t.equal(server.pid(), pid)
})

test(t, 'a server that gets a signal to end', { skip: skipMounts }, async t => {
  const { where, server, first, pid } = await begin(t)
  const [second, third] = ['second', 'third'].map(name => layersIn(where, name)) as [Layers, Layers]
  for (const f of [second, third]) t.same(await server.run(...ofMount(f)), quiet)
  const fd = fs.openSync(`${third.merged}/which`, 'r')
  process.kill(pid, 'SIGTERM')
  await waitUntil('all are unmounted', () =>
    [first, second, third].every(f => mountedOn(f.merged).length === 0),
  )
  t.equal(fs.readFileSync(fd, 'utf8'), 'third', 'an open file is served until it is closed')
  t.same(await server.run(...ofMount(second, '--linger', '0')), quiet)
  t.not(servedBy(second.merged)[0], pid, 'it takes no more')
  fs.closeSync(fd)
  await waitUntil('its end', () => !isAlive(pid))
  t.equal(which(second), 'second')
})

test(t, 'server start, stop, status', { skip: skipMounts }, async t => {
  const { where, server, first, pid } = await begin(t)
  t.match(await server.run('server', 'status'), {
    status: 0,
    stdout: `process ${pid}, 1 mount, ends without mounts\n${first.merged}\n`,
  })
  t.same(await server.run('server', 'start'), quiet, 'replaces a server that does not stay')
  const stays = await server.registered(pid)
  t.match(await server.run('server', 'start'), { status: 32, stderr: `process ${stays}` })
  t.same(await server.run('umount', first.merged), quiet)
  await waitUntil('the end of the other', () => !isAlive(pid))

  const second = layersIn(where, 'second')
  t.same(await server.run(...ofMount(second)), quiet)
  t.strictSame(servedBy(second.merged), [stays])
  const { stdout } = await server.run('server', 'status', '--json')
  t.match(JSON.parse(stdout), {
    running: true,
    pid: stays,
    stays: true,
    mounts: [{ mountpoint: second.merged, lower: [second.lower], writable: true }],
  })
  t.same(await server.run('server', 'stop'), quiet)
  t.notOk(isAlive(stays))
  t.same(mountedOn(second.merged), [])
  t.match(await server.run('server', 'status'), { status: 3, stdout: 'no server runs\n' })
  t.same(JSON.parse((await server.run('server', 'status', '--json')).stdout), {
    running: false,
    mounts: [],
  })
  t.match(await server.run('server', 'stop'), { status: 0 })
})

test(t, 'another build, and another copy of this one', { skip: skipMounts }, async t => {
  const { where, server, pid } = await begin(t)
  const copy = install(where.top)
  const f = layersIn(where, 'second')
  const program = `${copy}/dist/cli/tsoverlay`
  const mount = () => outcomeOf(server.start(ofMount(f, '--linger', '0'), { program }))
  t.same(await mount(), quiet)
  t.not(servedBy(f.merged)[0], pid, 'the same build, installed elsewhere, is another program')
  t.same(await server.run('umount', f.merged), quiet)
  for (const file of ['cli/tsoverlay', 'cli/program.cjs', 'cli/server.cjs', 'cli/main.cjs']) {
    const path = `${copy}/dist/${file}`
    const build = /^build=(\w+)$/m.exec(fs.readFileSync(PROGRAM, 'utf8'))?.[1] ?? ''
    fs.writeFileSync(path, fs.readFileSync(path, 'utf8').replaceAll(build, 'f'.repeat(16)))
  }
  t.same(await mount(), quiet)
  t.not(servedBy(f.merged)[0], pid)
  await waitUntil('its directory', () => fs.readdirSync(server.top).length === 2)
  t.same(await server.run('umount', f.merged), quiet)
  await waitUntil('its end', () => fs.readdirSync(server.top).length === 1)
  t.equal(server.pid(), pid)
})

test(t, 'a server in namespaces without other processes', { skip: skipMounts }, async t => {
  const where = scratch(t, 'resident')
  const server = resident(t, where)
  const f = layersIn(where, 'first')
  const end = `${where.top}/end`
  const script = `"$0" "$@" && while [ ! -e ${end} ]; do sleep 0.05; done; umount ${f.merged}; sleep 2.5`
  const client = server.start(ofMount(f), { through: ['unshare', '-m', 'sh', '-c', script] })
  const outcome = outcomeOf(client)
  const pid = await server.registered()
  fs.writeFileSync(end, '')
  await waitUntil('the end of the mount', () => server.mounts().length === 0)
  await pause(2000)
  t.ok(isAlive(pid), 'it stays for possible clients')
  t.same(await outcome, quiet)
  await waitUntil('its end', () => !isAlive(pid))
  t.strictSame(fs.readdirSync(server.top), [])
})

test(t, 'without a name there is no resident server', { skip: skipMounts }, async t => {
  const { where, server, pid } = await begin(t)
  const f = layersIn(where, 'second')
  for (const name of ['', '../run/x', '.x']) {
    const child = server.start(ofMount(f), { env: { TSOVERLAY_SERVER: name } })
    t.same(await outcomeOf(child), quiet)
    const [own] = serversOf(f.merged)
    t.not(own, undefined)
    t.same(await server.run('umount', f.merged), quiet)
    t.notOk(isAlive(own ?? 0), 'it ends with its mount')
  }
  t.equal(server.pid(), pid)
  t.ok(isRoot)
})
