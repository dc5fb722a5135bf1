/** Leftovers of an ended mount, and the messages of umount. */

import { spawn, spawnSync } from 'node:child_process'
import * as fs from 'node:fs'
import { tmpdir } from 'node:os'
import { fileURLToPath } from 'node:url'

import t from 'tap'

import {
  CLI,
  directories,
  isAlive,
  DETACH_COPIES,
  mountedOn,
  mountTable,
  outcomeOf,
  PROGRAM,
  serve,
  serversOf,
  skipMounts,
  spawnNode,
  test,
  tsoverlay,
  waitUntil,
} from '../helpers/mount.js'
import { skipNative } from '../helpers/transport.js'

const LIBRARY = fileURLToPath(new URL('../../dist/lib/index.js', import.meta.url))

const namespaceOf = (pid: number): string => fs.readlinkSync(`/proc/${pid}/ns/mnt`)

/**
 * A program that mounts repeatedly, one or two mounts at a time, and prints the growth of its
 * process.
 */
const MANY = `
import { mount } from '${LIBRARY}'
import * as fs from 'node:fs'
import { tmpdir } from 'node:os'
const [top, how] = process.argv.slice(2)
const of = i => ({ lower: top + '/lower', upper: top + '/upper' + i, work: top + '/work' + i, mountpoint: top + '/merged' + i })
for (const i of [0, 1]) for (const part of ['upper', 'work', 'merged']) fs.mkdirSync(top + '/' + part + i)
const size = () => ({
  mappings: fs.readFileSync('/proc/self/maps', 'latin1').split('\\n').length,
  threads: fs.readdirSync('/proc/self/task').length,
  descriptors: fs.readdirSync('/proc/self/fd').length,
  listeners: process.listenerCount('exit'),
})
const use = at => {
  fs.appendFileSync(at + '/f', 'more')
  const fd = fs.openSync(at + '/g', 'w')
  fs.fsyncSync(fd)
  fs.closeSync(fd)
  for (const name of ['f', 'g']) fs.unlinkSync(at + '/' + name)
}
const round = async () => {
  if (how === 'fails') return void (await mount({ ...of(0), fsname: 'x'.repeat(5000) }).catch(() => {}))
  const mounts = await Promise.all((how === 'two' ? [0, 1] : [0]).map(i => mount(of(i))))
  for (const each of mounts) if (how !== 'one') use(each.mountpoint)
  for (const each of mounts) await each.unmount()
  for (const each of mounts) await each.closed
  for (const i of [0, 1]) fs.rmSync(top + '/upper' + i + '/f', { force: true })
}
const rounds = async n => { for (let i = 0; i < n; i++) await round() }
// The process creates threads until it has enough for its mounts. After that nothing may grow.
let grown
for (let tries = 0; tries < 5; tries++) {
  const before = size()
  await rounds(20)
  const after = size()
  grown = Object.fromEntries(Object.keys(before).map(key => [key, after[key] - before[key]]))
  if (grown.mappings < 20 && grown.threads <= 0 && grown.descriptors <= 0 && grown.listeners === 0) break
}
console.log(JSON.stringify(grown))
`

test(t, 'a process that mounts repeatedly through the library', { skip: skipMounts }, async t => {
  for (const how of ['one', 'two', 'fails']) {
    await test(t, how, async t => {
      const f = directories(t)
      fs.writeFileSync(`${f.lower}/f`, 'text')
      fs.writeFileSync(`${f.top}/many.mjs`, MANY)
      const { status, stdout, stderr } = await outcomeOf(
        spawnNode([`${f.top}/many.mjs`, f.top, how]),
      )
      t.equal(status, 0, stderr)
      t.equal(stderr, '')
      const grown = JSON.parse(stdout) as Record<string, number>
      t.ok(grown['mappings']! < 20, `${grown['mappings']} mappings for 20 rounds`)
      t.ok(grown['threads']! <= 0, `${grown['threads']} threads`)
      t.ok(grown['descriptors']! <= 0, `${grown['descriptors']} descriptors`)
      t.equal(grown['listeners'], 0)
    })
  }
})

