/**
 * The life of a mount as its user sees it, with the command line and the library, on real mounts:
 * from the start to the last leftover.
 */

import { spawn, spawnSync } from 'node:child_process'
import * as fs from 'node:fs'
import type { Readable } from 'node:stream'
import { fileURLToPath } from 'node:url'

import t, { type Test } from 'tap'

import { install } from '../helpers/installed.js'
import {
  CLI,
  directories,
  isAlive,
  mountedOn,
  mountTable,
  outcomeOf,
  PROGRAM,
  scratch,
  serve,
  serversOf,
  skipMounts,
  spawnNode,
  spawnPlain,
  test,
  tsoverlay,
  waitUntil,
  type Directories,
  type Served,
} from '../helpers/mount.js'

const isWritable = (path: string): boolean => {
  try {
    fs.accessSync(path, fs.constants.W_OK)
    return true
  } catch {
    return false
  }
}

/** Every name below a directory with its type, so that added files are detected. */
const listing = (top: string): string[] =>
  fs
    .readdirSync(top, { recursive: true, withFileTypes: true })
    .map(entry => `${entry.parentPath}/${entry.name} ${entry.isDirectory() ? 'd' : 'f'}`)
    .toSorted()

const bash = (script: string, ...args: string[]) =>
  spawnSync('bash', ['-ec', `unset NODE_OPTIONS; ${script}`, 'bash', ...args], { encoding: 'utf8' })

/** Mounts in the background; the mount is unmounted at the end of the test. */
const mountInBackground = async (t: Test, f: Directories, ...args: string[]): Promise<number> => {
  f.before(async () => {
    if (mountedOn(f.merged).length === 0) return
    const { status, stderr } = await tsoverlay('umount', f.merged)
    if (status !== 0) t.fail(`at the end: ${stderr}`)
    else t.same(serversOf(f.merged), [], 'no server is left')
  })
  const outcome = await tsoverlay('mount', '-o', f.options, ...args, f.merged)
  t.same(
    outcome,
    { status: 0, signal: null, stdout: '', stderr: '' },
    'mount returns without a word',
  )
  const [pid] = serversOf(f.merged)
  if (pid === undefined) throw new Error('there is no server')
  return pid
}

test(t, 'help and version', { skip: !fs.existsSync(CLI) && 'not built' }, async t => {
  const version = await tsoverlay('--version')
  t.match(version, { status: 0, stdout: /^tsoverlay \d+\.\d+\.\d+\n$/, stderr: '' })
  for (const args of [['--help'], ['mount', '--help'], ['umount', '--help'], ['mount', '-h']]) {
    const { status, stdout } = await tsoverlay(...args)
    t.equal(status, 0, args.join(' '))
    t.match(stdout, /Usage: tsoverlay/)
    t.match(stdout, /Examples:\n {2}tsoverlay /)
  }
  for (const args of [
    [],
    ['mnt'],
    ['mount'],
    ['mount', '--no-such-flag', '/mnt'],
    ['mount', '--log-level', 'loud', '-o', 'lowerdir=/', '/mnt'],
    ['mount', '--transport', 'pigeon', '-o', 'lowerdir=/', '/mnt'],
    ['umount'],
    ['umount', '--all', '/b'],
  ]) {
    const { status, stdout, stderr } = await tsoverlay(...args)
    t.equal(status, 1, `wrong usage: ${args.join(' ')}`)
    t.equal(stdout, '')
    t.not(stderr, '')
  }
})

test(t, 'in the background', { skip: skipMounts }, async t => {
  const f = directories(t)
  fs.writeFileSync(`${f.lower}/from-lower`, 'lower\n')
  const pid = await mountInBackground(t, f)

  t.equal(fs.readFileSync(`${f.merged}/from-lower`, 'utf8'), 'lower\n', 'live at once')
  fs.writeFileSync(`${f.merged}/new`, 'new\n')
  t.equal(fs.readFileSync(`${f.upper}/new`, 'utf8'), 'new\n')

  t.equal(fs.readlinkSync(`/proc/${pid}/cwd`), '/', 'keeps no directory busy')
  const stat = fs
    .readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /, '')
    .split(' ')
  t.equal(Number(stat[3]), pid, 'was detached by setsid(2)')
  t.equal(stat[4], '0', 'has no terminal')
  for (const fd of [0, 1, 2]) t.equal(fs.readlinkSync(`/proc/${pid}/fd/${fd}`), '/dev/null')

  const line = mountTable(f.merged).find(one => one.split(' ')[2] === f.merged)
  t.match(line, / - fuse\.tsoverlay tsoverlay /)

  t.match(await tsoverlay('umount', f.merged), { status: 0, stdout: '', stderr: '' })
  t.same(mountedOn(f.merged), [])
  t.notOk(isAlive(pid), 'umount returns when the server has ended')
  t.same(fs.readdirSync(f.upper), ['new'])
})

test(t, 'in the foreground', { skip: skipMounts }, async t => {
  const f = directories(t)
  const server = await serve(t, f)
  fs.writeFileSync(`${f.merged}/x`, 'x')
  await server.unmount()
  t.match(await server.ended, { status: 0, signal: null, stdout: '', stderr: '' })
  const lines = server
    .log()
    .trimEnd()
    .split('\n')
    .map(text => JSON.parse(text) as { msg: string })
  const mounted = lines.find(({ msg }) => msg === 'mounted')
  t.match(mounted, { mountpoint: f.merged, level: 30 }, 'the log is JSON lines')
  t.match(lines.at(-1), { msg: 'ended' })
})

/** Whether a process is a background server that has not set its title yet. */
const isServer = (pid: string): boolean => {
  try {
    return fs.readFileSync(`/proc/${pid}/cmdline`, 'latin1').includes('server.cjs')
  } catch {
    return false
  }
}

