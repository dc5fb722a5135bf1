import { spawnSync } from 'node:child_process'
import {
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { fileURLToPath } from 'node:url'

import t, { type Test } from 'tap'

import { MountError } from '../../../../src/errors.js'
import type { UnionOptions } from '../../../../src/overlay/options.js'
import { E } from '../../../../src/sys/errno.js'
import type { Fs } from '../../../helpers/fs-calls.js'
import {
  build,
  dir,
  file,
  link,
  opaque,
  removeTree,
  symlink,
  unionDirectories,
  whiteout,
  xattrWhiteout,
  type Layer,
  type UnionDirectories,
} from '../../../helpers/layers.js'
import {
  clearVolatile,
  compare,
  mountKernel,
  NOTHING_OPEN,
  skipParity,
} from '../../../helpers/parity.js'
import * as sys from '../../../helpers/syscalls.js'
import { diffTrees, readTree } from '../../../helpers/tree.js'
import {
  leakedFds,
  open,
  openFds,
  optionsOf,
  readOnlyOptions,
  UnionFs,
} from '../../../helpers/union.js'

const LOWER: Layer = {
  'd/a': 'a',
  'd/b/c': 'c',
  'd/s': symlink('x'),
  e: 'e',
  'e2/f': file('f', { mode: 0o600 }),
  h1: 'h',
  h2: link('h1'),
}

const refused = (t: Test, options: UnionOptions, option: string, code: string): void => {
  const before = openFds()
  try {
    new UnionFs(options).close()
    t.fail('opened')
  } catch (error) {
    if (!(error instanceof MountError)) throw error
    t.strictSame([error.option, error.code], [option, code], error.message)
  }
  t.strictSame(openFds(), before, 'nothing stays open')
}

t.test('leftovers of a crash are removed', async t => {
  const where = unionDirectories(t, { lower: [LOWER] })
  mkdirSync(`${where.work}/work`, { mode: 0 })
  build(`${where.work}/work`, {
    '#1': 'a half copy',
    '#2/': dir({ mode: 0 }),
    '#2/deep/er/f': 'f',
    '#2/w': whiteout,
    '#3': whiteout,
    '#4': symlink('/etc/passwd'),
    '#5/': opaque(),
    '#6': link('#1'),
    '\xff': xattrWhiteout(),
    '.wh.x': '',
    '#probe': 'x',
  })
  const union = open(t, optionsOf(where))
  t.strictSame(readdirSync(`${where.work}/work`), [])
  t.strictSame(union.loggedMessages, [])
  t.equal(await union.unlink('e'), 0)
  t.equal(await union.chmod('d', 0o700), 0)
  t.ok(existsSync('/etc/passwd'))
  union.close()
  t.strictSame(readdirSync(`${where.work}/work`), [])
  t.equal(statSync(`${where.work}/work`).mode & 0o777, 0)
})

t.test('an entry that cannot be removed stays, and does no harm', async t => {
  const where = unionDirectories(t, { lower: [LOWER] })
  mkdirSync(`${where.work}/work`)
  build(`${where.work}/work`, {
    '#1': file('x', { flags: 0x10 }),
    '#2/f': file('x', { flags: 0x10 }),
  })
  const union = open(t, optionsOf(where, { volatile: true }))
  t.equal(union.loggedMessages.length, 2)
  t.match(union.loggedMessages[0]?.message, /^cannot remove a stale entry/)
  for (const path of ['d/a', 'e', 'h1']) t.equal(await union.unlink(path), 0, path)
  t.equal(await union.chmod('d', 0o700), 0)
  t.equal(await union.create('e', 0o644), 0)
  t.equal(await union.mkdir('d/a', 0o755), 0)
  t.strictSame(await union.list('d'), ['a', 'b', 's'])
})

t.test('volatile', { skip: skipParity }, async t => {
  const where = unionDirectories(t, { lower: [LOWER] })
  const mark = `${where.work}/work/incompat/volatile/dirty`
  const union = open(t, optionsOf(where, { volatile: true }))
  t.ok(existsSync(mark), 'is marked at once')
  t.equal(await union.write('e', 'E'), 1)
  t.equal(union.ops.counts().jobs, 0)
  const { fh } = (await union.open('e', sys.O.RDWR)) as { fh: number }
  t.equal(union.ops.fsync(fh, false), 0, 'nothing is synced')
  t.equal(union.ops.syncfs(), 0)
  union.ops.release(fh)
  union.close()
  t.ok(existsSync(mark), 'and after the end')
  refused(t, optionsOf(where), 'workdir', 'EINVAL')
  refused(t, optionsOf(where, { volatile: true }), 'workdir', 'EINVAL')
  t.equal(mountKernel(where), -E.EINVAL, 'as for the kernel')
  clearVolatile(where)
  const again = open(t, optionsOf(where))
  t.equal(await again.read('e'), 'E')
  t.notOk(existsSync(mark))
  again.close()

  const other = unionDirectories(t, { lower: [LOWER] })
  t.equal(mountKernel(other, 'volatile'), 0)
  sys.umount(other.merged)
  refused(t, optionsOf(other), 'workdir', 'EINVAL')
  mkdirSync(`${where.work}/work/incompat/future`, { recursive: true })
  refused(t, optionsOf(where), 'workdir', 'EINVAL')
})

t.test('a read-only union leaves no trace', async t => {
  const where = unionDirectories(t, { lower: [LOWER], upper: { u: 'u', e: whiteout } })
  const before = openFds()
  const linkTime = (): bigint => lstatSync(`${where.lower[0]}/d/s`, { bigint: true }).atimeNs
  const past = linkTime()
  const first = open(t, readOnlyOptions(where))
  t.equal(await first.readlink('d/s'), 'x')
  t.equal(linkTime(), past, 'not even the access time of a link')
  first.close()
  // Access times of symlinks are ignored from here on: `readTree` itself changes them when it reads
  // a link.
  const trees = (): unknown[] =>
    [where.upper, where.work, ...where.lower].map(path =>
      [...readTree(path, true).nodes.values()].map(node =>
        node.target === '' ? node : { ...node, stat: { ...node.stat, atime: 0n } },
      ),
    )
  const had = trees()
  for (const options of [
    optionsOf(where, { readOnly: true }),
    optionsOf(where, { readOnly: true, volatile: true }),
    readOnlyOptions(where),
  ]) {
    const union = open(t, options)
    t.equal(await union.read('u'), options.upper === undefined ? -E.ENOENT : 'u')
    t.equal(await union.read('e'), options.upper === undefined ? 'e' : -E.ENOENT)
    t.equal(await union.unlink('h1'), -E.EROFS)
    await union.tree()
    t.equal(union.ops.syncfs(), 0)
    t.strictSame(union.ops.counts(), NOTHING_OPEN)
    union.close()
    t.strictSame(await leakedFds(before), [])
  }
  t.strictSame(trees(), had)
})

t.test('a union that cannot be opened leaves nothing open', async t => {
  const where = unionDirectories(t, { lower: [LOWER, {}] })
  writeFileSync(`${where.top}/file`, '')
  refused(t, optionsOf(where, { lower: [`${where.top}/none`] }), 'lowerdir', 'ENOENT')
  refused(t, optionsOf(where, { upper: `${where.top}/file` }), 'upperdir', 'ENOTDIR')
  writeFileSync(`${where.work}/work`, 'in the way')
  refused(t, optionsOf(where), 'workdir', 'ENOTDIR')
  const other = unionDirectories(t, { lower: [LOWER] })
  writeFileSync(`${other.work}/index`, 'in the way')
  refused(t, optionsOf(other), 'workdir', 'ENOTDIR')
})

const NAMESPACE = ['--user', '--map-root-user', '--mount']
const noNamespace =
  spawnSync('unshare', [...NAMESPACE, 'true']).status !== 0 && 'needs a user namespace'

/** Root of the user namespace has no privilege over files of other users. */
t.test('an unprivileged user', { skip: noNamespace }, async t => {
  const where = unionDirectories(t, {
    lower: [
      {
        'd/': dir({ mode: 0o777 }),
        'd/own': 'own',
        f: file('foreign', { mode: 0o666 }),
        own: 'own',
      },
    ],
  })
  const [layer = ''] = where.lower
  const isRoot = process.geteuid?.() === 0
  if (isRoot) for (const name of ['d', 'f']) chownSync(`${layer}/${name}`, 1234, 1234)
  const script = fileURLToPath(new URL('../ordinary-user.ts', import.meta.url))
  const args = [...NAMESPACE, process.execPath, ...process.execArgv, script]
  await t.spawn('unshare', isRoot ? [...args, layer] : args, {}, 'in a namespace of their own')
})

const steps = async (fs: Fs): Promise<unknown[]> => [
  await fs.unlink('e'),
  await fs.unlink('d/b/c'),
  await fs.rename('d/b', 'b2'),
  await fs.rename('d/a', 'd/moved'),
  await fs.rename('d/s', 'd/moved'),
  await fs.create('e', 0o644),
  await fs.rename('e', 'e2/f'),
  await fs.write('h1', 'H'),
  await fs.rename('h1', 'd/a'),
  await fs.rename('x', 'e'),
  await fs.mkdir('x', 0o755),
  await fs.rename('x', 'd/b'),
  await fs.rename('e/y', 'd/b/y'),
  await fs.unlink('e2/f'),
  await fs.rmdir('e2'),
  await fs.list(''),
]

/**
 * The upper layer takes no device nodes: kernel overlayfs rejects device 0/0, RENAME_WHITEOUT and
 * file handles.
 */
t.test('an upper layer on overlayfs', { skip: skipParity }, async t => {
  const below = unionDirectories(t, { lower: [{}] })
  t.equal(mountKernel(below), 0)
  const lower = unionDirectories(t, { lower: [LOWER, { 'd/b/low': 'low', 'x/y': 'y' }] }).lower
  const where: UnionDirectories = {
    ...below,
    lower,
    upper: `${below.merged}/upper`,
    work: `${below.merged}/work`,
  }
  const plain = unionDirectories(t, { lower: [{}] })
  const options = { redirectDir: 'on', volatile: true, index: false } as const
  const reference = open(t, { ...optionsOf(plain, options), lower })
  const expected = await steps(reference)
  // Read only once: reading a symlink changes its access time here, but not on the kernel's mount
  // (noatime).
  const tree = await reference.tree()
  for (const form of ['auto', 'wh', 'xattr'] as const) {
    for (const path of [where.upper, where.work]) {
      removeTree(path)
      mkdirSync(path)
      build(path, {})
    }
    let union = open(t, optionsOf(where, { ...options, whiteout: form }))
    t.strictSame(await steps(union), expected, form)
    const now = BigInt(Date.now() - 60_000) * 1_000_000n
    t.strictSame(diffTrees(tree, await union.tree(), { now }), [])
    union.close()
    const names = [...readTree(where.upper, true).nodes.keys()]
    t.equal(names.includes('.wh.h1'), form === 'wh', names.join())
    clearVolatile(where)
    union = open(t, optionsOf(where, { ...options, whiteout: form }))
    t.strictSame(diffTrees(tree, await union.tree(), { now }), [], 'opened again')
    t.strictSame(union.loggedMessages, [])
    union.close()
  }
  reference.close()
})

t.test('xattr whiteouts and an opaque directory', async t => {
  const where = unionDirectories(t, {
    lower: [{ 'd/low': 'low', 'e/f': 'f', 'e/g/h': 'h' }],
    upper: { 'd/': opaque(), 'd/old': 'old', 'd/left': xattrWhiteout() },
  })
  const options = optionsOf(where, { whiteout: 'xattr', volatile: true, redirectDir: 'on' })
  let union = open(t, options)
  t.strictSame(await union.list('d'), ['old'], 'what a move that was cut short has left is hidden')
  t.equal(await union.rename('e/f', 'd/f'), 0)
  t.equal(await union.rename('e/g', 'd/left'), 0)
  t.equal(await union.create('f', 0o644), 0)
  t.equal(await union.rename('f', 'd/old'), 0)
  for (const when of ['now', 'after a remount']) {
    t.strictSame(await union.list('d'), ['f', 'left', 'old'], when)
    t.equal(await union.read('d/f'), 'f')
    t.equal(await union.read('d/left/h'), 'h')
    t.strictSame(await union.list('e'), [])
    t.strictSame(union.loggedMessages, [])
    union.close()
    clearVolatile(where)
    union = open(t, options)
  }
  t.equal(await union.unlink('d/f'), 0)
  t.equal(await union.unlink('d/old'), 0)
  t.equal(await union.rename('d/left', 'left'), 0)
  t.equal(await union.rmdir('d'), 0)
  t.strictSame(await union.list(''), ['e', 'left'])
})

t.test('a nested union: its overlay xattrs are kept apart', { skip: skipParity }, async t => {
  await compare(t, 'nested', { lower: [LOWER], memory: true }, async fs => [
    await fs.mkdir('upper', 0o755),
    await fs.setxattr('upper', 'trusted.overlay.opaque', 'y'),
    await fs.setxattr('upper', 'trusted.overlay.overlay.opaque', 'y'),
    await fs.listxattr('upper'),
    await fs.mknod('upper/w', sys.S.IFCHR, 0, 0),
  ])
})

t.test('two unions at once', async t => {
  const one = unionDirectories(t, { lower: [LOWER] })
  const two = { ...unionDirectories(t, { lower: [{}] }), lower: one.lower }
  const a = open(t, optionsOf(one, { volatile: true }))
  const b = open(t, optionsOf(two, { volatile: true }))
  t.equal(await a.write('e', 'A'), 1)
  t.equal(await b.write('e', 'B'), 1)
  t.strictSame([await a.read('e'), await b.read('e')], ['A', 'B'])
  t.equal(a.ops.wakeFd === b.ops.wakeFd, false)
})
