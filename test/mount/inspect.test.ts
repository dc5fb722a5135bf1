/** The commands that inspect mounts. */

import { spawnSync } from 'node:child_process'
import * as fs from 'node:fs'

import t from 'tap'

import {
  directories,
  DETACH_COPIES,
  mountedOn,
  NODE,
  PROGRAM,
  scratch,
  serve,
  skipMounts,
  test,
  tsoverlay,
  waitUntil,
} from '../helpers/mount.js'
import { layersIn, resident, type Layers, type Resident } from '../helpers/resident.js'
import type { Listed } from '../../src/cli/commands/ls.js'
import type { MountStats } from '../../src/cli/commands/stats.js'
import type { Which } from '../../src/cli/commands/which.js'
import { descriptorsOf } from '../../src/sys/descriptors.js'

const skip = skipMounts

/** The output of `ls --json` for the mounts below a directory. */
const listed = async (top: string, ...args: string[]): Promise<Listed[]> => {
  const { status, stdout, stderr } = await tsoverlay('ls', '--json', ...args)
  if (status !== 0 || stderr !== '') throw new Error(`ls: ${status} ${stderr}`)
  return (JSON.parse(stdout) as Listed[]).filter(({ mountpoint }) => mountpoint.startsWith(top))
}

/** Mounts all unions with one server. */
const mountAll = async (server: Resident, all: readonly Layers[]): Promise<void> => {
  for (const f of all) {
    const { status, stderr } = await server.run('mount', '-o', f.options, f.merged)
    if (status !== 0 || stderr !== '') throw new Error(`mount: ${status} ${stderr}`)
    await server.registered()
  }
}

const which = async (path: string): Promise<Which> =>
  JSON.parse((await tsoverlay('which', '--json', path)).stdout) as Which

test(t, 'ls: a server of one mount', { skip }, async t => {
  const f = directories(t)
  const server = await serve(t, f)
  fs.writeFileSync(`${f.merged}/file`, 'text')
  const [one, ...others] = await listed(f.top)
  t.strictSame(others, [])
  t.match(one, {
    mountpoint: f.merged,
    lower: [f.lower],
    upper: f.upper,
    work: f.work,
    writable: true,
    pid: server.pid,
    mounts: 1,
  })
  t.match(one?.io, /^(passthrough|cached)$/)
  t.ok(one!.requests! > 0)
  t.ok(one!.memory! > 2 ** 20)
  t.ok(one!.age! >= 0 && one!.age! < 3600)
  t.ok(Math.abs(one!.since! - Date.now()) < 3_600_000)
  const { stdout } = await tsoverlay('ls')
  const [head = '', ...lines] = stdout.split('\n')
  t.match(head, /^MOUNTPOINT +PID +MODE +AGE +REQUESTS +MEMORY +MOUNTS +LAYERS$/)
  const line = lines.find(text => text.startsWith(`${f.merged} `)) ?? ''
  t.match(line.split(/ +/), {
    length: 8,
    1: String(server.pid),
    7: `lowerdir=${f.lower},upperdir=${f.upper},workdir=${f.work}`,
  })
})

test(t, 'ls: unknown values are null', { skip }, async t => {
  const f = directories(t)
  const server = await serve(t, f)
  fs.chmodSync(f.top, 0o755)
  // A user without access to the server sees only that the mount exists.
  const cli = new URL('../../dist/cli/main.cjs', import.meta.url).pathname
  const { stdout, status } = spawnSync(NODE[0], [...NODE.slice(1), cli, 'ls', '--json'], {
    encoding: 'utf8',
    uid: 65_534,
    gid: 65_534,
  })
  if (status !== 0) return t.comment('the program can not be read by other users')
  const one = (JSON.parse(stdout) as Listed[]).find(({ mountpoint }) => mountpoint === f.merged)
  t.strictSame(one, {
    mountpoint: f.merged,
    lower: null,
    upper: null,
    work: null,
    writable: null,
    io: null,
    pid: null,
    since: null,
    age: null,
    requests: null,
    memory: null,
    mounts: null,
  })
  // A stopped server does not answer; everything else is known.
  server.process.kill('SIGSTOP')
  try {
    const [stopped] = await listed(f.top)
    t.match(stopped, { pid: server.pid, requests: null, lower: [f.lower] })
  } finally {
    server.process.kill('SIGCONT')
  }
})

