import { mkdirSync, readdirSync, statSync } from 'node:fs'

import t from 'tap'

import { Attr, type Opened } from '../../../../src/overlay/ops.js'
import { E } from '../../../../src/sys/errno.js'
import { ROOT, type Fs } from '../../../helpers/fs-calls.js'
import {
  dir,
  fifo,
  link,
  withOverlayXattrs,
  opaque,
  symlink,
  unionDirectories,
  whiteout,
  xattrWhiteout,
  type Layer,
  type Spec,
} from '../../../helpers/layers.js'
import { compare, NOTHING_OPEN, skipParity, withKernel } from '../../../helpers/parity.js'
import * as sys from '../../../helpers/syscalls.js'
import { diffTrees } from '../../../helpers/tree.js'
import { open, optionsOf, readOnlyOptions } from '../../../helpers/union.js'
import { skipUnions, stateOf } from '../support.js'

/** The objects to remove: paths below a name in each layer; '' is the name itself. */
interface Thing {
  upper?: Record<string, string | Spec>
  lower?: Record<string, string | Spec>
  lowest?: Record<string, string | Spec>
}

const THINGS: Record<string, Thing> = {
  nothing: {},
  'upper file': { upper: { '': 'u' } },
  'lower file': { lower: { '': 'l' } },
  'lowest file': { lowest: { '': 'll' } },
  'covering file': { upper: { '': 'u' }, lower: { '': 'l' } },
  'file over a whiteout': { upper: { '': 'u' }, lower: { '': whiteout }, lowest: { '': 'll' } },
  'file over a directory': { upper: { '': 'u' }, lower: { '/x': 'l' } },
  'upper symlink': { upper: { '': symlink('x') }, lower: { '': 'l' } },
  'lower symlink': { lower: { '': symlink('x') } },
  'lower fifo': { lower: { '': fifo() } },
  'deleted file': { upper: { '': whiteout }, lower: { '': 'l' } },
  'file deleted below': { lower: { '': whiteout }, lowest: { '': 'll' } },
  'empty upper directory': { upper: { '/': dir() } },
  'empty lower directory': { lower: { '/': dir() } },
  'empty merged directory': {
    upper: { '/': dir() },
    lower: { '/': dir() },
    lowest: { '/': dir() },
  },
  'empty opaque directory': { upper: { '/': opaque() }, lower: { '/x': 'x' } },
  'empty directory over a file': { upper: { '/': dir() }, lower: { '': 'l' } },
  'directory full of whiteouts': {
    upper: { '/x': whiteout, '/y': whiteout, '/z/': dir() },
    lower: { '/x': 'x', '/y/deep': 'y', '/z': whiteout },
  },
  'emptied directory': {
    upper: { '/x': whiteout, '/y': whiteout },
    lower: { '/x': 'x', '/y/deep': 'y' },
    lowest: { '/x': 'x', '/z': 'z' },
  },
  'really emptied directory': {
    upper: { '/x': whiteout, '/y': whiteout },
    lower: { '/x': 'x', '/y/deep': 'y' },
    lowest: { '/x': 'x' },
  },
  'lower directory emptied by a lower one': { lower: { '/x': whiteout }, lowest: { '/x': 'x' } },
  'full upper directory': { upper: { '/x': 'x' } },
  'full lower directory': { lower: { '/x': 'x' } },
  'full lowest directory': { upper: { '/': dir() }, lowest: { '/x': 'x' } },
}

const put = (to: Layer, path: string, things: Thing['upper']): void => {
  for (const [below, item] of Object.entries(things ?? {})) to[`${path}${below}`] = item
}

/** Calls after the removal, with the same name. */
const AFTER: Record<string, (fs: Fs, path: string) => unknown> = {
  nothing: () => 0,
  'a file': async (fs, path) => [await fs.create(path, 0o644), await fs.write(path, 'new')],
  'a directory': async (fs, path) => [await fs.mkdir(path, 0o755), await fs.list(path)],
  'a directory, removed too': async (fs, path) => [
    await fs.mkdir(path, 0o755),
    await fs.create(`${path}/x`, 0o644),
    await fs.unlink(`${path}/x`),
    await fs.rmdir(path),
  ],
  'something renamed': (fs, path) => fs.rename(`${path}.other`, path),
}

