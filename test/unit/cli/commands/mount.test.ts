import t from 'tap'

import { parseLinger, readMountCommand } from '../../../../src/cli/commands/mount.js'

t.test('what a command line asks for', async t => {
  t.match(readMountCommand(['mount', '-o', 'a', '-o', 'b,c', '--linger', '0', '/m']), {
    mountpoint: '/m',
    options: ['a', 'b,c'],
    foreground: false,
    onUnknown: 'refuse',
    transport: 'kernel',
    ownServer: false,
    linger: 0,
  })
  t.match(readMountCommand(['mount', '--lenient', '-o', 'a', '--', '-m']), {
    mountpoint: '-m',
    onUnknown: 'tell',
    linger: 60,
  })
  t.match(readMountCommand(['mount', '-s', '--own-server', '/m']), {
    onUnknown: 'pass',
    ownServer: true,
  })
})

t.test('what asks for no mount, or is wrong', async t => {
  for (const args of [
    [],
    ['umount', '/m'],
    ['mount'],
    ['mount', '--help'],
    ['mount', '--no-such', '/m'],
    ['mount', '--linger', 'x', '/m'],
    ['mount', '/a', '/b'],
  ])
    t.equal(readMountCommand(args), undefined, args.join(' '))
})

t.test('how long a server stays', async t => {
  t.equal(parseLinger('1.5'), 1.5)
  t.equal(parseLinger('infinity'), Infinity)
  for (const text of ['', '-1', 'x', '1e9']) t.throws(() => parseLinger(text))
})
