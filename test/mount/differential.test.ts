/**
 * Tests the differential test itself: it finds no difference between kernel overlayfs and kernel
 * overlayfs, and finds differences in a union that is known to have them. (`npm run differential`
 * runs the real comparison.)
 */

import { spawnSync } from 'node:child_process'
import * as fs from 'node:fs'
import { tmpdir } from 'node:os'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { KINDS, skipKind } from '../helpers/kinds.js'
import { mountTable } from '../helpers/mount.js'

const launcher = fileURLToPath(new URL('../differential/launch.mjs', import.meta.url))
const kernel = KINDS.find(kind => kind.kernel)
const skip = kernel === undefined ? 'no kernel overlayfs' : skipKind(kernel)

const differential = (...args: string[]) => {
  const dir = fs.realpathSync(fs.mkdtempSync(`${tmpdir()}/tsoverlay-harness-`))
  const result = spawnSync(process.execPath, [launcher, '--dir', dir, ...args], {
    encoding: 'utf8',
    timeout: 240_000,
  })
  const left = mountTable(dir)
  const files = fs.readdirSync(dir)
  fs.rmSync(dir, { recursive: true, force: true })
  return { status: result.status, out: result.stdout + result.stderr, left, files }
}

t.test('the kernel and the kernel', { skip }, async t => {
  const result = differential(
    '--candidate',
    'kernel',
    '--seeds',
    '4',
    '--seed',
    '7',
    '--calls',
    '600',
  )
  t.equal(result.status, 0, result.out)
  t.match(result.out, /^4 runs without a difference, 0 diverged$/m)
  t.same(result.left, [], 'no mount is left')
  t.same(result.files, [], 'no file is left')
})

t.test('a union that breaks hard links', { skip }, async t => {
  const command =
    'mount -t overlay overlay -o {layers},index=off,redirect_dir={redirect},noatime {mnt}'
  const few = ['--seeds', '6', '--seed', '1', '--calls', '1000', '--reduce', '10']
  const result = differential('--candidate', command, ...few)
  t.equal(result.status, 1, result.out)
  t.match(result.out, /DIVERGED/)
  t.match(result.out, /reduced to:/, 'and it makes it small')
  t.same(result.left, [], 'no mount is left')
  t.same(result.files, [], 'no file is left')
})

/** With and without the rights of a root user outside of a user namespace. */
const inUserNamespace =
  spawnSync('unshare', [
    '--user',
    '--map-root-user',
    '--mount',
    'sh',
    '-c',
    'mount -t tmpfs none /mnt && cd /mnt && mkdir l u w m && mount -t overlay -o userxattr,lowerdir=l,upperdir=u,workdir=w none m',
  ]).status === 0

t.test(
  'a copy gets another inode number, and its directory is listed at once',
  { skip: skip || (!inUserNamespace && 'no overlay in a user namespace') },
  async t => {
    // The kernel drops the inode of the copy but keeps using its cached listing of the directory.
    const calls = ['--seed', '548102340', '--seeds', '1', '--calls', '320']
    const { status, out } = differential('--userns', ...calls)
    t.equal(status, 0, out)
  },
)

t.test('bad arguments', async t => {
  for (const args of [['--seeds', 'many'], ['--nonsense'], ['--seed', 'x']]) {
    const { status, out } = differential(...args)
    t.equal(status, 2, args.join(' '))
    t.match(out, /usage:/)
  }
})