test(
  t,
  'ls: several mounts of one server, and a union that is mounted twice',
  { skip },
  async t => {
    const where = scratch(t, 'inspect')
    const server = resident(t, where)
    const all = ['one', 'two', 'three'].map(name => layersIn(where, name))
    await mountAll(server, all)
    const pid = server.pid()
    t.strictSame(
      (await listed(where.top)).map(one => [one.mountpoint, one.pid, one.mounts]),
      all.map(f => [f.merged, pid, 3]),
    )
    const [first] = all as [(typeof all)[number]]
    const again = `${where.top}/again`
    fs.mkdirSync(again)
    t.equal(spawnSync('mount', ['--bind', first.merged, again]).status, 0)
    where.before(() => void (mountedOn(again).length > 0 && spawnSync('umount', [again])))
    t.strictSame(
      (await listed(where.top))
        .filter(one => one.lower?.[0] === first.lower)
        .map(one => one.mountpoint),
      [first.merged, again],
    )
  },
)

/** The output of `stats --json` for a mount. */
const statsOf = async (mountpoint: string): Promise<MountStats> => {
  const { status, stdout, stderr } = await tsoverlay('stats', '--json', mountpoint)
  if (status !== 0) throw new Error(`stats: ${status} ${stderr}`)
  return JSON.parse(stdout) as MountStats
}

test(t, 'stats: the counters', { skip }, async t => {
  const f = directories(t)
  fs.mkdirSync(`${f.lower}/directory`)
  const large = 3 << 20
  for (const [name, bytes] of [
    ['small', 1000],
    ['directory/large', large],
    ['cut', 5000],
    ['meta', 700],
  ] as const)
    fs.writeFileSync(`${f.lower}/${name}`, Buffer.alloc(bytes, 1))
  const server = await serve(t, f)
  const before = await statsOf(f.merged)
  t.match(before, { mountpoint: f.merged, pid: server.pid, openFiles: 0, copyUps: 0, waiting: 0 })
  t.equal(before.copyUpBytes, 0)
  const open = fs.openSync(`${f.merged}/small`, 'r')
  fs.appendFileSync(`${f.merged}/small`, 'more')
  fs.appendFileSync(`${f.merged}/directory/large`, 'more')
  fs.writeFileSync(`${f.merged}/cut`, 'new')
  fs.chmodSync(`${f.merged}/meta`, 0o600)
  fs.writeFileSync(`${f.merged}/new`, 'new')
  t.throws(() => fs.mkdirSync(`${f.merged}/directory/large/x`))
  spawnSync('getfattr', ['-n', 'user.none', `${f.merged}/new`])
  const after = await statsOf(f.merged)
  t.equal(after.copyUps, 5, 'four files and a directory')
  t.equal(after.copyUpBytes, 1000 + large + 700, 'truncated data is not copied')
  t.ok(after.requests > before.requests)
  t.ok(after.nodes! >= 6)
  const sum = Object.values(after.operations).reduce((all, { requests }) => all + requests, 0)
  t.equal(sum, after.requests)
  const errors = Object.values(after.operations).reduce((all, one) => all + one.errors!, 0)
  t.equal(errors, after.errors)
  t.ok(after.operations['LOOKUP']!.requests > 0)
  fs.closeSync(open)

  const plain = await tsoverlay('stats', f.merged)
  t.match(plain, { status: 0, stderr: '' })
  t.match(plain.stdout, /^copy-ups +5$/m)
  t.match(plain.stdout, /^LOOKUP +\d+ +\d+$/m)
  const { stdout } = await tsoverlay('stats', '--prometheus', f.merged)
  t.match(stdout, `tsoverlay_copyup_bytes_total{mountpoint="${f.merged}"} ${1000 + large + 700}\n`)
})