test(t, 'signals', { skip: skipMounts }, async t => {
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) {
    await test(t, signal, async t => {
      const f = directories(t)
      const server = await serve(t, f)
      fs.writeFileSync(`${f.merged}/x`, 'x')
      server.process.kill(signal)
      t.match(await server.ended, { status: 0, signal: null })
      t.same(mountedOn(f.merged), [], 'unmounted')
      t.equal(fs.readFileSync(`${f.upper}/x`, 'utf8'), 'x')
    })
  }

  await test(t, 'in the background', async t => {
    const f = directories(t)
    const pid = await mountInBackground(t, f)
    process.kill(pid, 'SIGTERM')
    await waitUntil('the end of the server', () => !isAlive(pid))
    t.same(mountedOn(f.merged), [])
  })

  await test(t, 'while it is busy', async t => {
    const f = directories(t)
    const server = await serve(t, f)
    const fd = fs.openSync(`${f.merged}/open`, 'w+')
    fs.writeSync(fd, 'before')
    server.process.kill('SIGTERM')
    await waitUntil('out of the tree', () => mountedOn(f.merged).length === 0)
    fs.writeSync(fd, ' and after')
    fs.fsyncSync(fd)
    t.ok(isAlive(server.pid), 'the open file is still served')
    fs.closeSync(fd)
    t.match(await server.ended, { status: 0 })
    t.equal(fs.readFileSync(`${f.upper}/open`, 'utf8'), 'before and after')
  })

  await test(t, 'two signals while it is busy', async t => {
    const f = directories(t)
    const server = await serve(t, f)
    const fd = fs.openSync(`${f.merged}/open`, 'w+')
    server.process.kill('SIGTERM')
    await waitUntil('out of the tree', () => mountedOn(f.merged).length === 0)
    server.process.kill('SIGTERM')
    await server.ended
    t.throws(() => fs.fsyncSync(fd), { code: 'ENOTCONN' }, 'an open descriptor gets the error')
    try {
      fs.closeSync(fd)
    } catch {
      // ENOTCONN again; the descriptor is closed nevertheless
    }
  })

  /** Starts a background mount, with Node and with the launcher script. */
  const startMount = {
    'main.cjs': (f: Directories) => spawnNode([CLI, 'mount', '-o', f.options, f.merged]),
    tsoverlay: (f: Directories) => spawnPlain(PROGRAM, ['mount', '-o', f.options, f.merged]),
  }

  for (const [program, start] of Object.entries(startMount))
    await test(t, `while the mount is being made: ${program}`, async t => {
      for (const delay of [20, 80, 120, 160, 200, 240]) {
        const f = directories(t)
        const child = start(f)
        const ended = outcomeOf(child)
        await new Promise(done => setTimeout(done, delay))
        child.kill('SIGTERM')
        const { status, signal } = await ended
        if (status === 0) {
          t.same(mountedOn(f.merged), ['fuse.tsoverlay'], 'it was live before')
          t.match(await tsoverlay('umount', f.merged), { status: 0 })
        } else {
          t.ok(status === 8 || signal === 'SIGTERM', `status ${status}, signal ${signal}`)
          t.same(mountedOn(f.merged), [], 'there is no mount')
          t.same(serversOf(f.merged), [], 'and no server')
        }
      }
    })

  for (const [program, start] of Object.entries(startMount))
    await test(t, `the parent is killed: ${program}`, async t => {
      for (const delay of [40, 80, 120]) {
        const f = directories(t)
        const child = start(f)
        // this resolves after the server has closed standard error, too
        const ended = outcomeOf(child)
        let server = ''
        const children = `/proc/${child.pid}/task/${child.pid}/children`
        // The shell has another child process first: readlink(1).
        await waitUntil('the server', () => {
          server = fs.readFileSync(children, 'latin1').trim()
          return isServer(server)
        })
        await new Promise(done => setTimeout(done, delay))
        // A stopped server can't report a live mount while its parent is killed.
        process.kill(Number(server), 'SIGSTOP')
        const state = (): string => fs.readFileSync(`/proc/${server}/stat`, 'latin1')
        await waitUntil('it has stopped', () => / T /.test(state().replace(/^.*\)/, '')))
        const early = isServer(server) // the server sets its title before it reports the mount
        if (early) {
          child.kill('SIGKILL')
          await waitUntil('the end of its launcher', () => child.signalCode !== null)
        }
        process.kill(Number(server), 'SIGCONT')
        const { status, stderr } = await ended
        t.equal(stderr, '', 'it is not an error')
        if (!early) {
          t.equal(status, 0)
          t.match(await tsoverlay('umount', f.merged), { status: 0 }, 'it was live before')
          continue
        }
        await waitUntil('the end of the server', () => !isAlive(Number(server)))
        t.same(mountedOn(f.merged), [], 'no unknown mount is left')
      }
    })

  await test(t, 'a server without a parent ends as after any other unmount', async t => {
    const f = directories(t)
    const log = `${f.top}/log`
    const child = spawnNode([CLI, 'mount', '--log-file', log, '-o', f.options, f.merged])
    let server = ''
    await waitUntil('the server', () => {
      server = fs.readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'latin1').trim()
      return isServer(server)
    })
    await waitUntil('what it knows at its start', () => fs.existsSync(log))
    child.kill('SIGKILL')
    await waitUntil('the end of the server', () => !isAlive(Number(server)))
    t.match(fs.readFileSync(log, 'utf8'), /"msg":"ended"}\n$/)
    t.same(mountedOn(f.merged), [])
  })

  await test(t, 'SIGUSR1 logs counters', async t => {
    const f = directories(t)
    const server = await serve(t, f)
    server.process.kill('SIGUSR1')
    await waitUntil('counters in the log', () => server.log().includes('"counters"'))
    t.ok(isAlive(server.pid))
  })
})

/** The CPU time of each thread of a server. */
const spentBy = ({ pid }: Served): string =>
  fs
    .readdirSync(`/proc/${pid}/task`)
    .map(tid => fs.readFileSync(`/proc/${pid}/task/${tid}/schedstat`, 'latin1'))
    .join('')

/** Waits until a server is idle. */
const asleep = async (server: Served): Promise<void> => {
  let before = ''
  let since = 0
  await waitUntil('it sleeps', () => {
    const now = spentBy(server)
    if (now !== before) since = Date.now()
    before = now
    return Date.now() - since > 100
  })
}

const startAsleep = async (t: Test) => {
  const f = directories(t)
  fs.writeFileSync(`${f.lower}/file`, 'text')
  const server = await serve(t, f)
  fs.statSync(`${f.merged}/file`)
  await asleep(server)
  return { f, server }
}