t.test('everything is removed from everywhere', { skip: skipParity }, async t => {
  const cases: { path: string; call: 'unlink' | 'rmdir'; after: string }[] = []
  const upper: Layer = {}
  const lower: Layer = {}
  const lowest: Layer = {}
  for (const [name, thing] of Object.entries(THINGS))
    for (const call of ['unlink', 'rmdir'] as const)
      for (const after of Object.keys(AFTER))
        for (const where of ['upper', 'lower', 'merged']) {
          if (where === 'upper' && (thing.lower ?? thing.lowest) !== undefined) continue
          if (where === 'lower' && thing.upper !== undefined) continue
          const directory = `${name}, ${call}, ${after}, ${where}`
          const path = `${directory}/it`
          if (where !== 'lower') upper[`${directory}/`] = dir()
          if (where !== 'upper') lower[`${directory}/`] = dir()
          put(upper, path, thing.upper)
          put(lower, path, thing.lower)
          put(lowest, path, thing.lowest)
          ;(where === 'upper' ? upper : lower)[`${path}.other`] = 'other'
          cases.push({ path, call, after })
        }
  const layers = { upper, lower: [lower, lowest] }
  for (const form of ['char', 'wh', 'xattr'] as const)
    for (const warm of form === 'char' ? [true, false] : [true]) {
      const scenario = {
        ...layers,
        warm,
        memory: true,
        options: { whiteout: form },
        otherForm: form !== 'char',
      }
      await compare(t, `${form}, ${warm ? 'known' : 'forgotten'}`, scenario, async fs => {
        const results: unknown[] = []
        for (const { path, call, after } of cases)
          results.push([path, await fs[call](path), await AFTER[after]?.(fs, path)])
        return results
      })
    }
})

t.test('directories with more names than fit into one read', { skip: skipParity }, async t => {
  const lower: Layer = {}
  for (let i = 0; i < 1500; i++) lower[`d/${'long name '.repeat(8)}${i}`] = ''
  for (const form of ['char', 'wh', 'xattr'] as const) {
    const scenario = {
      lower: [lower],
      memory: true,
      options: { whiteout: form },
      otherForm: form !== 'char',
    }
    await compare(t, form, scenario, async fs => {
      const names = (await fs.list('d')) as string[]
      for (const name of names.slice(1)) await fs.unlink(`d/${name}`)
      const results: unknown[] = [names.length, await fs.rmdir('d'), await fs.list('d')]
      results.push(await fs.unlink(`d/${names[0]}`), await fs.list('d'), await fs.rmdir('d'))
      results.push(await fs.list(''))
      return results
    })
  }
})

/** Removals of every kind that leaves a whiteout. */
const deletions = async (fs: Fs): Promise<void> => {
  await fs.unlink('d/a')
  await fs.unlink('d/b/c')
  await fs.rmdir('d/b')
  await fs.unlink('g')
  await fs.unlink('i/j')
  await fs.rmdir('i')
  await fs.mkdir('i', 0o755)
  await fs.unlink('k')
  await fs.rename('h', 'd/b')
  await fs.rename('d/e/f', 'd/a')
  await fs.rename('move', 'moved')
  await fs.rename('moved/m', 'm2')
}

t.test('deleted names are hidden as layers too', { skip: skipParity }, async t => {
  const lower: Layer = {
    'd/a': 'a',
    'd/b/c': 'c',
    'd/e/f': 'f',
    g: 'g',
    h: 'h',
    'i/j': 'j',
    k: symlink('g'),
    'move/m': 'm',
  }
  for (const form of ['char', 'xattr', 'wh'] as const) {
    const where = unionDirectories(t, { lower: [lower] })
    const options = { whiteout: form, redirectDir: 'on', volatile: true } as const
    const union = open(t, optionsOf(where, options))
    await deletions(union)
    const expected = await union.tree()
    t.strictSame(union.loggedMessages, [])
    union.close()

    const stacked = { ...where, lower: [where.upper, ...where.lower] }
    const now = BigInt(Date.now() - 60_000) * 1_000_000n
    const layered = open(t, readOnlyOptions(stacked))
    t.strictSame(diffTrees(expected, await layered.tree(), { now }), [], `${form}: a lower layer`)
    layered.close()
    if (form === 'wh') continue
    const lone = { ...stacked, upper: `${where.top}/none`, work: `${where.top}/none-work` }
    for (const path of [lone.upper, lone.work]) mkdirSync(path)
    const tree = await withKernel(lone, 'redirect_dir=on', kernel => kernel.tree())
    tree.nodes.delete('.')
    expected.nodes.delete('.')
    t.strictSame(diffTrees(expected, tree, { now }), [], `${form}: a lower layer of the kernel`)
  }
})

t.test('open files stay usable', async t => {
  const where = unionDirectories(t, {
    upper: { 'd/x': whiteout, 'd/u': 'upper', 'e/': dir() },
    lower: [{ 'd/x': 'x', 'd/l': 'lower', f: 'f' }],
  })
  const union = open(t, optionsOf(where, { volatile: true }))
  const files: Record<string, Opened> = {}
  for (const path of ['d/u', 'd/l', 'f'])
    files[path] = (await union.open(path, sys.O.RDONLY)) as Opened
  const written = (await union.open('f', sys.O.RDWR)) as Opened
  const ids = Object.fromEntries(['d', 'd/u', 'd/l', 'f'].map(path => [path, union.id(path)]))
  for (const path of ['d/u', 'd/l', 'f']) t.equal(await union.unlink(path), 0, path)
  t.equal(await union.rmdir('d'), 0)
  for (const [path, text] of [
    ['d/u', 'upper'],
    ['d/l', 'lower'],
    ['f', 'f'],
  ] as const) {
    const { fh } = files[path] as Opened
    t.equal(union.readAll(fh), text, path)
    const attr = new Attr()
    t.equal(union.ops.getattr(ids[path] as number, fh, attr), 0)
    t.equal(attr.nlink, 0)
    t.equal(attr.size, text.length)
  }
  t.equal(union.pwrite(written.fh, 'FF'), 2)
  t.equal(union.readAll((files['f'] as Opened).fh), 'FF')
  const attr = new Attr()
  t.equal(union.ops.getattr(ids['d'] as number, 0, attr), 0)
  t.equal(attr.nlink, 0)
  t.equal(await union.create('d', 0o600), 0)
  t.equal(await union.read('d'), '')
  for (const file of [...Object.values(files), written]) union.ops.release(file.fh)
  union.forgetAll()
  t.strictSame(union.ops.counts(), NOTHING_OPEN)
})

