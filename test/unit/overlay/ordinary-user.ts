/**
 * The part of workdir.test.ts that an unprivileged user runs in a user and mount namespace of its
 * own. The user is root there, with privileges only over its own files.
 *
 * Argument: a lower layer with objects of users that the namespace does not map, if there is one.
 */

import { existsSync } from 'node:fs'

import t from 'tap'

import { openat } from '../../../src/sys/at.js'
import { E } from '../../../src/sys/errno.js'
import { close } from '../../../src/sys/io.js'
import { clonePrivate } from '../../../src/sys/mount.js'
import { getxattrValue } from '../../../src/sys/xattr.js'
import type { Fs } from '../../helpers/fs-calls.js'
import {
  dir,
  fifo,
  file,
  link,
  symlink,
  unionDirectories,
  type Layer,
  type UnionDirectories,
} from '../../helpers/layers.js'
import { clearVolatile, compare, skipParity, withKernel } from '../../helpers/parity.js'
import * as sys from '../../helpers/syscalls.js'
import { diffTrees, type Difference } from '../../helpers/tree.js'
import { open, optionsOf, type UnionFs } from '../../helpers/union.js'

const FORMS = ['auto', 'wh', 'xattr'] as const

const LOWER: Layer = {
  'd/a': 'a',
  'd/b/c': 'c',
  'd/s': symlink('x'),
  e: 'e',
  'e2/f': file('f', { mode: 0o600 }),
  h1: 'h',
  h2: link('h1'),
  p: fifo(),
  'x/': dir({ mode: 0o2750, xattrs: { 'user.x': 'y' } }),
  suid: file('s', { mode: 0o6755 }),
  none: file('n', { mode: 0 }),
  'none.d/': dir({ mode: 0 }),
  'k/l/m': 'm',
}

const steps = async (fs: Fs): Promise<unknown[]> => [
  await fs.write('d/a', 'A'),
  await fs.unlink('e'),
  await fs.unlink('d/b/c'),
  await fs.rmdir('d/b'),
  await fs.mkdir('d/b', 0o755),
  await fs.create('e', 0o600),
  await fs.create('x/f', 0o666),
  await fs.chmod('e2/f', 0o640),
  await fs.rename('e2', 'e3'),
  await fs.rename('k/l/m', 'd/b/m'),
  await fs.rename('d/s', 'x/s'),
  await fs.chown('p', -1, 0),
  await fs.mknod('q', sys.S.IFIFO | 0o644),
  await fs.mknod('w', sys.S.IFCHR, 0, 0),
  await fs.mknod('null', sys.S.IFCHR | 0o666, 1, 3),
  await fs.write('none', 'N'),
  await fs.create('none.d/f', 0o644),
  await fs.write('suid', 'S'),
  await fs.setxattr('e2/f', 'user.y', 'z'),
  await fs.setxattr('e2/f', 'trusted.y', 'z'),
  await fs.setxattr('e2', 'user.overlay.opaque', 'y'),
  await fs.getxattr('e2', 'user.overlay.opaque'),
  await fs.listxattr('e2'),
  await fs.unlink('q'),
  await fs.rmdir('k/l'),
  await fs.rename('k', 'k2'),
  await fs.truncate('d/b/m', 0),
  await fs.list(''),
  await fs.list('d'),
  await fs.list('k'),
]

const withoutOrigin = (xattrs: string): string =>
  xattrs.replace(/ ?user\.overlay\.origin=[0-9a-f]*/, '')

/**
 * The kernel gives an unprivileged user no file handles, and writes origins without a file handle.
 */
const isOrigin = (d: Difference): boolean =>
  d.field === 'xattrs' && withoutOrigin(d.expected) === withoutOrigin(d.got)

t.test('as the kernel', { skip: skipParity }, async t => {
  for (const form of FORMS)
    await compare(
      t,
      form,
      {
        lower: [LOWER, { 'd/z': 'z', 'k/l/n': 'n' }],
        options: { userxattr: true, redirectDir: 'off', index: false, whiteout: form },
        otherForm: form !== 'auto',
        onDisk: isOrigin,
        memory: true,
      },
      steps,
    )
})