test(t, 'asleep', { skip: skipMounts }, async t => {
  await test(t, 'the server handles requests, jobs and signals, and is idle otherwise', async t => {
    const { f, server } = await startAsleep(t)
    // In the first seconds the server may write its compiled code to the cache, and other tests may
    // make the kernel drop its caches.
    let before: string
    await waitUntil('a second in which nothing happens', () => {
      before = spentBy(server)
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1000)
      return spentBy(server) === before
    })
    for (let i = 1; i <= 3; i++) {
      server.process.kill('SIGUSR1')
      await waitUntil('counters', () => server.log().split('"counters"').length > i)
      await asleep(server)
      const fd = fs.openSync(`${f.merged}/new${i}`, 'w')
      fs.writeSync(fd, 'x')
      fs.fsyncSync(fd)
      fs.closeSync(fd)
      fs.unlinkSync(`${f.merged}/new${i}`)
      await asleep(server)
    }
    t.equal(fs.readFileSync(`${f.merged}/file`, 'utf8'), 'text')
  })
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    await test(t, signal, async t => {
      const { f, server } = await startAsleep(t)
      server.process.kill(signal)
      t.match(await server.ended, { status: 0 })
      t.same(mountedOn(f.merged), [])
    })
  }
  await test(t, 'a lazy unmount with an open file', async t => {
    const { f, server } = await startAsleep(t)
    const fd = fs.openSync(`${f.merged}/file`, 'r')
    t.equal(spawnSync('umount', ['-l', f.merged]).status, 0)
    await asleep(server)
    t.equal(fs.readFileSync(fd, 'utf8'), 'text')
    fs.closeSync(fd)
    t.match(await server.ended, { status: 0 })
  })
  await test(t, 'an aborted connection', async t => {
    const { f, server } = await startAsleep(t)
    const control = '/sys/fs/fuse/connections'
    if (fs.readdirSync(control).length === 0) spawnSync('mount', ['-t', 'fusectl', 'x', control])
    const { dev } = fs.statSync(f.merged)
    fs.writeFileSync(`${control}/${dev}/abort`, '1')
    await server.ended
    t.same(mountedOn(f.merged), [])
  })
})

test(t, 'unmounting', { skip: skipMounts }, async t => {
  await test(t, 'by umount(8)', async t => {
    const f = directories(t)
    const server = await serve(t, f)
    t.equal(spawnSync('umount', [f.merged]).status, 0)
    t.match(await server.ended, { status: 0, stderr: '' }, 'the server ends')
  })

  await test(t, 'while it is busy', async t => {
    const f = directories(t)
    fs.writeFileSync(`${f.lower}/file`, 'text')
    const server = await serve(t, f)
    const fd = fs.openSync(`${f.merged}/file`, 'r')
    t.match(await tsoverlay('umount', f.merged), {
      status: 32,
      stdout: '',
      stderr: /^tsoverlay: .*\/merged is busy: .*--lazy.*\n$/,
    })
    t.same(mountedOn(f.merged), ['fuse.tsoverlay'], 'and it stays')
    t.match(await tsoverlay('umount', '--lazy', f.merged), { status: 0, stderr: '' })
    t.same(mountedOn(f.merged), [])
    t.equal(fs.readFileSync(fd, 'utf8'), 'text', 'the open file is still served')
    fs.closeSync(fd)
    t.match(await server.ended, { status: 0 })
  })

  await test(t, 'a mountpoint without a mount', async t => {
    const { top } = scratch(t)
    t.match(await tsoverlay('umount', top), { status: 32, stderr: /nothing is mounted there/ })
    t.match(await tsoverlay('umount', `${top}/none`), { status: 32, stderr: /nothing is mounted/ })
    t.match(await tsoverlay('umount', '/proc'), { status: 32, stderr: /type proc/ })
  })

  await test(t, 'a path through a symlink, and a relative one', async t => {
    const f = directories(t)
    fs.symlinkSync('merged', `${f.top}/link`)
    await mountInBackground(t, f)
    t.match(await tsoverlay('umount', `${f.top}/link`), { status: 0, stderr: '' })
    t.same(mountedOn(f.merged), [])
    const options = 'lowerdir=lower,upperdir=upper,workdir=work'
    const run = (...args: string[]) => outcomeOf(spawnNode([CLI, ...args], { cwd: f.top }))
    t.match(await run('mount', '-o', options, 'merged'), { status: 0, stderr: '' })
    t.same(mountedOn(f.merged), ['fuse.tsoverlay'])
    t.match(await run('umount', 'merged'), { status: 0, stderr: '' })
  })

  await test(t, 'and mounting again at once', async t => {
    const f = directories(t)
    for (let i = 0; i < 5; i++) {
      const server = await serve(t, f)
      fs.writeFileSync(`${f.merged}/round${i}`, '')
      t.equal(spawnSync('umount', [f.merged]).status, 0)
      void server
    }
    const server = await serve(t, f)
    t.equal(fs.readdirSync(f.merged).length, 5)
    await server.unmount()
  })
})

test(t, 'a mount on top of a mount', { skip: skipMounts }, async t => {
  const f = directories(t)
  const other = directories(t)
  const below = await serve(t, f)
  below.expect(/covered by another mount/)
  fs.writeFileSync(`${other.lower}/on-top`, '')
  const above = await serve(t, { ...other, merged: f.merged })
  below.process.kill('SIGTERM')
  await waitUntil('a word about it', () => below.log().includes('covered by another mount'))
  t.same(fs.readdirSync(f.merged), ['on-top'], 'the signal of one does not unmount the other')
  await above.unmount()
  t.same(mountedOn(f.merged), ['fuse.tsoverlay'])
  t.match(await tsoverlay('umount', f.merged), { status: 0, stderr: '' })
  t.match(await below.ended, { status: 0 })
})

test(t, 'a second mount of the same directories', { skip: skipMounts }, async t => {
  const f = directories(t)
  const other = directories(t)
  const pid = await mountInBackground(t, f)
  const before = mountTable(other.top)
  const cases: [string, string, string][] = [
    ['upperdir', f.upper, `lowerdir=${other.lower},upperdir=${f.upper},workdir=${other.work}`],
    ['workdir', f.work, `lowerdir=${other.lower},upperdir=${other.upper},workdir=${f.work}`],
  ]
  // The workdir must be on the file system of the upper layer; all of these are on one file system.
  for (const [option, path, options] of cases) {
    const outcome = await tsoverlay('mount', '-o', options, other.merged)
    t.equal(outcome.status, 32)
    t.equal(
      outcome.stderr,
      `tsoverlay: ${option}=${path} is in use by process ${pid}, mounted on ${f.merged}; unmount that first: tsoverlay umount ${f.merged}, or choose another directory\n`,
    )
  }
  t.same(mountTable(other.top), before)
  t.same(fs.readdirSync(other.merged), [])
  t.same(fs.readdirSync(other.upper), [])
  t.same(fs.readdirSync(other.work), [])
})

