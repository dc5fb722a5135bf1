/** Which clients the resident server accepts, and which processes it ignores. */

import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import * as fs from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'

import t, { type Test } from 'tap'

import { findFusermount } from '../../src/fuse/mount/fusermount.js'
import { install } from '../helpers/installed.js'
import {
  isAlive,
  DETACH_COPIES,
  mountedOn,
  outcomeOf,
  PROGRAM,
  scratch,
  skipMounts,
  test,
  waitUntil,
  type Scratch,
} from '../helpers/mount.js'
import {
  layersIn,
  pipeIn,
  impersonateServer,
  resident,
  servedBy,
  type Layers,
  type Resident,
} from '../helpers/resident.js'

const quiet = { status: 0, signal: null, stdout: '', stderr: '' }

const ofMount = (f: Layers): string[] => ['mount', '--linger', '0', '-o', f.options, f.merged]

const begin = async (t: Test): Promise<{ where: Scratch; server: Resident; pid: number }> => {
  const where = scratch(t, 'resident')
  const server = resident(t, where)
  t.same(await server.run('server', 'start', '--linger', '100'), quiet)
  return { where, server, pid: server.pid() }
}

const has = (program: string): boolean => spawnSync('which', [program]).status === 0

/** Differences that make the server refuse a client. */
const unlike: Record<string, readonly string[]> = {
  'fewer capabilities': ['setpriv', '--bounding-set', '-net_raw', '--inh-caps', '-net_raw'],
  'no new privileges': ['setpriv', '--no-new-privs'],
  'another group': ['setpriv', '--regid', '1234', '--keep-groups'],
  'more groups': ['setpriv', '--groups', '0,1234'],
  'a limit of file sizes': ['prlimit', '--fsize=1000000'],
  'a network of its own': ['unshare', '--net'],
  'a shell with options': ['sh', '-f'],
  'no shell': ['env'],
}

/** Differences that are ignored; podman makes them for its children. */
const like = [
  ['nothing'],
  ['fewer processes', 'prlimit', '--nproc=30000'],
  ['fewer descriptors', 'prlimit', '--nofile=2000'],
] as const

const ofUser = (f: Layers): string[] => ['mount', '-o', f.options, f.merged]

test(
  t,
  'a client with another identity gets a server of its own',
  { skip: skipMounts },
  async t => {
    const { where, server, pid } = await begin(t)
    for (const [what, ...through] of like) {
      const f = layersIn(where, what.replaceAll(' ', '-'))
      t.same(await outcomeOf(server.start(ofMount(f), { through })), quiet, what)
      t.strictSame(servedBy(f.merged), [pid], what)
    }
    for (const [what, through] of Object.entries(unlike)) {
      if (!has(through[0] ?? '')) {
        t.comment(`left out, there is no ${through[0]}: ${what}`)
        continue
      }
      const f = layersIn(where, what.replaceAll(' ', '-'))
      t.same(await outcomeOf(server.start(ofMount(f), { through })), quiet, what)
      const served = servedBy(f.merged)
      t.equal(served.length, 1)
      if (what === 'no shell') t.equal(served[0], pid, 'env(1) has already ended')
      else t.not(served[0], pid, what)
      t.equal(spawnSync('umount', [f.merged]).status, 0)
    }
    t.equal(server.pid(), pid)
  },
)

test(t, 'a client in a root directory of its own', { skip: skipMounts }, async t => {
  const { where, server, pid } = await begin(t)
  const f = layersIn(where, 'second')
  const root = `${where.top}/root`
  fs.mkdirSync(root)
  where.before(() => void spawnSync('umount', ['-R', '-l', root]))
  // The same files, through another mount.
  for (const path of ['/', '/proc', '/dev', '/run'])
    t.equal(spawnSync('mount', ['--bind', path, `${root}${path}`]).status, 0)
  const child = server.start(ofMount(f), { through: ['chroot', root] })
  t.same(await outcomeOf(child), quiet)
  t.not(servedBy(f.merged)[0], pid)
  t.same(mountedOn(`${root}${f.merged}`).length, 1, 'it is mounted there')
  t.same(mountedOn(f.merged).length, 0, 'and not here')
  t.equal(spawnSync('umount', [`${root}${f.merged}`]).status, 0)
})