test(t, 'stats: separate counters for the mounts of one server', { skip }, async t => {
  const where = scratch(t, 'inspect')
  const server = resident(t, where)
  const all = ['one', 'two'].map(name => layersIn(where, name))
  const [one, two] = all as [Layers, Layers]
  await mountAll(server, all)
  fs.appendFileSync(`${two.merged}/which`, 'more')
  t.equal((await statsOf(one.merged)).copyUps, 0)
  t.equal((await statsOf(two.merged)).copyUps, 1)
  t.match(await server.run('umount', one.merged), { status: 0 })
  t.equal((await statsOf(two.merged)).copyUps, 1)
  // The server keeps no answers and no information about the asking processes.
  const pid = server.pid()
  await waitUntil('answers that are gone', () =>
    descriptorsOf(pid).every(([, target]) => !target.includes('tsoverlay-answer')),
  )
  t.match(await server.run('umount', two.merged), { status: 0 })
  const pipes = descriptorsOf(pid).filter(([, target]) => target.startsWith('/memfd:tsoverlay'))
  t.strictSame(pipes, [])
})

test(t, "stats: servers that can't be asked", { skip }, async t => {
  const f = directories(t)
  const server = await serve(t, f)
  t.match(await tsoverlay('stats', f.top), { status: 32, stderr: /nothing is mounted there/ })
  t.match(await tsoverlay('stats', '/proc'), { status: 32, stderr: /holds a mount of type proc/ })
  t.match(await tsoverlay('stats'), { status: 1 })
  t.match(await tsoverlay('stats', '--json', '--prometheus', f.merged), { status: 1 })
  server.process.kill('SIGSTOP')
  try {
    const outcome = await tsoverlay('stats', f.merged)
    t.match(outcome, { status: 32, stdout: '', stderr: /process \d+, does not answer/ })
  } finally {
    server.process.kill('SIGCONT')
  }
  t.equal((await statsOf(f.merged)).pid, server.pid)
})

test(t, 'which: the layer and the path that serve a name', { skip }, async t => {
  const f = directories(t)
  const second = `${f.top}/second`
  fs.mkdirSync(`${second}/directory`, { recursive: true })
  fs.mkdirSync(`${f.lower}/directory`)
  fs.writeFileSync(`${second}/directory/file`, 'text')
  fs.writeFileSync(`${f.lower}/gone`, 'text')
  fs.writeFileSync(`${f.lower}/changed`, 'text')
  const options = `lowerdir=${f.lower}:${second},upperdir=${f.upper},workdir=${f.work}`
  const server = await serve(t, { ...f, options })
  fs.unlinkSync(`${f.merged}/gone`)
  fs.appendFileSync(`${f.merged}/changed`, 'more')
  fs.symlinkSync('directory', `${f.merged}/link`)
  const file = { layer: 2, path: `${second}/directory/file` }
  t.match(await which(`${f.merged}/directory/file`), {
    path: `${f.merged}/directory/file`,
    mountpoint: f.merged,
    type: 'file',
    served: [file],
  })
  t.strictSame((await which(`${f.merged}/link/file`)).served, [file], 'through a symlink')
  t.match(await which(`${f.merged}/link`), { type: 'symlink', served: [{ layer: 0 }] })
  t.match((await which(`${f.merged}/changed`)).served, [{ path: `${f.upper}/changed` }])
  t.match((await which(f.merged)).served, { length: 3 })
  const gone = await tsoverlay('which', `${f.merged}/gone`)
  t.equal(gone.status, 32)
  t.match(gone.stdout, /^upper +whiteout: the name is deleted +\S+\/upper\/gone$/m)
  t.match(gone.stdout, /^lower 1 +is hidden$/m)
  const plain = await tsoverlay('which', `${f.merged}/directory`)
  t.match(plain, { status: 0, stderr: '' })
  t.match(plain.stdout, `lower 2: ${second}/directory\n`)

  // A bind mount of a directory of the union.
  const again = `${f.top}/again`
  fs.mkdirSync(again)
  t.equal(spawnSync('mount', ['--bind', `${f.merged}/directory`, again]).status, 0)
  f.before(() => void (mountedOn(again).length > 0 && spawnSync('umount', [again])))
  t.match(await which(`${again}/file`), { path: `${again}/file`, served: [file] })
  t.match(await which(again), { path: again, type: 'directory' })
  t.match(await tsoverlay('which', f.top), { status: 32, stderr: /is in no union/ })
  t.match(await tsoverlay('which', `${f.merged}/changed/x`), {
    status: 32,
    stderr: /is no directory/,
  })
  t.equal(fs.readFileSync(`${f.merged}/directory/file`, 'utf8'), 'text')
  t.equal((await statsOf(f.merged)).pid, server.pid)
})