test(t, 'bad input', { skip: skipMounts }, async t => {
  const f = directories(t)
  fs.mkdirSync(`${f.lower}/in`)
  fs.mkdirSync(`${f.upper}/in`)
  fs.mkdirSync(`${f.top}/second`)
  fs.mkdirSync(`${f.top}/marked/work/incompat/strange`, { recursive: true })
  fs.writeFileSync(`${f.top}/file`, '')
  const { lower, upper, work, merged } = f
  const none = `${f.top}/none`
  const cases: [name: string, options: string, mountpoint: string, status: number, says: RegExp][] =
    [
      ['no lower', `upperdir=${upper},workdir=${work}`, merged, 1, /^lowerdir is missing: .*; add/],
      [
        'missing lower',
        `lowerdir=${lower}:${none}`,
        merged,
        32,
        /^lowerdir=.*none: no such directory; /,
      ],
      [
        'lower is a file',
        `lowerdir=${f.top}/file`,
        merged,
        32,
        /^lowerdir=.*file: not a directory; /,
      ],
      [
        'missing upper',
        `lowerdir=${lower},upperdir=${none},workdir=${work}`,
        merged,
        32,
        /^upperdir=.*none: no such directory; /,
      ],
      [
        'upper is a file',
        `lowerdir=${lower},upperdir=${f.top}/file,workdir=${work}`,
        merged,
        32,
        /^upperdir=.*file: not a directory; /,
      ],
      ['no work', `lowerdir=${lower},upperdir=${upper}`, merged, 1, /^workdir is missing: .*; add/],
      [
        'missing work',
        `lowerdir=${lower},upperdir=${upper},workdir=${none}`,
        merged,
        32,
        /^workdir=.*none: no such directory; /,
      ],
      ['missing mountpoint', f.options, none, 32, /^mountpoint=.*none: no such directory; /],
      ['mountpoint is a file', f.options, `${f.top}/file`, 32, /^mountpoint=.*not a directory; /],
      [
        'work on another file system',
        `lowerdir=${lower},upperdir=${upper},workdir=/proc/self`,
        merged,
        32,
        /^workdir=.*(different file systems|permission denied|read-only)/,
      ],
      [
        'work inside upper',
        `lowerdir=${lower},upperdir=${upper},workdir=${upper}/in`,
        merged,
        32,
        /^workdir=.*lies inside upperdir=.*; /,
      ],
      [
        'upper inside lower',
        `lowerdir=${lower},upperdir=${lower}/in,workdir=${work}`,
        merged,
        32,
        /^upperdir=.*lies inside lowerdir=.*; /,
      ],
      [
        'a lower twice',
        `lowerdir=${lower}:${lower}`,
        merged,
        32,
        /^lowerdir=.*is the same directory.*; /,
      ],
      [
        'nested',
        `lowerdir=${lower}:${lower}/in`,
        merged,
        32,
        /^lowerdir=.*lies inside lowerdir=.*; /,
      ],
      [
        'mountpoint in lower',
        f.options,
        `${lower}/in`,
        32,
        /^mountpoint=.*lies inside lowerdir=.*; /,
      ],
      [
        'mountpoint in upper',
        f.options,
        `${upper}/in`,
        32,
        /^mountpoint=.*lies inside upperdir=.*; /,
      ],
      [
        'an unknown mark',
        `lowerdir=${lower},upperdir=${upper},workdir=${f.top}/marked`,
        merged,
        32,
        /^workdir=.*overlay with incompat feature 'strange' cannot be mounted; /,
      ],
      [
        'a wrong value',
        `${f.options},redirect_dir=maybe`,
        merged,
        1,
        /^redirect_dir=maybe: .*; choose/,
      ],
      ['a wrong value', `${f.options},io=fast`, merged, 1, /^io=fast: .*; choose/],
      ['a wrong value', `${f.options},index=2`, merged, 1, /^index=2: .*; choose/],
      ['a wrong value', `${f.options},whiteout=ink`, merged, 1, /^whiteout=ink: .*; choose/],
      ['a colon too many', `lowerdir=${lower}:`, merged, 1, /^lowerdir=.*colon.*; /],
    ]
  const before = mountTable(f.top)
  const files = listing(f.top)
  for (const foreground of [false, true]) {
    for (const [name, options, mountpoint, status, says] of cases) {
      const args = foreground ? ['-f'] : []
      const outcome = await tsoverlay('mount', ...args, '-o', options, mountpoint)
      t.equal(outcome.status, status, name)
      t.match(outcome.stderr, /^tsoverlay: [^\n]*\n$/, `${name}: one line`)
      t.match(outcome.stderr.replace(/^tsoverlay: /, ''), says, `${name}: option, path, way out`)
      t.equal(outcome.stdout, '')
      if (!foreground) continue
      t.same(mountTable(f.top), before, `${name}: nothing is mounted`)
      t.same(listing(f.top), files, `${name}: nothing is created`)
    }
  }
  t.match(await tsoverlay('mount', '--log-file', `${none}/log`, '-o', f.options, merged), {
    status: 32,
    stderr: /^tsoverlay: --log-file=.*can't be opened.*; /,
  })
  t.same(mountTable(f.top), before)
  t.same(listing(f.top), files)
})

/** Runs a shell in a mount namespace of its own, where the machine can be changed. */
const inNamespace = (script: string, f: Directories) =>
  outcomeOf(
    spawn(
      'unshare',
      [
        '--mount',
        '--propagation=private',
        'sh',
        '-ec',
        `unset NODE_OPTIONS; ${script}`,
        'sh',
        process.execPath,
        CLI,
        f.options,
        f.merged,
      ],
      { stdio: ['ignore', 'pipe', 'pipe'] },
    ),
  )