test(t, 'another cgroup', { skip: skipMounts }, async t => {
  const top = '/sys/fs/cgroup/pids'
  const group = `${fs.existsSync(`${top}/cgroup.procs`) ? top : '/sys/fs/cgroup'}/tsoverlay-${process.pid}`
  try {
    fs.mkdirSync(group)
  } catch (error) {
    return t.comment(`left out: no cgroup can be made: ${String(error)}`)
  }
  const where = scratch(t, 'resident')
  where.before(() => waitUntil('the cgroup', () => spawnSync('rmdir', [group]).status === 0))
  const server = resident(t, where)
  const first = layersIn(where, 'first')
  t.same(await server.run('mount', '-o', first.options, first.merged), quiet)
  const pid = await server.registered()
  const inside = { through: ['sh', '-c', `echo $$ >${group}/cgroup.procs; exec "$0" "$@"`] }
  const second = layersIn(where, 'second')
  t.same(await outcomeOf(server.start(ofMount(second), inside)), quiet)
  t.not(servedBy(second.merged)[0], pid, 'it would end with the client')
  t.equal(spawnSync('umount', [second.merged]).status, 0)

  t.same(await server.run('server', 'start', '--linger', '100'), quiet)
  const stays = await server.registered(pid)
  t.same(await outcomeOf(server.start(ofMount(second), inside)), quiet)
  t.strictSame(servedBy(second.merged), [stays], 'a server started to stay accepts all clients')
})

test(t, "a process id that is not the client's", { skip: skipMounts }, async t => {
  const { where, server, pid } = await begin(t)
  const f = layersIn(where, 'second')
  const control = pipeIn(server.directory())
  const args = ofMount(f)
  // The process ids of a process that has not asked, a process that asks but does not run the
  // launcher script, and no process; and text that is no number.
  const waiting = spawn('sleep', ['100'], { stdio: 'ignore' })
  const posing = spawn(
    'bash',
    [
      '-c',
      `exec 3<>${control}; trap "exit 7" URG; printf '\\n%s\\n' $$ >&3; for i in {1..100}; do sleep 0.1; done`,
      PROGRAM,
      ...args,
    ],
    { stdio: 'ignore' },
  )
  const ended = new Promise(resolve => posing.once('exit', resolve))
  for (const line of [waiting.pid, 1, 4_194_304, -1, 0, 'x', '', '9'.repeat(100)])
    fs.appendFileSync(control, `${line}\n`)
  fs.appendFileSync(control, 'a line that does not end'.repeat(100))
  t.equal(await ended, 7, 'the answer is to start a server of its own')
  await pause(200)
  t.same(mountedOn(f.merged), [])
  t.ok(isAlive(waiting.pid ?? 0), 'the other process gets no signal')
  waiting.kill()
  fs.appendFileSync(control, '\n')
  t.same(await server.run(...args), quiet)
  t.strictSame(servedBy(f.merged), [pid])
  await waitUntil('the answers are gone', () => fs.readdirSync(server.directory()).length === 1)
})

test(t, 'one request, one mount', { skip: skipMounts }, async t => {
  const { where, server, pid } = await begin(t)
  const f = layersIn(where, 'second')
  const control = pipeIn(server.directory())
  // The process ids of all clients are written repeatedly.
  const child = server.start(['mount', '-o', `lowerdir=${f.lower}`, f.merged])
  const outcome = outcomeOf(child)
  for (let i = 0; i < 50; i++) {
    fs.appendFileSync(control, `${child.pid}\n`)
    await pause(1)
  }
  t.same(await outcome, quiet)
  await pause(100)
  t.equal(mountedOn(f.merged).length, 1)
  t.strictSame(servedBy(f.merged), [pid])
})