test(t, 'umount: several mounts, also after a failure', { skip }, async t => {
  const where = scratch(t, 'inspect')
  const server = resident(t, where)
  const all = ['one', 'two', 'three'].map(name => layersIn(where, name))
  await mountAll(server, all)
  const [one, two, three] = all as [Layers, Layers, Layers]
  const busy = fs.openSync(`${two.merged}/which`, 'r')
  const first = await server.run('umount', one.merged, two.merged, where.top, three.merged)
  t.equal(first.status, 32)
  const [busyLine = '', wrongLine = '', ...rest] = first.stderr.split('\n')
  t.match(busyLine, `${two.merged} is busy`)
  t.match(wrongLine, `${where.top}: nothing is mounted there`)
  t.strictSame(rest, [''])
  t.strictSame(
    all.map(f => mountedOn(f.merged).length),
    [0, 1, 0],
  )
  fs.closeSync(busy)
  t.match(await server.run('umount', two.merged), { status: 0, stdout: '', stderr: '' })
  t.match(await server.run('umount'), { status: 1, stderr: /missing required argument/ })
  t.match(await server.run('umount', '--all', two.merged), { status: 1, stderr: /--all takes no/ })
})

test(t, 'umount: all listed mounts', { skip }, async t => {
  const where = scratch(t, 'inspect')
  const all = ['one', 'two words', 'three'].map(name => layersIn(where, name))
  const [one, two, three] = all as [Layers, Layers, Layers]
  // It runs in a mount namespace of its own, without the mounts of other tests.
  const script = `${DETACH_COPIES}
    findmnt -rn -t fuse.tsoverlay -o TARGET | tac | while read -r point; do umount -l "$point"; done
    program=$1; shift
    while [ $# -gt 0 ]; do "$program" mount -o "$1" "$2" || exit 99; last=$2; shift 2; done
    # One that is covered is left.
    mount -t tmpfs none "$last"
    "$program" umount --all
    echo "status $?"
    umount "$last"
    "$program" ls --json
    "$program" umount --all
    echo "status $?"
    "$program" ls --json
  `
  const args = all.flatMap(f => [f.options, f.merged])
  const child = spawnSync(
    'unshare',
    ['-m', '--propagation', 'private', 'sh', '-c', script, 'sh', PROGRAM, ...args],
    { encoding: 'utf8', env: { PATH: process.env['PATH'], TSOVERLAY_SERVER: '' } },
  )
  const [second, first, failed, left = '', ...rest] = child.stdout.split('\n')
  t.strictSame(
    [second, first, failed],
    [two.merged.replace(' ', String.raw`\040`), one.merged, 'status 32'],
  )
  t.match(child.stderr, /three\/m: holds a mount of type tmpfs/)
  t.strictSame(
    (JSON.parse(left) as Listed[]).map(({ mountpoint }) => mountpoint),
    [three.merged],
  )
  t.strictSame(rest, [three.merged, 'status 0', '[]', ''])
})

/**
 * Runs `tsoverlay top` on a terminal of 24 lines: it waits for texts, types keys and sends signals.
 * Needs python3.
 */