test(t, 'without the means to mount', { skip: skipMounts }, async t => {
  const run = '"$1" "$2" mount -o "$3" "$4"'

  await test(t, 'no /dev/fuse', async t => {
    const f = directories(t)
    const outcome = await inNamespace(
      `mount -t tmpfs none /mnt; mknod -m 666 /mnt/null c 1 3; mount --move /mnt /dev; ${run}`,
      f,
    )
    t.equal(outcome.status, 32)
    t.match(outcome.stderr, /^tsoverlay: \/dev\/fuse: this machine offers no FUSE; .*modprobe.*\n$/)
    t.same(fs.readdirSync(f.work), [])
  })

  await test(t, 'no right', async t => {
    const f = directories(t)
    const hide =
      'for path in /usr/bin /bin /usr/local/bin; do for helper in fusermount3 fusermount; do test ! -e $path/$helper || mount --bind /dev/null $path/$helper; done; done'
    const outcome = await inNamespace(`${hide}; exec setpriv --bounding-set=-sys_admin ${run}`, f)
    t.equal(outcome.status, 32, outcome.stderr)
    t.match(
      outcome.stderr,
      /^tsoverlay: mountpoint=.*: no right to mount; install fusermount3 .*, or run as root .*\n$/,
    )
    t.same(fs.readdirSync(f.work), [])
  })

  await test(t, 'upper on a read-only file system', async t => {
    const f = directories(t)
    const outcome = await inNamespace(
      `mount -t tmpfs none ${f.top}/lower; mkdir ${f.top}/lower/u ${f.top}/lower/w ${f.top}/lower/l;
       mount -o remount,ro ${f.top}/lower; cd ${f.top}/lower
       "$1" "$2" mount -o lowerdir=l,upperdir=u,workdir=w "$4"`,
      f,
    )
    t.equal(outcome.status, 32)
    t.match(outcome.stderr, /^tsoverlay: upperdir=.*lies on a read-only file system; .*\n$/)
  })
})

test(t, 'unknown options', { skip: skipMounts }, async t => {
  const f = directories(t)
  const given = ['-o', `${f.options},metacopy=on`, '-o', 'foo', f.merged]
  f.before(() => void spawnSync('umount', [f.merged]))
  t.match(await tsoverlay('mount', ...given), { status: 1, stderr: /^tsoverlay: metacopy=on: / })
  t.same(mountedOn(f.merged), [])
  const outcome = await tsoverlay('mount', '--sloppy', ...given)
  t.same(outcome, {
    status: 0,
    signal: null,
    stdout: '',
    stderr: 'unknown argument ignored: metacopy=on\nunknown argument ignored: foo\n',
  })
  t.same(mountedOn(f.merged), ['fuse.tsoverlay'])
  t.match(await tsoverlay('umount', f.merged), { status: 0 })
})

const printed = (program: string, ...args: string[]): string =>
  spawnSync(program, args, { encoding: 'utf8' }).stdout

/** The size of a process' descriptor table. */
const tableOf = (pid: string | number | undefined): number =>
  Number(/^FDSize:\s*(\d+)/m.exec(fs.readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1])