/** A copy of the program that another user can run, and a home directory of that user. */
const forUser = (where: Scratch, uid: number) => {
  fs.chmodSync(where.top, 0o755)
  const program = `${install(where.top)}/dist/cli/tsoverlay`
  const home = `${where.top}/user`
  fs.mkdirSync(home, { mode: 0o700 })
  fs.chownSync(home, uid, uid)
  return {
    program,
    home,
    through: ['setpriv', '--reuid', `${uid}`, '--regid', `${uid}`, '--clear-groups'],
  }
}

/**
 * A FIFO for requests that no process reads, in a user's directory. Returns a function that reads
 * the data written to it.
 */
const trap = (top: string, directory: string, uid: number) => {
  const path = `${top}/${directory}`
  const { fd } = impersonateServer(path, process.pid)
  spawnSync('chown', ['-R', `${uid}:${uid}`, top])
  return (): string => {
    try {
      return fs.readFileSync(fd, 'latin1')
    } catch {
      return ''
    } finally {
      fs.closeSync(fd)
    }
  }
}

const keyOf = (program: string): string => {
  const build = /^build=(\w+)$/m.exec(fs.readFileSync(program, 'utf8'))?.[1] ?? ''
  const numbers = ['mnt', 'pid', 'net', 'time', 'user'].map(kind =>
    fs.readlinkSync(`/proc/self/ns/${kind}`).replaceAll(/\D/g, ''),
  )
  return [build, ...numbers].join('-')
}

test(t, 'another user', { skip: skipMounts }, async t => {
  const { where, server, pid } = await begin(t)
  const { program, home, through } = forUser(where, 1234)
  const f = layersIn(where, 'second')
  const control = pipeIn(server.directory())
  t.not(
    spawnSync(through[0] ?? '', [...through.slice(1), 'sh', '-c', `echo 1 >${control}`]).status,
    0,
  )
  for (const XDG_RUNTIME_DIR of [home, '/run', ''])
    await outcomeOf(server.start(ofMount(f), { through, program, env: { XDG_RUNTIME_DIR } }))
  t.same(servedBy(f.merged), [], 'nothing is mounted where the user may not mount')
  t.strictSame(server.mounts(), [])
  t.equal(server.pid(), pid)
})

test(t, "a runtime directory that is not the client's own", { skip: skipMounts }, async t => {
  const where = scratch(t, 'resident')
  const server = resident(t, where)
  const f = layersIn(where, 'second')
  const { program, home, through } = forUser(where, 1234)
  const args = ['mount', '--linger', '0', '-o', 'lowerdir=/no/such/directory', f.merged]
  const key = keyOf(program)

  const heard = trap(`${home}/${server.name}`, key, 1234)
  const root = server.start(args, { program, env: { XDG_RUNTIME_DIR: home } })
  t.match(await outcomeOf(root), { status: 32 }, 'sudo -E keeps the variable')
  t.equal(heard(), '', 'root asks no server there')
  t.notOk(fs.existsSync(server.top))
  fs.rmSync(`${home}/${server.name}`, { recursive: true })

  // A symlink of the user to a directory of the user; then one in a parent directory; then a
  // directory of another user.
  fs.mkdirSync(`${home}/real`)
  const links = {
    link: 'real',
    name: `real/${server.name}`,
    directory: `real/${server.name}/${key}`,
  }
  for (const [what, from] of Object.entries({
    link: `${home}/link`,
    name: `${home}/${server.name}`,
    directory: `${home}/own/${server.name}/${key}`,
  })) {
    const told = trap(`${home}/real/${server.name}`, key, 1234)
    fs.mkdirSync(from.replace(/\/[^/]*$/, ''), { recursive: true })
    fs.symlinkSync(`${home}/${links[what as keyof typeof links]}`, from)
    spawnSync('chown', ['-R', '1234:1234', home])
    const XDG_RUNTIME_DIR = { link: `${home}/link`, name: home, directory: `${home}/own` }[what]
    const child = server.start(args, { program, through, env: { XDG_RUNTIME_DIR } })
    t.not((await outcomeOf(child)).status, 0)
    t.equal(told(), '', what)
    fs.rmSync(from)
    fs.rmSync(`${home}/real/${server.name}`, { recursive: true })
  }
  const others = trap(`${home}/${server.name}`, key, 4321)
  const child = server.start(args, { program, through, env: { XDG_RUNTIME_DIR: home } })
  t.not((await outcomeOf(child)).status, 0)
  t.equal(others(), '')
})