/** A program whose server is stopped while the union is unmounted and mounted again. */
const SLOW_END = `
import { mount } from '${LIBRARY}'
import * as fs from 'node:fs'
const [top] = process.argv.slice(2)
const options = { lower: top + '/lower', upper: top + '/upper', work: top + '/work', mountpoint: top + '/merged', transport: 'fuse-native' }
const first = await mount(options)
const server = fs.readdirSync('/proc').find(pid => {
  try {
    return Number(pid) > 0 && fs.readFileSync('/proc/' + pid + '/status', 'latin1').includes('\\nPPid:\\t' + process.pid + '\\n')
  } catch {
    return false
  }
})
process.kill(server, 'SIGSTOP')
let closed = false
first.closed.then(() => (closed = true))
await first.unmount()
console.log(closed)
setTimeout(() => process.kill(server, 'SIGCONT'), 5000)
const second = await mount(options)
console.log(closed)
await second.unmount()
`

test(t, 'a mount whose server takes long to end', { skip: skipMounts }, async t => {
  const skip = skipNative(t)
  await test(t, 'the same process waits for it', { skip }, async t => {
    const f = directories(t)
    fs.writeFileSync(`${f.top}/slow.mjs`, SLOW_END)
    f.before(() => void (mountedOn(f.merged).length > 0 && spawnSync('umount', ['-l', f.merged])))
    const outcome = await outcomeOf(spawnNode([`${f.top}/slow.mjs`, f.top]))
    t.match(outcome, { status: 0, stdout: 'false\ntrue\n' }, outcome.stderr)
  })
})

test(t, 'a mount that still exists elsewhere', { skip: skipMounts }, async t => {
  await test(t, 'in the mount namespace of another process', async t => {
    const f = directories(t)
    t.match(await tsoverlay('mount', '-o', f.options, f.merged), { status: 0, stderr: '' })
    f.before(() => void spawnSync('umount', ['-l', f.merged]))
    const other = spawn('unshare', ['-m', '--propagation', 'private', 'sleep', '300'])
    let [server] = serversOf(f.merged)
    f.before(async () => {
      other.kill()
      await waitUntil('the end of the server', () => !isAlive(server ?? 0))
    })
    await waitUntil('the namespace', () => namespaceOf(other.pid!) !== namespaceOf(process.pid))
    await waitUntil(
      'its program',
      () => fs.readFileSync(`/proc/${other.pid}/comm`, 'latin1') === 'sleep\n',
    )
    const outcome = await tsoverlay('umount', f.merged)
    t.match(outcome, { status: 3, stdout: '' })
    t.match(outcome.stderr, `in the mount namespace of process ${other.pid} `)
    t.match(outcome.stderr, `process ${server} continues to serve it`)
    t.match(outcome.stderr, /^[^\n]+\n$/, 'one line')
    const again = await tsoverlay('mount', '-o', f.options, f.merged)
    t.match(again, { status: 32, stdout: '' })
    t.match(
      again.stderr,
      `upperdir=${f.upper} is in use by process ${server}, which still serves a mount on`,
    )
    t.match(again.stderr, `in the mount namespace of process ${other.pid} `)
    other.kill()
    await waitUntil('the end of the server', () => !isAlive(server ?? 0))
    t.match(await tsoverlay('mount', '-o', f.options, f.merged), { status: 0, stderr: '' })
    server = serversOf(f.merged)[0]
    t.match(await tsoverlay('umount', f.merged), { status: 0, stderr: '' })
  })
  await test(t, 'on a second mountpoint', async t => {
    const f = directories(t)
    const second = `${f.top}/second`
    fs.mkdirSync(second)
    t.match(await tsoverlay('mount', '-o', f.options, f.merged), { status: 0, stderr: '' })
    f.before(() => {
      for (const point of [second, f.merged])
        if (mountedOn(point).length > 0) spawnSync('umount', ['-l', point])
    })
    spawnSync('mount', ['--bind', f.merged, second])
    const outcome = await tsoverlay('umount', f.merged)
    t.match(outcome, { status: 3, stderr: `on ${second} (take it away with` })
    t.match(await tsoverlay('umount', second), { status: 0, stderr: '' })
  })
})

const run = ([program, ...args]: string[]): number | null =>
  spawnSync(program!, args, { encoding: 'utf8' }).status

/**
 * The results of a sequence of remounts: the exit statuses, and after each whether a file can be
 * created.
 */