test(t, 'options take effect', { skip: skipMounts }, async t => {
  await test(t, 'flags', async t => {
    const f = directories(t)
    fs.writeFileSync(`${f.lower}/program`, '#!/bin/sh\necho ran\n', { mode: 0o755 })
    const flags = 'ro,nosuid,nodev,noexec,noatime'
    await mountInBackground(t, f, '-o', `${flags},fsname=a name`, '-o', 'subtype=mine')
    const line = mountTable(f.merged).find(one => one.split(' ')[2] === f.merged) ?? ''
    const shown = (line.split(' ')[3] ?? '').split(',')
    for (const flag of flags.split(',')) t.ok(shown.includes(flag), `${flag} is shown`)
    t.match(line, / - fuse\.mine a\\040name /)
    t.throws(() => fs.writeFileSync(`${f.merged}/x`, ''), { code: 'EROFS' })
    t.throws(() => fs.unlinkSync(`${f.merged}/program`), { code: 'EROFS' })
    t.match(spawnSync(`${f.merged}/program`), { error: { code: 'EACCES' } })
    t.match(await tsoverlay('umount', f.merged), { status: 0, stderr: '' })
    t.same(serversOf(f.merged), [])
  })

  await test(t, 'names with colons, commas and backslashes', async t => {
    const f = directories(t)
    const names = ['a:b', 'c\\d', 'e,f', 'u,:\\', 'w\\,']
    for (const name of names) fs.mkdirSync(`${f.top}/${name}`)
    for (const name of names.slice(0, 3)) fs.writeFileSync(`${f.top}/${name}/${name}`, name)
    const escaped = names.map(name => name.replaceAll(/[\\:,]/g, '\\$&'))
    const [a, c, e, u, w] = escaped.map(name => `${f.top}/${name}`)
    const options = `lowerdir=${a}:${c}:${e},upperdir=${u},workdir=${w}`
    await mountInBackground(t, { ...f, options })
    t.same(fs.readdirSync(f.merged).toSorted(), ['a:b', 'c\\d', 'e,f'])
    fs.writeFileSync(`${f.merged}/new`, '')
    t.ok(fs.existsSync(`${f.top}/u,:\\/new`))
  })

  await test(t, 'data modes', async t => {
    for (const io of ['auto', 'passthrough', 'cached']) {
      const f = directories(t)
      fs.writeFileSync(`${f.lower}/file`, 'text')
      const server = await serve(t, f, '-o', `io=${io}`)
      t.equal(fs.readFileSync(`${f.merged}/file`, 'utf8'), 'text')
      await waitUntil('the first line', () => server.log().includes('"mounted"'))
      if (io !== 'auto') t.match(server.log(), `"io":"${io}"`)
      await server.unmount()
    }
  })

  await test(t, 'missing files of the program do not block it', async t => {
    const f = directories(t)
    const copy = install(f.top)
    fs.rmSync(`${copy}/dist/overlay/jobs-worker.cjs`)
    fs.writeFileSync(`${f.lower}/large`, Buffer.alloc(3 << 20, 'l'))
    fs.writeFileSync(`${f.lower}/larger`, Buffer.alloc(5 << 20, 'm'))
    f.before(() => void spawnSync('umount', [f.merged]))
    const mount = [`${copy}/dist/cli/main.cjs`, 'mount', '-o', f.options, f.merged]
    t.match(await outcomeOf(spawnNode(mount)), { status: 0, stderr: '' })
    const script =
      'printf x >> large & printf y >> larger & wait; sync -f large; tail -qc2 large larger'
    const { stdout } = spawnSync('bash', ['-c', script], {
      cwd: f.merged,
      encoding: 'utf8',
      timeout: 20_000,
    })
    t.equal(stdout, 'lxmy')
    t.equal(fs.statSync(`${f.upper}/larger`).size, (5 << 20) + 1)
    t.equal(spawnSync('umount', [f.merged]).status, 0)
    await waitUntil('the end of the server', () => serversOf(f.merged).length === 0)
  })

  await test(t, 'the descriptor table is large before it is needed', async t => {
    const f = directories(t)
    await mountInBackground(t, f)
    const most = Number(printed('sh', '-c', 'ulimit -Hn'))
    const [server] = serversOf(f.merged)
    // With fuse-native a child process of the server serves.
    const pids = [server, ...printed('pgrep', '-P', `${server}`).split('\n').slice(0, -1)]
    await waitUntil('room', () => pids.some(pid => tableOf(pid) >= Math.min(8192, most)))
  })

  const noBdi = isWritable('/sys/class/bdi') ? false : 'needs a writable /sys/class/bdi'
  await test(t, "the kernel's read-ahead and dirty limits", { skip: noBdi }, async t => {
    const f = directories(t)
    await mountInBackground(t, f)
    const { dev } = fs.statSync(f.merged, { bigint: true })
    const name = `${(dev >> 8n) & 0xfffn}:${(dev & 0xffn) | ((dev >> 12n) & 0xfff00n)}`
    const setting = (file: string): number =>
      Number(fs.readFileSync(`/sys/class/bdi/${name}/${file}`, 'utf8'))
    t.equal(setting('read_ahead_kb'), 512)
    t.equal(setting('max_ratio'), 10)
  })

  await test(t, 'the kernel reads lower files directly if nothing can be copied up', async t => {
    const f = directories(t)
    fs.writeFileSync(`${f.lower}/file`, 'text')
    fs.utimesSync(`${f.lower}/file`, 1e9, 1.1e9)
    const options = `lowerdir=${f.lower},io=passthrough`
    const server = await serve(t, { ...f, options })
    t.equal(fs.readFileSync(`${f.merged}/file`, 'utf8'), 'text')
    t.equal(fs.statSync(`${f.lower}/file`).atimeMs, 1e12, 'without a change of the access time')
    server.process.kill('SIGUSR1')
    await waitUntil('counters in the log', () => server.log().includes('"counters"'))
    t.match(server.log(), '"op.OPEN":1')
    t.notMatch(server.log(), '"op.READ":')
  })

  await test(t, 'read-only without upperdir, also with one lower', async t => {
    const f = directories(t)
    fs.writeFileSync(`${f.lower}/file`, 'text')
    await mountInBackground(t, { ...f, options: `lowerdir=${f.lower}` })
    t.equal(fs.readFileSync(`${f.merged}/file`, 'utf8'), 'text')
    t.throws(() => fs.writeFileSync(`${f.merged}/file`, 'x'), { code: 'EROFS' })
    t.throws(() => fs.mkdirSync(`${f.merged}/x`), { code: 'EROFS' })
  })

  await test(t, 'on a layer itself', async t => {
    for (const on of ['lower', 'upper'] as const) {
      const f = directories(t)
      fs.writeFileSync(`${f.lower}/file`, 'text')
      await mountInBackground(t, { ...f, merged: f[on] })
      t.equal(fs.readFileSync(`${f[on]}/file`, 'utf8'), 'text')
      fs.writeFileSync(`${f[on]}/file`, 'changed')
      t.equal(fs.readFileSync(`${f[on]}/file`, 'utf8'), 'changed')
      t.match(await tsoverlay('umount', f[on]), { status: 0, stderr: '' })
      t.equal(fs.readFileSync(`${f.lower}/file`, 'utf8'), 'text')
      t.equal(fs.readFileSync(`${f.upper}/file`, 'utf8'), 'changed')
    }
  })

  await test(t, 'a layer below the mountpoint', async t => {
    const f = directories(t)
    fs.mkdirSync(`${f.merged}/layer`)
    fs.writeFileSync(`${f.merged}/layer/file`, 'text')
    const options = `lowerdir=${f.merged}/layer,upperdir=${f.upper},workdir=${f.work}`
    await mountInBackground(t, { ...f, options })
    t.same(fs.readdirSync(f.merged), ['file'])
  })

  await test(t, 'hundreds of layers', async t => {
    const f = directories(t)
    const lower = Array.from({ length: 600 }, (_, i) => `${f.lower}/${i}`)
    for (const [i, path] of lower.entries()) {
      fs.mkdirSync(path)
      fs.writeFileSync(`${path}/f${i}`, '')
    }
    await mountInBackground(t, { ...f, options: `lowerdir=${lower.join(':')}` })
    t.equal(fs.readdirSync(f.merged).length, 600)
  })
})

test(t, 'volatile', { skip: skipMounts }, async t => {
  const f = directories(t)
  await mountInBackground(t, f, '-o', 'volatile')
  fs.writeFileSync(`${f.merged}/x`, 'x')
  fs.fsyncSync(fs.openSync(`${f.merged}/x`, 'r'))
  t.match(await tsoverlay('umount', '--lazy', f.merged), { status: 0 })
  const mark = `${f.work}/work/incompat/volatile`
  t.ok(fs.existsSync(`${mark}/dirty`), 'the xattr stays, as with the kernel')
  const again = await tsoverlay('mount', '-o', f.options, f.merged)
  t.equal(again.status, 32)
  t.match(again.stderr, `overlay with incompat feature 'volatile' cannot be mounted; `)
  t.match(again.stderr, `remove ${mark}\n`)
  t.same(mountedOn(f.merged), [])
  fs.rmSync(mark, { recursive: true })
})