t.test('hard links stay whole, also after a remount', async t => {
  for (const form of FORMS) {
    const where = unionDirectories(t, { lower: [LOWER] })
    const options = optionsOf(where, { userxattr: true, volatile: true, whiteout: form })
    let union = open(t, options)
    t.equal(await union.write('h1', 'H'), 1, form)
    t.equal(await union.rename('h2', 'd/h'), 0)
    const tree = await union.tree()
    t.equal(tree.nodes.get('d/h')?.stat.ino, tree.nodes.get('h1')?.stat.ino)
    t.equal(tree.nodes.get('h1')?.stat.nlink, 2)
    t.strictSame(union.loggedMessages, [])
    union.close()
    clearVolatile(where)
    union = open(t, options)
    t.equal(await union.read('d/h'), 'H')
    const now = BigInt(Date.now() - 60_000) * 1_000_000n
    t.strictSame(diffTrees(tree, await union.tree(), { now }), [], 'opened again')
    t.strictSame(union.loggedMessages, [])
    union.close()
  }
})

const withoutMarks = async (fs: Fs): Promise<unknown[]> => [
  await fs.write('d/a', 'A'),
  await fs.unlink('e'),
  await fs.write('h1', 'H'),
  await fs.unlink('h2'),
  await fs.rename('p', 'd/p'),
  await fs.mkdir('new', 0o755),
  await fs.rename('d/b', 'b2'),
  await fs.list(''),
  await fs.list('d'),
]

t.test('userxattr is chosen automatically', async t => {
  const where = unionDirectories(t, { lower: [LOWER] })
  const union = open(t, optionsOf(where, { volatile: true }))
  t.equal(await union.unlink('e'), 0)
  t.equal(await union.mkdir('e', 0o755), 0)
  t.strictSame(union.loggedMessages, [])
  const upper = sys.open(where.upper, sys.O.RDONLY)
  t.equal(getxattrValue(upper, 'e', 'user.overlay.opaque').toString(), 'y')
  close(upper)
})

t.test('without userxattr', { skip: skipParity }, async t => {
  const where = unionDirectories(t, { lower: [LOWER] })
  const expected = await withKernel(where, '', withoutMarks)
  const ours = { ...unionDirectories(t, { lower: [] }), lower: where.lower }
  const union = open(t, optionsOf(ours, { volatile: true, redirectDir: 'on', userxattr: false }))
  t.strictSame(await withoutMarks(union), expected)
  t.equal(await union.mkdir('e', 0o755), 0, 'the kernel says EIO: it knows no other mark')
  t.equal(await union.rename('new', 'd/new'), 0, 'and here EXDEV')
  for (const path of ['e', 'd/new']) t.equal(existsSync(`${ours.upper}/${path}/.wh..wh..opq`), true)
  t.match(
    union.loggedMessages.map(complaint => complaint.message),
    [/try userxattr/],
  )
})

const amongForeign = async (fs: Fs): Promise<unknown[]> => [
  await fs.write('d/own', 'x'),
  await fs.write('f', 'x'),
  await fs.create('d/new', 0o644),
  await fs.unlink('d/own'),
  await fs.rename('own', 'd/own2'),
  await fs.read('f'),
  await fs.list('d'),
  await fs.write('own', 'x'),
  await fs.unlink('f'),
]

const [foreign = ''] = process.argv.slice(2)
const noForeign = foreign === '' && 'nobody could give them away'

t.test('objects of users that the namespace does not map', { skip: noForeign }, async t => {
  const directories = (): UnionDirectories => ({
    ...unionDirectories(t, { lower: [] }),
    lower: [foreign],
  })
  const ours = directories()
  const union: UnionFs = open(t, optionsOf(ours, { userxattr: true, volatile: true }))
  const got = await amongForeign(union)
  const over = -E.EOVERFLOW
  t.strictSame(got, [over, over, over, over, over, 'foreign', ['own'], 1, 0])
  t.strictSame(union.loggedMessages, [])
  if (skipParity === false)
    t.strictSame(got, await withKernel(directories(), 'userxattr', amongForeign), 'as the kernel')
})

t.test('no lower layer can be written', async t => {
  const where = unionDirectories(t, { lower: [LOWER] })
  const path = `${where.lower[0]}/d/s`
  const union = open(t, optionsOf(where, { userxattr: true, volatile: true }))
  const before = sys.lstat(sys.AT_FDCWD, path)
  t.equal(await union.readlink('d/s'), 'x')
  t.strictSame(sys.lstat(sys.AT_FDCWD, path), before, 'not even an access time')
  const tree = clonePrivate(where.lower[0] ?? '')
  t.ok(tree >= 0)
  t.equal(openat(tree, 'new', sys.O.CREAT | sys.O.WRONLY, 0o644), -E.EROFS)
  close(tree)
})