const noFusermount = findFusermount() === undefined && 'needs fusermount3'

/** fusermount3 looks its user's name up. */
const NOBODY = 65534

/**
 * A mount namespace in which every user may open /dev/fuse. Returns a command prefix that runs a
 * program in it.
 */
const openNamespace = async (where: Scratch): Promise<string[]> => {
  const device = `${where.top}/fuse`
  const script = `mknod -m 666 ${device} c 10 229 && mount --bind ${device} /dev/fuse && ${DETACH_COPIES}
    echo ready; read -r _`
  const holder = spawn('unshare', ['--mount', 'sh', '-c', script], {
    stdio: ['pipe', 'pipe', 'ignore'],
  })
  where.before(() => void holder.stdin.end())
  await once(holder.stdout, 'data')
  return ['nsenter', '-t', String(holder.pid), '-m']
}

test(t, 'a PATH with another fusermount3', { skip: skipMounts || noFusermount }, async t => {
  const where = scratch(t, 'resident')
  const server = resident(t, where)
  const { program, home, through } = forUser(where, NOBODY)
  const inside = [...(await openNamespace(where)), ...through]
  const all = ['first', 'second', 'third'].map(name => layersIn(where, name))
  const [first, second, third] = all as [Layers, Layers, Layers]
  for (const f of all)
    for (const directory of [f.lower, f.upper, f.work, f.merged])
      fs.chownSync(directory, NOBODY, NOBODY)
  const run = (args: string[], before = '') =>
    outcomeOf(
      server.start(args, {
        program,
        through: inside,
        env: { XDG_RUNTIME_DIR: home, PATH: `${before}${process.env['PATH'] ?? ''}` },
      }),
    )
  where.before(async () => void (await run(['server', 'stop'])))
  t.same(await run(ofUser(first)), quiet)
  const pidFile = (): string | undefined => {
    const [directory] = fs.existsSync(`${home}/${server.name}`)
      ? fs.readdirSync(`${home}/${server.name}`).filter(name => !name.startsWith('.'))
      : []
    return directory === undefined ? undefined : `${home}/${server.name}/${directory}/pid`
  }
  await waitUntil('a registered server', () => fs.existsSync(pidFile() ?? ''))
  const pid = Number(fs.readFileSync(pidFile() ?? '', 'latin1').split('\n')[0])
  const [bin, empty, log] = [`${where.top}/bin`, `${where.top}/empty`, `${home}/log`]
  for (const directory of [bin, empty]) fs.mkdirSync(directory)
  const script = `#!/bin/sh\necho $PPID >>${log}\nexit 1\n`
  fs.writeFileSync(`${bin}/fusermount3`, script, { mode: 0o755 })
  t.not((await run(ofUser(second), `${bin}:`)).status, 0)
  const parents = fs.readFileSync(log, 'latin1').trim().split('\n')
  t.notOk(parents.includes(String(pid)), 'the server runs no program of a client')
  t.same(await run(ofUser(third), `${empty}:`), quiet)
  t.strictSame(
    servedBy(third.merged),
    [pid],
    'a client whose PATH leads to the same program is accepted',
  )
  t.same((await run(['server', 'stop'])).status, 0)
})