test(t, 'a full disk', { skip: skipMounts }, async t => {
  const f = directories(t)
  fs.writeFileSync(`${f.lower}/big`, Buffer.alloc(6 << 20, 'b'))
  fs.writeFileSync(`${f.lower}/small`, 'small')
  fs.mkdirSync(`${f.top}/disk`)
  t.equal(spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'none', `${f.top}/disk`]).status, 0)
  f.before(() => void spawnSync('umount', [`${f.top}/disk`]))
  const [upper, work] = [`${f.top}/disk/upper`, `${f.top}/disk/work`]
  fs.mkdirSync(upper)
  fs.mkdirSync(work)
  const options = `lowerdir=${f.lower},upperdir=${upper},workdir=${work}`
  for (const io of ['passthrough', 'cached']) {
    const server = await serve(t, { ...f, options }, '-o', `io=${io}`)
    server.expect(/ENOSPC|No space/)
    t.throws(() => fs.appendFileSync(`${f.merged}/big`, 'x'), { code: 'ENOSPC' }, io)
    t.throws(() => fs.chmodSync(`${f.merged}/big`, 0o600), { code: 'ENOSPC' })
    t.same(fs.readdirSync(upper), [], 'no half copy in the upper layer')
    t.same(
      fs.readdirSync(`${work}/work`).filter(name => !/^(#[0-9a-f]+|incompat)$/.test(name)),
      [],
      'and none beside it',
    )
    t.equal(fs.statSync(`${f.merged}/big`).size, 6 << 20, 'the file is unchanged')
    t.throws(
      () => {
        const fd = fs.openSync(`${f.merged}/filler`, 'w')
        try {
          for (;;) {
            fs.writeSync(fd, Buffer.alloc(1 << 20, 'f'))
            fs.fsyncSync(fd)
          }
        } finally {
          try {
            fs.closeSync(fd)
          } catch {
            // the same error again
          }
        }
      },
      { code: 'ENOSPC' },
    )
    fs.unlinkSync(`${f.merged}/filler`)
    // The kernel sends RELEASE after close(2) has returned, so the space is available a moment
    // later.
    const start = Date.now()
    await waitUntil('the space of a removed file', () => fs.statfsSync(upper).bavail > 512)
    t.comment(`space is back after ${Date.now() - start} ms`)
    fs.appendFileSync(`${f.merged}/small`, '+')
    t.equal(
      fs.readFileSync(`${f.merged}/small`, 'utf8'),
      'small+',
      'it continues when there is space',
    )
    fs.unlinkSync(`${f.merged}/small`)
    await server.unmount()
    fs.rmSync(`${upper}/small`)
  }
})

test(t, 'inherited descriptors are closed', { skip: skipMounts }, async t => {
  // The test inherits pipes at low and high descriptor numbers. The reader sees the end of a pipe
  // only when no process has the other end open.
  await test(t, 'in the background', async t => {
    const f = directories(t)
    f.before(() => void spawnSync('umount', [f.merged]))
    const run = bash(
      `exec 5<"$3"; exec 12>"$3/far"; exec 33>"$3/farther"
       { { "$1" "$2" mount -o "$4" "$5"; echo "status $?" >&2; } 9>&1 37>&1 >/dev/null | cat; } 40<"$3"`,
      process.execPath,
      CLI,
      f.top,
      f.options,
      f.merged,
    )
    t.match(run.stderr, /^status 0$/m, 'and the pipe has ended, or this would hang')
    const [pid] = serversOf(f.merged)
    const open = fs.readdirSync(`/proc/${pid}/fd`).map(fd => {
      try {
        return fs.readlinkSync(`/proc/${pid}/fd/${fd}`)
      } catch {
        return ''
      }
    })
    t.same(
      open.filter(
        path =>
          path.startsWith(f.top) && ![f.lower, f.upper, f.work].some(own => path.startsWith(own)),
      ),
      [],
    )
  })

  await test(t, 'in the foreground', async t => {
    const f = directories(t)
    f.before(() => void spawnSync('umount', [f.merged]))
    const child = spawnNode([CLI, 'mount', '-f', '-o', f.options, f.merged], {
      stdio: ['ignore', 'ignore', 'ignore', 'ignore', 'pipe'],
    })
    const pipe = child.stdio[4] as Readable
    let over = false
    pipe.once('close', () => (over = true)).resume()
    await waitUntil('the end of the pipe', () => over)
    await waitUntil('the mount', () => mountedOn(f.merged).length > 0)
    t.pass('the pipe ends while the server lives')
    spawnSync('umount', [f.merged])
    await waitUntil('the end', () => child.exitCode !== null)
    t.equal(child.exitCode, 0)
  })
})