t.test('all whiteouts are links of one', async t => {
  const lower: Layer = {}
  for (let i = 0; i < 50; i++) lower[`f${i}`] = ''
  for (const form of ['char', 'xattr'] as const) {
    const where = unionDirectories(t, { lower: [lower] })
    const union = open(t, optionsOf(where, { whiteout: form, volatile: true }))
    for (let i = 0; i < 50; i++) t.equal(await union.unlink(`f${i}`), 0)
    const whiteouts = readdirSync(where.upper).map(name => statSync(`${where.upper}/${name}`))
    t.equal(whiteouts.length, 50)
    t.equal(new Set(whiteouts.map(stat => stat.ino)).size, 1, form)
    t.ok(whiteouts.every(stat => stat.nlink === 51 && stat.size === 0))
    t.ok(whiteouts.every(stat => stat.isCharacterDevice() === (form === 'char')))
    union.close()
    t.equal(statSync(`${where.upper}/f0`).nlink, 50, 'without the one in the workdir')
    t.strictSame(
      readdirSync(`${where.work}/work`).filter(name => name !== 'incompat'),
      [],
    )
  }
})

t.test('.wh. files of fuse-overlayfs do not come back', async t => {
  const where = unionDirectories(t, {
    upper: { '.wh.a': '', 'd/.wh.x': '', 'd/.wh..wh..opq': '', '.wh.gone': '' },
    lower: [{ a: 'a', 'd/x': 'x', 'd/y': 'y' }],
  })
  for (const form of ['wh', 'char'] as const) {
    let union = open(t, optionsOf(where, { whiteout: form, volatile: form === 'char' }))
    t.strictSame(await union.list(''), ['d'])
    t.equal(await union.create('a', 0o644, ROOT), 0)
    t.equal(await union.unlink('a'), 0)
    t.equal(await union.rmdir('d'), 0, 'a directory with nothing but marks is empty')
    t.equal(await union.mkdir('d', 0o755), 0)
    t.equal(await union.create('d/x', 0o644), 0)
    t.equal(await union.unlink('d/x'), 0)
    t.strictSame(await union.list(''), ['d'])
    union.close()
    if (form === 'char') break
    union = open(t, optionsOf(where))
    t.strictSame(await union.list(''), ['d'])
    t.strictSame(await union.list('d'), [])
    t.equal(await union.stat('a'), -E.ENOENT)
    union.close()
  }
})

t.test('xattr whiteouts of another union in the upper layer', async t => {
  const where = unionDirectories(t, {
    upper: {
      'd/': withOverlayXattrs({ opaque: 'x' }),
      'd/a': xattrWhiteout(),
      'd/b': xattrWhiteout(),
      'd/h': link('d/a'),
    },
    lower: [{ 'd/a': 'a', 'd/b/c': 'c', 'd/e': 'e', 'd/h': 'h' }],
  })
  const union = open(t, optionsOf(where, { redirectDir: 'on' }))
  t.strictSame(await union.list('d'), ['e'])
  t.equal(await union.rename('d/e', 'd/a'), 0)
  t.equal(await union.unlink('d/a'), 0)
  t.equal(await union.mkdir('d/b', 0o755), 0)
  t.strictSame(await union.list('d/b'), [])
  t.equal(await union.rmdir('d/b'), 0)
  t.equal(await union.rename('d', 'd2'), 0)
  t.strictSame(await union.list('d2'), [])
  t.equal(await union.rmdir('d2'), 0)
  union.close()
  const again = open(t, optionsOf(where, { redirectDir: 'on' }))
  t.strictSame(await again.list(''), [])
})

t.test(
  'a file whose directory can’t be opened stays, with the error of that',
  { skip: skipUnions },
  async t => {
    const upper = { 'd/f': 'f' }
    const { u, ops, find, close } = stateOf(
      t,
      optionsOf(unionDirectories(t, { lower: [{}], upper })),
    )
    const directory = find('d')
    const file = find('d/f')
    for (const node of [directory, file]) node.lookups++
    const get = u.fds.get.bind(u.fds)
    u.fds.get = real => (real === directory.upperDir && file.orphanFd >= 0 ? -E.EMFILE : get(real))
    t.equal(ops.unlink(directory.id, 'f'), -E.EMFILE)
    u.fds.get = get
    t.equal(file.orphanFd, -1, 'its descriptor is closed')
    t.equal(ops.unlink(directory.id, 'f'), 0)
    close()
  },
)