const story = (
  start: string[],
  again: (option: string) => string[],
  top: string,
  merged: string,
) => {
  const writes = (): boolean => {
    try {
      fs.writeFileSync(`${merged}/x`, '')
      return true
    } catch {
      return false
    }
  }
  const seen: unknown[] = [run(start)]
  seen.push(run(again('ro')) === 0, writes(), run(again('rw')) === 0, writes())
  const fd = fs.openSync(`${merged}/x`, 'w')
  seen.push('busy', run(again('ro')) === 0, writes())
  fs.closeSync(fd)
  const flags = (): string => mountTable(top).find(line => line.includes(` ${merged} `)) ?? ''
  seen.push(run(again('ro,nosuid,noexec')) === 0, /ro,nosuid,noexec/.test(flags()), writes())
  seen.push(mountedOn(merged).length)
  return seen
}

test(t, 'remount', { skip: skipMounts }, async t => {
  await test(t, 'has the same results as on kernel overlayfs', async t => {
    const [own, theirs] = [directories(t), directories(t)]
    for (const each of [own, theirs])
      each.before(
        () => void (mountedOn(each.merged).length > 0 && spawnSync('umount', [each.merged])),
      )
    const there = (option: string): string[] => ['mount', '-o', `remount,${option}`, theirs.merged]
    const here = (option: string): string[] => [
      PROGRAM,
      'none',
      own.merged,
      '-o',
      `${option},remount,${own.options}`,
    ]
    const kernel = story(
      ['mount', '-t', 'overlay', '-o', theirs.options, 'none', theirs.merged],
      there,
      theirs.top,
      theirs.merged,
    )
    const union = story([PROGRAM, 'none', own.merged, '-o', own.options], here, own.top, own.merged)
    t.same(kernel, [0, true, false, true, true, 'busy', false, true, true, true, false, 1])
    t.same(union, kernel)
  })
  await test(t, 'of a union that never writes', async t => {
    const f = directories(t)
    const server = await serve(t, { ...f, options: `lowerdir=${f.lower}` })
    const again = await tsoverlay('mount', '-o', 'remount,rw', f.merged)
    t.match(again, { status: 32, stderr: /can't be remounted: .*read-only/ })
    t.match(mountTable(f.merged), [/ ro,/])
    t.match(await tsoverlay('mount', '-o', 'remount,ro,nodev', f.merged), { status: 0, stderr: '' })
    t.match(mountTable(f.merged), [/ ro,nodev/])
    const shown = 'user_id=0,group_id=0,default_permissions,allow_other,max_read=4096,blksize=4096'
    const told = await tsoverlay('mount', '-o', `${shown},rootmode=40000,fd=3,remount,ro`, f.merged)
    t.match(
      told,
      { status: 0, stderr: '' },
      'the options that mount(8) reads in /proc/self/mountinfo',
    )
    t.match(await tsoverlay('mount', '-o', 'remount,ro,max_read=x', f.merged), { status: 1 })
    await server.unmount()
  })
  await test(t, 'of a mountpoint without a mount', async t => {
    const f = directories(t)
    const outcome = await tsoverlay('mount', '-o', `remount,ro,${f.options}`, f.merged)
    t.match(outcome, { status: 32, stderr: `${f.merged}: nothing is mounted there` })
    t.match(await tsoverlay('mount', '-o', 'remount,upperdri=x', f.merged), { status: 1 })
    t.same(mountedOn(f.merged), [])
  })
})

test(t, 'from a working directory that was removed', { skip: skipMounts }, async t => {
  const f = directories(t)
  const there = (...args: string[]) =>
    spawnSync(
      'bash',
      [
        '-c',
        'unset NODE_OPTIONS; mkdir "$0" && cd "$0" && rmdir "$0" && exec "$@"',
        `${f.top}/gone`,
        ...args,
      ],
      { encoding: 'utf8', timeout: 60_000 },
    )
  for (const program of [[PROGRAM], [process.execPath, CLI]]) {
    t.match(there(...program, 'mount', '-o', f.options, f.merged), { status: 0 })
    t.equal(mountedOn(f.merged).length, 1)
    t.match(there(...program, 'umount', f.merged), { status: 0 })
    const relative = there(...program, 'mount', '-o', 'lowerdir=l', f.merged)
    t.equal(relative.status, 32)
    t.match(relative.stderr, /lowerdir=.*the working directory was removed.*no such directory/)
    t.notMatch(relative.stderr, /    at /)
    t.match(there(...program, 'umount', 'x').stderr, /nothing is mounted there/)
  }
})

/**
 * Creates a cgroup with a limit of processes, and a function that removes it. Returns a reason if
 * that is not possible.
 */
const limitedGroup = (): { group: string; remove: () => void } | string => {
  const top = fs.mkdtempSync(`${tmpdir()}/tsoverlay-pids-`)
  const mounted = [
    ['cgroup', 'pids'],
    ['cgroup2', ''],
  ].some(
    ([type, options]) =>
      spawnSync('mount', ['-t', type!, '-o', options! || 'rw', 'none', top]).status === 0,
  )
  const group = `${top}/tsoverlay-test-${process.pid}`
  const remove = (): void => {
    if (fs.existsSync(group)) fs.rmdirSync(group)
    if (mounted) spawnSync('umount', [top])
    fs.rmdirSync(top)
  }
  try {
    if (mounted) fs.mkdirSync(group)
    if (fs.existsSync(`${group}/pids.max`)) return { group, remove }
  } catch {
    // read-only
  }
  remove()
  return 'needs a cgroup with the pids controller'
}

test(t, 'with a low limit of processes and threads', { skip: skipMounts }, async t => {
  const found = limitedGroup()
  if (typeof found === 'string') return void t.pass(found, { skip: found })
  const { group, remove } = found
  t.teardown(remove)
  const members = (): string[] =>
    fs.readFileSync(`${group}/cgroup.procs`, 'latin1').split('\n').filter(Boolean)
  for (const max of [1, 2, 3, 5, 7, 8, 9, 10, 11, 12, 13, 14, 16, 40]) {
    const f = directories(t)
    fs.writeFileSync(`${group}/pids.max`, String(max))
    const { status, signal, stderr } = spawnSync(
      'bash',
      [
        '-c',
        'unset NODE_OPTIONS; echo $$ >"$0/cgroup.procs" && exec "$@"',
        group,
        PROGRAM,
        'mount',
        '-o',
        f.options,
        f.merged,
      ],
      // Standard error is a file, because the test would wait for every process that has a pipe
      // open.
      {
        timeout: 60_000,
        killSignal: 'SIGKILL',
        stdio: ['ignore', 'ignore', fs.openSync(`${f.top}/said`, 'w')],
        encoding: 'utf8',
      },
    )
    const said = fs.readFileSync(`${f.top}/said`, 'utf8')
    f.before(() => {
      for (const pid of members()) process.kill(Number(pid), 'SIGKILL')
      if (mountedOn(f.merged).length > 0) spawnSync('umount', ['-l', f.merged])
    })
    t.equal(signal, null, `pids.max ${max}: it returns; ${stderr}`)
    if (status === 0) {
      fs.writeFileSync(`${f.merged}/x`, 'x')
      t.same(fs.readdirSync(f.upper), ['x'], `pids.max ${max}: it is mounted`)
      t.match(await tsoverlay('umount', f.merged), { status: 0, stderr: '' })
    } else {
      t.match(said, /^[^\n]+\n([^\n]+\n)?$/, `pids.max ${max}: status ${status}, a line`)
    }
    t.same(mountedOn(f.merged), [], `pids.max ${max}: no mount is left`)
    await waitUntil('the end of all processes', () => members().length === 0)
    if (max === 40) t.equal(status, 0)
  }
})

test(t, 'with low resource limits of a process', { skip: skipMounts }, async t => {
  const limits: [limit: string, expected: RegExp | 'mounts'][] = [
    ['ulimit -v 100000', /^tsoverlay: the limit of memory is too low \(ulimit -v\)\n$/],
    ['ulimit -n 16', /^tsoverlay: the limit of descriptors is too low \(ulimit -n\)\n$/],
    ['ulimit -n 26', /^tsoverlay: [^\n]*too many open files[^\n]*\n$/i],
    ['ulimit -n 28', /^tsoverlay: [^\n]*too many open files[^\n]*\n$/i],
    ['umount -l /proc', /^tsoverlay: [^\n]*\/proc is not mounted[^\n]*\n$/],
    ['unset HOME; export TMPDIR=/no/such/directory', 'mounts'],
    ['exec <&- >&-', 'mounts'],
  ]
  for (const [limit, expected] of limits) {
    const f = directories(t)
    const { status, stderr } = spawnSync(
      'unshare',
      [
        '-m',
        'bash',
        '-c',
        `unset NODE_OPTIONS; ${DETACH_COPIES} ${limit}; "$@"; status=$?; [ $status != 0 ] || umount "$3"; exit $status`,
        'sh',
        PROGRAM,
        'mount',
        f.merged,
        '-o',
        f.options,
      ],
      { timeout: 60_000, killSignal: 'SIGKILL', encoding: 'utf8' },
    )
    if (expected === 'mounts') t.match({ status, stderr }, { status: 0, stderr: '' }, limit)
    else {
      t.ok(status !== null && status > 0, `${limit}: ${status}`)
      t.match(stderr, expected, limit)
    }
  }
})

const skipFuseOverlayfs =
  skipMounts ||
  (spawnSync('fuse-overlayfs', ['--version']).status === 0 ? false : 'needs fuse-overlayfs')

/**
 * Adds one more directory of each kind, so that a second mount can share exactly one directory with
 * the first.
 */
const more = (t: Parameters<typeof directories>[0]) => {
  const f = directories(t)
  const [upper2, work2, merged2] = ['upper2', 'work2', 'merged2'].map(name => {
    fs.mkdirSync(`${f.top}/${name}`)
    return `${f.top}/${name}`
  }) as [string, string, string]
  for (const point of [f.merged, merged2])
    f.before(() => void (mountedOn(point).length > 0 && spawnSync('umount', [point])))
  return { ...f, upper2, work2, merged2 }
}

test(t, 'an upper layer in use', { skip: skipMounts }, async t => {
  type Directories = ReturnType<typeof more>

  /**
   * A directory in use is refused as upper layer and as workdir, for a read-only mount, too. It is
   * accepted as a lower layer.
   */
  const check = async (
    t: Parameters<typeof directories>[0],
    f: Directories,
    expected: RegExp,
  ): Promise<void> => {
    for (const flag of ['rw', 'ro']) {
      for (const [option, upper, work] of [
        ['upperdir', f.upper, f.work2],
        ['workdir', f.upper2, f.work],
      ] as const) {
        const options = `${flag},lowerdir=${f.lower},upperdir=${upper},workdir=${work}`
        const outcome = await tsoverlay('mount', '-o', options, f.merged2)
        t.match(outcome, { status: 32, stdout: '' }, options)
        const path = option === 'upperdir' ? upper : work
        t.ok(outcome.stderr.includes(`${option}=${path} is in use by `), outcome.stderr)
        t.match(outcome.stderr, expected)
        t.match(outcome.stderr, /^[^\n]+\n$/, 'one line')
        t.strictSame(mountedOn(f.merged2), [])
      }
    }
    const options = `lowerdir=${f.upper}:${f.lower},upperdir=${f.upper2},workdir=${f.work2}`
    t.match(await tsoverlay('mount', '-o', options, f.merged2), { status: 0, stderr: '' })
    t.match(await tsoverlay('umount', f.merged2), { status: 0, stderr: '' })
  }

  /** The same holds for a directory inside a directory in use. */
  const checkInside = async (
    t: Parameters<typeof directories>[0],
    f: Directories,
  ): Promise<void> => {
    const [inUpper, inWork] = [`${f.upper}/sub`, `${f.work}/work`]
    for (const [option, upper, work, above] of [
      ['upperdir', inUpper, f.work2, f.upper],
      ['upperdir', inWork, f.work2, f.work],
      ['workdir', f.upper2, inUpper, f.upper],
      ['workdir', f.upper2, inWork, f.work],
    ] as const) {
      const options = `lowerdir=${f.lower},upperdir=${upper},workdir=${work}`
      const outcome = await tsoverlay('mount', '-o', options, f.merged2)
      t.match(outcome, { status: 32, stdout: '' }, options)
      const path = option === 'upperdir' ? upper : work
      t.ok(
        outcome.stderr.includes(`${option}=${path} lies in ${above}, which is in use by `),
        outcome.stderr,
      )
      t.strictSame(mountedOn(f.merged2), [])
    }
    const options = `lowerdir=${inUpper}:${f.lower},upperdir=${f.upper2},workdir=${f.work2}`
    t.match(await tsoverlay('mount', '-o', options, f.merged2), { status: 0, stderr: '' })
    t.match(await tsoverlay('umount', f.merged2), { status: 0, stderr: '' })
  }

  await test(t, 'by a tsoverlay mount that writes', async t => {
    const f = more(t)
    fs.mkdirSync(`${f.upper}/sub`)
    t.match(await tsoverlay('mount', '-o', f.options, f.merged), { status: 0, stderr: '' })
    await checkInside(t, f)
    await check(t, f, new RegExp(`process ${serversOf(f.merged)[0]}, mounted on ${f.merged};`))
    t.match(await tsoverlay('umount', f.merged), { status: 0, stderr: '' })
    const inside = `lowerdir=${f.lower},upperdir=${f.upper}/sub,workdir=${f.work2}`
    t.match(await tsoverlay('mount', '-o', inside, f.merged), { status: 0, stderr: '' })
    t.match(await tsoverlay('umount', f.merged), { status: 0, stderr: '' })
  })
  await test(t, 'by a read-only tsoverlay mount', async t => {
    const f = more(t)
    t.match(await tsoverlay('mount', '-o', `ro,${f.options}`, f.merged), { status: 0, stderr: '' })
    for (const flag of ['rw', 'ro']) {
      const outcome = await tsoverlay('mount', '-o', `${flag},${f.options}`, f.merged2)
      t.match(outcome, { status: 32, stderr: `upperdir=${f.upper} is in use by process` })
    }
    t.match(await tsoverlay('mount', '-o', 'remount,rw', f.merged), { status: 32 })
    t.match(await tsoverlay('umount', f.merged), { status: 0, stderr: '' })
    t.match(await tsoverlay('mount', '-o', f.options, f.merged), { status: 0, stderr: '' })
    t.match(await tsoverlay('umount', f.merged), { status: 0, stderr: '' })
  })

  const PEERS: [name: string, command: string, expected: string, skip: string | false][] = [
    [
      'a kernel overlayfs',
      'mount -t overlay none merged -o',
      "the kernel's overlay mount on MERGED; unmount that first",
      false,
    ],
    [
      'a fuse-overlayfs',
      'fuse-overlayfs merged -o',
      'fuse-overlayfs, process [0-9]+, mounted on MERGED; unmount that first',
      skipFuseOverlayfs,
    ],
  ]
  for (const [name, command, expected, skip] of PEERS) {
    for (const [how, upper] of [
      ['absolute', '$PWD/upper'],
      ['relative', './upper'],
      ['behind a symlink', '$PWD/way'],
    ] as const) {
      await test(t, `by ${name}, ${how}`, { skip }, async t => {
        const f = more(t)
        fs.symlinkSync('upper', `${f.top}/way`)
        fs.mkdirSync(`${f.upper}/sub`)
        const options = `lowerdir=lower,upperdir=${upper},workdir=$PWD/work`
        t.equal(run(['sh', '-c', `cd "$0" && ${command} "${options}"`, f.top]), 0)
        t.equal(mountedOn(f.merged).length, 1)
        if (how === 'absolute') await checkInside(t, f)
        await check(t, f, new RegExp(expected.replace('MERGED', f.merged)))
        t.equal(run(['umount', f.merged]), 0)
        t.match(await tsoverlay('mount', '-o', f.options, f.merged), { status: 0, stderr: '' })
        t.match(await tsoverlay('umount', f.merged), { status: 0, stderr: '' })
      })
    }
    await test(t, `by ${name} in another mount namespace`, { skip }, async t => {
      const f = more(t)
      const other = spawn(
        'unshare',
        [
          '-m',
          '--propagation',
          'private',
          'sh',
          '-c',
          `cd "$0" && ${command} "${f.options}" && echo mounted && read line; umount "$0/merged"`,
          f.top,
        ],
        { stdio: ['pipe', 'pipe', 'ignore'] },
      )
      const ended = new Promise(resolve => other.on('close', resolve))
      f.before(async () => {
        other.stdin.end()
        await ended
      })
      await new Promise(resolve => other.stdout.once('data', resolve))
      t.strictSame(mountedOn(f.merged), [])
      await check(t, f, / is in use by (the kernel's overlay mount|fuse-overlayfs, process)/)
    })
  }

  await test(t, 'not by a mount whose directories have the same relative names', async t => {
    const [f, other] = [more(t), more(t)]
    const start =
      'cd "$0" && mount -t overlay none merged -o lowerdir=lower,upperdir=upper,workdir=work'
    t.equal(run(['sh', '-c', start, other.top]), 0)
    t.match(await tsoverlay('mount', '-o', f.options, f.merged), { status: 0, stderr: '' })
    t.match(await tsoverlay('umount', f.merged), { status: 0, stderr: '' })
    t.equal(run(['umount', other.merged]), 0)
  })
})