test(t, 'kill -9 of the server', { skip: skipMounts }, async t => {
  const f = directories(t)
  const text = 'x'.repeat(300_000)
  for (let i = 0; i < 20; i++) fs.writeFileSync(`${f.lower}/f${i}`, text)
  const server = await serve(t, f)
  server.expect(/./)
  // Copies files up repeatedly until the server is gone.
  const writer = spawn(
    process.execPath,
    [
      '-e',
      `const fs = require('fs')
       for (let i = 0; ; i++) {
         const path = ${JSON.stringify(f.merged)} + '/f' + (i % 20)
         try { fs.appendFileSync(path, 'y'); fs.unlinkSync(path); fs.writeFileSync(path, 'z'.repeat(300000)); fs.chmodSync(path, 0o600) }
         catch (error) { console.log(error.code); break }
       }`,
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  )
  const written = outcomeOf(writer)
  await waitUntil('some copies', () => fs.readdirSync(f.upper).length >= 5)
  process.kill(server.pid, 'SIGKILL')
  await server.ended
  t.match(await written, { stdout: /^(ENOTCONN|ECONNABORTED|EIO)\n$/ }, 'the writer gets an error')
  t.throws(() => fs.readdirSync(f.merged), { code: 'ENOTCONN' }, 'the mount is dead')
  t.match(await tsoverlay('mount', '-o', f.options, f.merged), {
    status: 32,
    stderr: /mountpoint=.*a mount whose server is gone covers it; clear it first with: umount -l /,
  })
  t.match(await tsoverlay('umount', '--lazy', f.merged), { status: 0, stderr: '' })
  t.same(mountedOn(f.merged), [])

  for (const name of fs.readdirSync(f.upper)) {
    t.match(name, /^f\d+$/, 'only complete names in the upper layer')
  }
  const again = await serve(t, f)
  for (let i = 0; i < 20; i++) {
    const path = `${f.merged}/f${i}`
    if (!fs.existsSync(path)) continue // between unlink and create
    const found = fs.readFileSync(path, 'utf8')
    // A copied-up file is complete, possibly with data that the writer has added. A file that the
    // writer has created may be truncated, as on any file system.
    t.ok(
      found === text || found === `${text}y` || 'z'.repeat(300_000).startsWith(found),
      `f${i}: ${found.length} bytes of ${found[0]}`,
    )
  }
  fs.writeFileSync(`${f.merged}/after`, 'works')
  const left = fs.readdirSync(`${f.work}/work`)
  t.same(
    left.filter(name => !name.startsWith('#')),
    left.includes('incompat') ? ['incompat'] : [],
  )
  await again.unmount()
  t.equal(fs.readFileSync(`${f.upper}/after`, 'utf8'), 'works')
})

test(t, 'few descriptors, many directories', { skip: skipMounts }, async t => {
  const f = directories(t)
  const count = 3000
  for (let i = 0; i < count; i++) {
    fs.mkdirSync(`${f.lower}/d${i}`)
    fs.writeFileSync(`${f.lower}/d${i}/file`, `${i}`)
  }
  f.before(() => void spawnSync('umount', ['-l', f.merged], { stdio: 'ignore' }))
  const mounted = bash(
    'ulimit -n 256; exec "$1" "$2" mount -o "$3" "$4"',
    process.execPath,
    CLI,
    f.options,
    f.merged,
  )
  t.match(mounted, { status: 0, stderr: '' })
  let wrong = 0
  for (let i = 0; i < count; i++) {
    if (fs.readFileSync(`${f.merged}/d${i}/file`, 'utf8') !== `${i}`) wrong++
    if (i % 3 === 0) fs.appendFileSync(`${f.merged}/d${i}/file`, '+')
    if (i % 3 === 1) fs.writeFileSync(`${f.merged}/d${i}/new`, 'n')
  }
  t.equal(wrong, 0, 'all are read')
  const found = spawnSync('find', [f.merged, '-type', 'f'], { encoding: 'utf8' })
  t.equal(found.status, 0)
  t.equal(found.stdout.trimEnd().split('\n').length, count + count / 3)
  t.match(await tsoverlay('umount', f.merged), { status: 0, stderr: '' })
  t.equal(fs.readdirSync(f.upper).length, (count / 3) * 2)
})

test(t, '200 processes at once', { skip: skipMounts }, async t => {
  const f = directories(t)
  for (let i = 0; i < 20; i++) {
    fs.mkdirSync(`${f.lower}/d${i}`)
    fs.writeFileSync(`${f.lower}/d${i}/shared`, `${i}\n`)
  }
  const server = await serve(t, f)
  // Each process has a directory of its own, appends to shared files, and removes some of its
  // files.
  const script = `
    cd "$1"; n=$2
    mkdir own$n; echo $n > own$n/a; mv own$n/a own$n/b; ln own$n/b own$n/c; rm own$n/b
    test "$(cat own$n/c)" = $n
    echo $n >> d$((n % 20))/shared
    ls d$((n % 20)) > /dev/null
    cp -a d$(((n + 1) % 20)) own$n/copy; rm -r own$n/copy
  `
  const all = await Promise.all(
    Array.from({ length: 200 }, (_, i) =>
      outcomeOf(spawn('sh', ['-ec', script, 'sh', f.merged, String(i)], { stdio: 'pipe' })),
    ),
  )
  t.same(
    all.filter(({ status }) => status !== 0).map(({ stderr }) => stderr),
    [],
    'none fails',
  )
  t.equal(fs.readdirSync(f.merged).length, 220)
  let lines = 0
  for (let i = 0; i < 20; i++) {
    lines += fs.readFileSync(`${f.merged}/d${i}/shared`, 'utf8').trimEnd().split('\n').length
  }
  t.equal(lines, 220, 'no appended line is lost')
  await server.unmount()
})

test(t, 'the library', { skip: skipMounts }, async t => {
  const program = fileURLToPath(new URL('../fixtures/library.mjs', import.meta.url))
  const run = async (t: Test, act: string) => {
    const f = directories(t, 'library')
    fs.writeFileSync(`${f.lower}/from-lower`, 'lower')
    f.before(() => {
      if (mountedOn(f.merged).length > 0) spawnSync('umount', ['-l', f.merged])
    })
    const child = spawnNode([program, act, f.top], {
      timeout: 60_000,
      killSignal: 'SIGKILL',
    })
    const { status, signal, stdout, stderr } = await outcomeOf(child)
    t.equal(signal, null, 'it ends by itself')
    t.equal(stderr, '')
    t.same(mountedOn(f.merged), [], 'nothing is mounted any more')
    return { status, f, shown: JSON.parse(stdout || 'null') as Record<string, unknown> }
  }

  await test(t, 'uses its own mount', async t => {
    const { status, f, shown } = await run(t, 'use')
    t.equal(status, 0)
    t.match(shown, {
      mountpoint: f.merged,
      io: /^(passthrough|cached)$/,
      before: 'lower',
      names: 51,
      stats: 'object',
      closed: true,
    })
    t.equal(fs.readFileSync(`${f.upper}/from-lower`, 'utf8'), 'changed')
    t.equal(fs.readFileSync(`${f.lower}/from-lower`, 'utf8'), 'lower')
  })
  await test(t, 'busy', async t => {
    t.match(await run(t, 'busy'), { status: 0, shown: { code: 'EBUSY', text: 'lower' } })
  })
  await test(t, 'await using', async t => {
    t.match(await run(t, 'dispose'), { status: 0, shown: { upper: ['x'] } })
  })
  await test(t, 'errors', async t => {
    const { status, f, shown } = await run(t, 'fail')
    t.equal(status, 0)
    t.same(shown, [
      ['lowerdir', 'EINVAL'],
      ['lowerdir', 'ENOENT'],
      ['lowerdir', 'ELOOP'],
      ['mountpoint', 'EINVAL'],
      ['flags', 'EINVAL'],
    ])
    t.same(fs.readdirSync(f.work), [])
  })
  await test(t, 'several mounts', async t => {
    const { status, f, shown } = await run(t, 'several')
    t.equal(status, 0)
    t.match(shown, { copied: true })
    t.match(shown['message'], `upperdir=${f.upper} is in use by process ${String(shown['pid'])}`)
    t.match(shown['message'], f.merged)
  })
  await test(t, 'a process that ends leaves no dead mount', async t => {
    const { status, f } = await run(t, 'exit')
    t.equal(status, 3)
    t.equal(fs.readFileSync(`${f.upper}/kept`, 'utf8'), 'all of it')
  })
  await test(t, 'while its union sleeps', async t => {
    const { status, f } = await run(t, 'exitAsleep')
    t.equal(status, 3)
    t.equal(fs.readFileSync(`${f.upper}/kept`, 'utf8'), 'all of it')
    t.match(await run(t, 'statsAsleep'), { status: 0, shown: { slept: true, same: true } })
  })
})
