import t from 'tap'

import { createProgram } from '../../../src/cli/commands/create-program.js'
import { aliasVersion, commandNames, readInvocation } from '../../../src/config/compat.js'

const read = (line: string, name = 'tsoverlay', env: Record<string, string> = {}) =>
  readInvocation(name, line === '' ? [] : line.split(' '), env)
const runs = (line: string, notes: string[] = []) => ({ kind: 'run', args: line.split(' '), notes })

t.test('commands stay unchanged', async t => {
  for (const line of [
    'mount -o lowerdir=/a /m',
    'mount -f -oro /m',
    'umount /m',
    'unmount -l /m',
    'mount',
    '-V',
    '--version',
    '-h',
    '--help',
    'mnt',
    '-f /m',
    '/a /b',
  ]) {
    t.same(read(line), runs(line), line)
  }
  t.same(read(''), { kind: 'run', args: [], notes: [] })
})

const never = async (): Promise<void> => {}

t.test('the names of the commands are known', async t => {
  const server = { start: never, stop: never, status: never }
  const actions = { mount: never, umount: never, ls: never, stats: never, which: never, top: never }
  const { commands } = createProgram('1', { ...actions, server })
  const names = commands.flatMap(command => [command.name(), ...command.aliases()])
  t.same(new Set(names), commandNames)
})

t.test('as a helper of mount(8)', async t => {
  for (const [line, args] of [
    ['none /m -o rw,a', 'mount --lenient -o fsname=none -o rw,a -- /m'],
    ['none /m -v -sn -t tsoverlay.x -o a', 'mount --sloppy -o fsname=none -o a -- /m'],
    ['none /m -o -f', 'mount --lenient -o fsname=none -o -f -- /m'],
  ] as const) {
    t.same(read(line, 'mount.tsoverlay'), runs(args), line)
  }
  for (const line of ['none /m -f -o a', 'none /m -sfv -o a']) {
    t.same(read(line, 'mount.tsoverlay'), { kind: 'nothing' }, line)
  }
  t.match(read('none /m', 'mount.tsoverlay'), { kind: 'run' })
  t.match(read('-o a', 'mount.tsoverlay'), { kind: 'wrong' })
  t.match(read('none /m -o', 'mount.tsoverlay'), { kind: 'wrong' })
  // libmount, for mount --namespace.
  t.match(read('none /m -o a -N /proc/1/fd/4', 'mount.tsoverlay'), {
    kind: 'wrong',
    message: /^mount -N is not offered/,
  })
})

t.test('invoked as fuse-overlayfs', async t => {
  const cases: [string, string][] = [
    ['-o a,b /m', 'mount --lenient -o a,b -- /m'],
    ['/m -o a,b', 'mount --lenient -o a,b -- /m'],
    ['-oa,b /m', 'mount --lenient -o a,b -- /m'],
    ['-o a -ob m', 'mount --lenient -o a -o b -- m'],
    ['-f -o a /m', 'mount --lenient -f -o a -- /m'],
    ['-o a /m -d', 'mount --lenient -f --log-level debug -o a -- /m'],
    ['--debug -f -o a /m', 'mount --lenient -f --log-level debug -o a -- /m'],
    ['-s -o a /m', 'mount --lenient -o a -- /m'],
    ['-o a -- -m', 'mount --lenient -o a -- -m'],
    ['-o a -', 'mount --lenient -o a -- -'],
    ['-o -f /m', 'mount --lenient -o -f -- /m'],
  ]
  for (const [line, args] of cases) {
    t.same(read(line), runs(args), line)
    t.same(read(line, 'fuse-overlayfs'), runs(args), line)
  }
  t.same(
    read('-x --threads=3 -o a /m'),
    runs('mount --lenient -o a -- /m', [
      'unknown argument ignored: -x',
      'unknown argument ignored: --threads=3',
    ]),
  )
})

t.test('invoked by mount(8): the source is shown, unless fsname is given', async t => {
  t.same(
    read('none /m -o rw,lowerdir=/a,dev,suid'),
    runs('mount --lenient -o fsname=none -o rw,lowerdir=/a,dev,suid -- /m'),
  )
  t.same(read('-o a src /m'), runs('mount --lenient -o fsname=src -o a -- /m'))
  t.same(readInvocation('tsoverlay', ['a,b\\c:d', '/m', '-o', 'x'], {}), {
    kind: 'run',
    args: ['mount', '--lenient', '-o', String.raw`fsname=a\,b\\c:d`, '-o', 'x', '--', '/m'],
    notes: [],
  })
  t.same(readInvocation('tsoverlay', ['', '/m', '-o', 'x'], {}), runs('mount --lenient -o x -- /m'))
})

t.test('invoked as fuse-overlayfs, no word is a command', async t => {
  t.same(
    read('mount /m -o a', 'fuse-overlayfs'),
    runs('mount --lenient -o fsname=mount -o a -- /m'),
  )
  t.same(read('/m', 'fuse-overlayfs'), runs('mount --lenient -- /m'))
})

t.test('a variable of fuse-overlayfs', async t => {
  const env = { FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT: '' }
  t.same(read('-o a /m', 'tsoverlay', env), runs('mount --lenient -o whiteout=wh -o a -- /m'))
  t.same(read('mount -o a /m', 'tsoverlay', env), runs('mount -o a /m'))
})

t.test('questions', async t => {
  t.same(read('-o a /m -h'), runs('mount --help'))
  t.same(read('-o a /m -V'), runs('--version'))
  t.same(read('--help', 'fuse-overlayfs'), runs('mount --help'))
  t.same(read('-h', 'fuse-overlayfs'), runs('mount --help'))
  t.same(read('-V', 'fuse-overlayfs'), { kind: 'version' })
  t.same(read('--version', 'fuse-overlayfs'), { kind: 'version' })
  t.equal(aliasVersion('1.2.3'), 'fuse-overlayfs: version 1.16 (tsoverlay 1.2.3)')
})

t.test('wrong usage', async t => {
  const cases: [string, RegExp][] = [
    ['-o a', /^the mountpoint is missing/],
    ['-o a b c d', /^too many arguments: c$/],
    ['/m -o', /^-o: the mount options are missing$/],
  ]
  for (const [line, message] of cases) {
    t.match(read(line), { kind: 'wrong', message }, line)
    t.match(read(line, 'fuse-overlayfs'), { kind: 'wrong', message }, line)
  }
  t.match(read('', 'fuse-overlayfs'), { kind: 'wrong', message: /^the mountpoint is missing/ })
})