const ON_TERMINAL = `
import fcntl, json, os, pty, re, select, signal, struct, subprocess, sys, termios, time
steps, command = json.loads(sys.argv[1]), sys.argv[2:]
master, slave = pty.openpty()
fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 200, 0, 0))
before = termios.tcgetattr(slave)
child = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=subprocess.DEVNULL)
output, seen = '', 0
def read(seconds):
    global output
    if select.select([master], [], [], seconds)[0]: output += os.read(master, 65536).decode()
for kind, value in steps:
    if kind == 'type': os.write(master, value.encode())
    elif kind == 'signal': child.send_signal(getattr(signal, value))
    else:
        end = time.monotonic() + 60
        while not re.search(value, output[seen:]) and time.monotonic() < end: read(0.1)
        assert re.search(value, output[seen:]), repr(output)
    # What comes after a step is looked for behind what came before it.
    if kind != 'see': seen = len(output)
while child.poll() is None: read(0.1)
read(0)
print(json.dumps({'status': child.returncode, 'output': output,
                  'restored': termios.tcgetattr(slave) == before}))
`
interface OnTerminal {
  status: number
  output: string
  restored: boolean
}
const onTerminal = (steps: [kind: string, value: string][], ...args: string[]): OnTerminal => {
  const { stdout, stderr } = spawnSync(
    'python3',
    ['-c', ON_TERMINAL, JSON.stringify(steps), ...NODE.slice(0, 3), PROGRAM, 'top', ...args],
    { encoding: 'utf8' },
  )
  if (stderr !== '') throw new Error(stderr)
  return JSON.parse(stdout) as OnTerminal
}
const noPython = skip || (spawnSync('python3', ['-V']).status !== 0 && 'needs python3')

test(t, 'top: on a terminal', { skip: noPython }, async t => {
  const f = directories(t)
  await serve(t, f)
  const showsIt: [string, string] = ['see', f.merged]
  const LEFT = '\u001B[?7h\u001B[?25h\u001B[?1049l'
  for (const [what, steps, status] of [
    ['q', [['type', 'q']], 0],
    ['^C', [['type', '\u0003']], 0],
    ['SIGTERM', [['signal', 'SIGTERM']], 143],
    ['SIGINT', [['signal', 'SIGINT']], 130],
  ] as const) {
    const outcome = onTerminal([showsIt, ...steps.map(([k, v]): [string, string] => [k, v])])
    t.equal(outcome.status, status, what)
    t.ok(outcome.restored, what)
    t.ok(outcome.output.endsWith(LEFT), what)
  }
  const { output, status } = onTerminal(
    [
      ['see', 'by requests per second'],
      showsIt,
      ['type', 'm'],
      ['see', 'by memory'],
      ['type', 'P'],
      ['see', 'by path'],
      // The display is refreshed without a key.
      ['see', String.raw`\d requests/s`],
      ['type', 'x'],
      ['see', f.merged],
      ['type', 'q'],
    ],
    '-d',
    '0.1',
  )
  t.equal(status, 0)
  const lines = output.replaceAll('\u001B[H', '\n').split(/\r?\n/)
  t.ok(
    lines.some(line =>
      /^REQUESTS\/S +REQUESTS +MEMORY +MOUNTS +PID +AGE +MODE +MOUNTPOINT/.test(line),
    ),
  )
  t.ok(
    lines.some(line =>
      /^tsoverlay top: \d+ mounts?, \d+ servers?, [\d.]+ requests\/s, /.test(line),
    ),
  )
})

test(t, 'top: without a terminal', { skip }, async t => {
  const f = directories(t)
  const server = await serve(t, f)
  t.match(await tsoverlay('top'), { status: 1, stdout: '', stderr: /needs a terminal.*--once/ })
  for (const wrong of ['0', 'x', '-1', '1e9'])
    t.match(await tsoverlay('top', '-d', wrong, '--once'), { status: 1, stderr: /from 0\.1/ })
  const { status, stdout } = await tsoverlay('top', '--once', '-d', '0.1')
  t.equal(status, 0)
  const line = stdout.split('\n').find(text => text.endsWith(` ${f.merged}`)) ?? ''
  t.match(line.trim().split(/ +/), { length: 8, 0: /^\d+(\.\d)?$/, 4: String(server.pid) })
})
