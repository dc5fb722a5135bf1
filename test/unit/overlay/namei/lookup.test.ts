import { lstatSync, mkdirSync, renameSync, rmdirSync, writeFileSync } from 'node:fs'

import t, { type Test } from 'tap'

import { Entry, ROOT_ID } from '../../../../src/overlay/ops.js'
import { E } from '../../../../src/sys/errno.js'
import {
  build,
  dir,
  file,
  link,
  withOverlayXattrs,
  opaque,
  scratch,
  symlink,
  unionDirectories,
  whiteout,
  xattrWhiteout,
  type Layer,
  type Spec,
} from '../../../helpers/layers.js'
import { compare, NOTHING_OPEN, skipParity, withKernel } from '../../../helpers/parity.js'
import { diffTrees } from '../../../helpers/tree.js'
import {
  open,
  openFds,
  optionsOf,
  readOnlyOptions,
  leakedFds,
  type UnionFs,
} from '../../../helpers/union.js'
import { skipUnions, stateOf } from '../support.js'

/** The files that the union shows, with their content; an empty directory ends in `/`. */
const shown = async (union: UnionFs): Promise<Record<string, string>> => {
  const tree = await union.tree()
  const out: Record<string, string> = {}
  for (const [path, node] of tree.nodes) {
    if (path === '.') continue
    const below = [...tree.nodes.keys()].some(other => other.startsWith(`${path}/`))
    if ((node.stat.mode & 0o170000) === 0o100000) out[path] = String(await union.read(path))
    else if (!below) out[`${path}/`] = ''
  }
  if (tree.ghosts.length > 0) out['not found'] = tree.ghosts.join()
  return out
}

const WHITEOUT_XATTR = { xattrs: { 'trusted.overlay.whiteout': 'y' } }

const see = async (
  t: Test,
  name: string,
  layers: { lower: Layer[]; upper?: Layer },
  expected: Record<string, string>,
): Promise<void> => {
  const where = unionDirectories(t, layers)
  const union = open(t, optionsOf(where))
  t.strictSame(await shown(union), expected, name)
  t.strictSame(union.ops.counts(), NOTHING_OPEN, `${name}: nothing stays known`)
  union.close()
  if (layers.upper !== undefined) return
  const readOnly = open(t, readOnlyOptions(where))
  t.strictSame(await shown(readOnly), expected, `${name}, without an upper layer`)
  readOnly.close()
}

t.test('as the kernel sees it', { skip: skipParity }, async t => {
  const scenes: Record<string, { lower: Layer[]; upper?: Layer }> = {
    'whiteouts in all layers': {
      upper: { a: whiteout, 'd/x': whiteout, 'd/dir': whiteout },
      lower: [
        { a: 'a1', b: whiteout, 'd/y': whiteout, 'd/dir/f': 'f', e: 'e' },
        { a: 'a2', b: 'b2', 'd/x': 'x2', 'd/y': 'y2', 'd/z': 'z2', e: whiteout },
        { 'd/y': 'y3', 'd/dir/g': 'g' },
      ],
    },
    'opaque directories in all layers': {
      upper: { 'a/': opaque(), 'a/u': 'u', 'b/u': 'u' },
      lower: [
        { 'a/l1': '1', 'b/': opaque(), 'b/l1': '1', 'c/l1': '1', 'd/e/l1': '1' },
        { 'a/l2': '2', 'b/l2': '2', 'c/': opaque(), 'c/l2': '2', 'd/': opaque(), 'd/e/l2': '2' },
        { 'a/l3': '3', 'b/l3': '3', 'c/l3': '3', 'd/e/l3': '3', 'd/l3': '3' },
      ],
    },
    'types that change from layer to layer': {
      upper: { 'dir over file/f': 'f', 'file over dir': 'f' },
      lower: [
        {
          'dir over file': 'no',
          'file over dir/x': 'x',
          'a/f': 'f',
          b: symlink('a'),
          'between/f': '1',
        },
        { 'dir over file/x': 'hidden', a: 'a', 'b/x': 'x', between: 'a file' },
        { 'a/hidden': 'h', 'between/hidden': '3' },
      ],
    },
    'xattr whiteouts in lower directories': {
      lower: [
        {
          './': withOverlayXattrs({ opaque: 'x' }),
          gone: xattrWhiteout(),
          'd/': withOverlayXattrs({ opaque: 'x' }),
          'd/gone': xattrWhiteout(),
          'd/full': file('text', { xattrs: { 'trusted.overlay.whiteout': 'y' } }),
          'plain/f': 'f',
        },
        { gone: 'g', 'd/gone/x': 'x', 'd/full': 'lower', 'plain/f': 'l', 'd/stays': 's' },
      ],
    },
    'a whiteout that hides nothing': { lower: [{ 'a/f': 'f' }, { b: whiteout, 'b2/f': 'f' }] },
  }
  for (const [name, scene] of Object.entries(scenes)) {
    const tolerate = { tolerate: (d: { path: string }) => d.path === 'b' }
    await compare(t, name, { ...scene, memory: true, ...tolerate }, fs => fs.list(''))
  }
})

t.test('an xattr whiteout in an unmarked directory is not found', { skip: skipParity }, async t => {
  const lower: Layer[] = [
    { gone: xattrWhiteout(), 'd/gone': xattrWhiteout(), 'd/full': file('text', WHITEOUT_XATTR) },
    { gone: 'g', 'd/gone': 'g' },
  ]
  await compare(t, 'unmarked', { lower, memory: true, tolerate: () => true }, async fs => [
    await fs.read('gone'),
    await fs.read('d/gone'),
    await fs.read('d/full'),
    await fs.create('gone', 0o644),
    await fs.read('gone'),
  ])
})

t.test('other forms of whiteouts and opaque directories', async t => {
  const bottom: Layer = { gone: 'g', stays: 's', 'd/a': 'a', 'd/b': 'b', 'gone dir/f': 'f' }
  const expected = { stays: 's', 'd/b': 'b' }
  const below = { ...expected, 'd/b': 'b' }
  for (const layer of ['upper', 'lower'] as const) {
    const scene = (top: Layer): { lower: Layer[]; upper?: Layer } =>
      layer === 'upper' ? { upper: top, lower: [bottom] } : { lower: [top, bottom] }
    const see1 = (name: string, top: Layer, seen: Record<string, string>): Promise<void> =>
      see(t, `${layer}: ${name}`, scene(top), seen)
    await see1('char devices', { gone: whiteout, 'gone dir': whiteout, 'd/a': whiteout }, below)
    await see1('.wh.', { '.wh.gone': '', '.wh.gone dir': '', 'd/.wh.a': 'any content' }, below)
    await see1(
      '.wh..wh..opq',
      { 'd/.wh..wh..opq': '', 'd/new': 'n', '.wh.gone': '', '.wh.gone dir': '' },
      { stays: 's', 'd/new': 'n' },
    )
    await see1(
      '.wh..wh..opq in the layer itself',
      { '.wh..wh..opq': '', 'd/new': 'n' },
      { 'd/new': 'n' },
    )
    await see1(
      'an own name beside its .wh.',
      { '.wh.d': '', 'd/new': 'n', '.wh.stays': '', stays: 'new' },
      { gone: 'g', 'gone dir/f': 'f', 'd/new': 'n', stays: 'new' },
    )
    await see1(
      'xattr whiteouts',
      {
        './': withOverlayXattrs({ opaque: 'x' }),
        gone: xattrWhiteout(),
        'gone dir': xattrWhiteout(),
        'd/': withOverlayXattrs({ opaque: 'x' }),
        'd/a': xattrWhiteout(),
      },
      below,
    )
    await see1(
      'opaque as fuse-overlayfs 1 writes it',
      {
        // fuse-overlayfs also sets user.fuseoverlayfs.opaque, which any user can do.
        'd/': dir({ xattrs: { 'user.fuseoverlayfs.opaque': 'y' } }),
        'd/.wh..wh..opq': '',
        'd/new': 'n',
        '.wh.gone': '',
        '.wh.gone dir': '',
      },
      { stays: 's', 'd/new': 'n' },
    )
  }
  await see(
    t,
    'a user can mark nothing in a lower layer of a trusted union',
    {
      lower: [
        {
          'd/': opaque('user'),
          'd/new': 'n',
          'x/': withOverlayXattrs({ opaque: 'x' }, {}, 'user'),
          'x/gone': xattrWhiteout('user'),
          'moved/': withOverlayXattrs({ redirect: '/gone dir' }, {}, 'user'),
        },
        { ...bottom, 'x/gone': 'x', 'x/stays': 'x' },
      ],
    },
    {
      ...bottom,
      'd/new': 'n',
      'x/gone': '',
      // A user must not determine where objects come from.
      'moved/': '',
      'x/stays': 'x',
    },
  )
  await see(
    t,
    'a user can mark nothing in a trusted upper layer',
    { upper: { 'd/': opaque('user'), 'd/new': 'n' }, lower: [{ 'd/a': 'a' }] },
    { 'd/a': 'a', 'd/new': 'n' },
  )
  await see(
    t,
    'whiteouts in three layers',
    {
      upper: { '.wh.a': '' },
      lower: [
        { a: 'a', '.wh.b': '', 'd/.wh.x': '', '.wh.e': '', e: 'e' },
        { b: 'b', 'd/x': 'x', 'd/y': 'y', '.wh.c': '' },
        { c: 'c', 'd/x': 'x', e: 'no' },
      ],
    },
    { 'd/y': 'y', e: 'e' },
  )
})

t.test('names of whiteouts cannot be looked up', async t => {
  const where = unionDirectories(t, {
    upper: { '.wh.a': '', 'd/.wh..wh..opq': '' },
    lower: [{ a: 'a', '.wh.b': '', 'd/x': 'x' }],
  })
  const union = open(t, optionsOf(where))
  for (const path of ['.wh.a', '.wh.b', '.wh.', '.wh..wh..opq', 'd/.wh..wh..opq', 'd/.wh.x'])
    t.equal(await union.stat(path), -E.ENOENT, path)
  t.strictSame(await union.list(''), ['d'])
  t.strictSame(await union.list('d'), [])
})

t.test('many probes of a directory with and without .wh. marks', async t => {
  const lower: Layer = { 'plain/': dir(), 'marks/': dir() }
  const upper: Layer = {}
  for (let i = 0; i < 40; i++) {
    lower[`marks/f${i}`] = 'f'
    lower[`plain/f${i}`] = 'f'
    if (i % 2 === 0) upper[`marks/.wh.f${i}`] = ''
    upper[`plain/own${i}`] = 'o'
  }
  const where = unionDirectories(t, { upper, lower: [lower] })
  const union = open(t, optionsOf(where))
  for (let i = 0; i < 40; i++) {
    t.equal(await union.read(`marks/f${i}`), i % 2 === 0 ? -E.ENOENT : 'f')
    t.equal(await union.read(`plain/f${i}`), 'f')
    t.equal(await union.stat(`plain/none${i}`), -E.ENOENT)
  }
})

/** A directory with a redirect. */
const to = (redirect: string, more: Record<string, string> = {}): Spec =>
  withOverlayXattrs({ redirect, ...more })

/** A metadata-only copy of a file of four bytes. */
const meta = (more: Record<string, string> = {}): Spec =>
  file('', {
    size: 4,
    xattrs: {
      'trusted.overlay.metacopy': '',
      ...Object.fromEntries(Object.entries(more).map(([k, v]) => [`trusted.overlay.${k}`, v])),
    },
  })

t.test('redirects', { skip: skipParity }, async t => {
  const scenes: Record<string, { lower: Layer[]; upper?: Layer }> = {
    absolute: {
      upper: { 'new/': to('/a/b'), 'new/u': 'u', a: whiteout },
      lower: [{ 'a/b/f': 'f' }, { 'a/b/g': 'g', 'new/hidden': 'h' }],
    },
    relative: {
      upper: { 'd/new/': to('old'), 'd/new/u': 'u', 'd/old': whiteout },
      lower: [{ 'd/old/f': 'f', 'd/new/hidden': 'h' }, { 'd/old/g': 'g' }],
    },
    'chains over layers': {
      upper: { 'x/': to('/y'), 'x/u': 'u', 'r/': to('s'), y: whiteout, s: whiteout },
      lower: [
        { 'y/': to('/deep/z'), 'y/1': '1', 's/': to('q'), 's/1': '1' },
        { 'deep/z/': to('w'), 'deep/z/2': '2', 'y/no': 'n', 'q/2': '2', 's/no': 'no' },
        { 'deep/w/3': '3', 'deep/z/no': 'n', 'q/3': '3' },
      ],
    },
    'below a redirect': {
      upper: {
        'new/': to('/a'),
        'new/sub/': to('/a/other'),
        'new/sub/u': 'u',
        'new/other': whiteout,
        a: whiteout,
      },
      lower: [{ 'a/sub/no': 'n', 'a/other/f': 'f', 'a/x': 'x' }],
    },
    'in a lower layer': {
      lower: [{ 'new/': to('/old'), old: whiteout }, { 'old/f': 'f' }, { 'old/g': 'g' }],
    },
    'to nothing': { upper: { 'a/': to('/none'), 'b/': to('none') }, lower: [{ 'b/f': 'f' }] },
    'to a file': { upper: { 'a/': to('/f') }, lower: [{ f: 'f', 'a/x': 'x' }] },
    'through a whiteout': {
      upper: { 'a/': to('/old/sub') },
      lower: [{ old: whiteout }, { 'old/sub/f': 'f' }],
    },
    'through an opaque directory': {
      upper: { 'a/': to('/old/sub'), old: whiteout },
      lower: [{ 'old/': opaque(), 'old/sub/f': 'f' }, { 'old/sub/g': 'g' }],
    },
    'past an opaque directory by an absolute one': {
      upper: { 'a/': to('/x/m/e'), x: whiteout, old: whiteout, 'b/': to('/y/m/e'), y: whiteout },
      lower: [
        { 'x/': opaque(), 'x/m/': to('/old'), 'y/': opaque(), 'y/m/': to('name') },
        { 'old/e/f': 'f', 'x/m/e/no': 'no', 'y/name/e/no': 'no' },
      ],
    },
    'to an opaque directory': {
      upper: { 'a/': to('/old'), old: whiteout },
      lower: [{ 'old/': opaque(), 'old/f': 'f' }, { 'old/g': 'g' }],
    },
    'on an opaque directory': {
      upper: { 'a/': to('/old', { opaque: 'y' }), 'a/u': 'u', old: whiteout },
      lower: [{ 'old/f': 'f', 'a/g': 'g' }],
    },
    'exchanged names': {
      upper: { 'a/': to('b'), 'b/': to('a') },
      lower: [
        { 'a/in a': 'a', 'b/in b': 'b' },
        { 'a/too': 'a', 'b/too': 'b' },
      ],
    },
  }
  for (const [name, scene] of Object.entries(scenes))
    for (const redirectDir of ['on', 'follow', 'off'] as const) {
      const scenario = { ...scene, options: { redirectDir }, memory: true }
      await compare(t, `${name}, ${redirectDir}`, scenario, fs => fs.list(''))
    }

  await t.test('invalid redirects', async t => {
    const values = ['a/b', '/', '//a', '/a//b', '/a/', '..', '/..', '../../etc', '.', '/a/../b']
    const upper: Layer = {}
    const lower: Layer = { 'a/b/f': 'f', etc: 'etc' }
    for (const [i, value] of values.entries()) {
      upper[`directory${i}/`] = to(value)
      upper[`file${i}`] = meta({ redirect: value })
      lower[`file${i}`] = 'text'
      lower[`directory${i}/x`] = 'x'
    }
    const where = unionDirectories(t, { upper, lower: [lower] })
    const paths = Object.keys(upper).map(path => path.replace('/', ''))
    const expected = await withKernel(where, 'metacopy=on', fs =>
      paths.map(path => (typeof fs.stat(path) === 'number' ? 'refused' : 'there')),
    )
    const union = open(t, optionsOf(where))
    for (const [i, path] of paths.entries()) {
      const value = String(values[i >> 1])
      const stat = await union.stat(path)
      t.equal(typeof stat === 'number' ? 'refused' : 'there', expected[i], `${path} ${value}`)
    }
  })

  const where = unionDirectories(t, {
    upper: { 'new/': to('/a'), 'plain/f': 'f', 'rel/': to('a') },
    lower: [{ 'a/f': 'f', 'low/': to('/a') }, { 'a/g': 'g' }],
  })
  const names = ['new', 'plain', 'rel', 'low', 'a', 'new/f', 'low/g']
  const kernel = await withKernel(where, 'redirect_dir=nofollow', fs =>
    names.map(name => (typeof fs.stat(name) === 'number' ? fs.stat(name) : 'there')),
  )
  const union = open(t, optionsOf(where, { redirectDir: 'nofollow' }))
  const ours: unknown[] = []
  for (const name of names) {
    const stat = await union.stat(name)
    ours.push(typeof stat === 'number' ? stat : 'there')
  }
  t.strictSame(ours, kernel, 'nofollow refuses what would have to be followed')
})

t.test('metadata-only copies', { skip: skipParity }, async t => {
  const where = unionDirectories(t, {
    lower: [
      {
        f: 'the data',
        'd/g': file('more data', { mode: 0o640 }),
        big: file('', { pieces: [[1 << 20, 'far']] }),
        h1: 'linked',
        h2: link('h1'),
        empty: '',
        twice: 'twice',
        old: 'old',
      },
    ],
  })
  // Two layers of metadata-only copies made by the kernel.
  await withKernel(where, 'metacopy=on', fs => {
    t.equal(fs.chmod('f', 0o600), 0)
    t.equal(fs.rename('d/g', 'moved'), 0)
    t.equal(fs.chown('big', 1, 2), 0)
    t.equal(fs.chmod('twice', 0o604), 0)
    t.equal(fs.rename('old', 'd/new'), 0)
    t.equal(fs.setxattr('empty', 'user.x', 'x'), 0)
  })
  const second = { ...where, lower: [where.upper, ...where.lower], upper: `${where.top}/u2` }
  mkdirSync(second.upper)
  await withKernel(second, 'metacopy=on', fs => {
    t.equal(fs.chmod('twice', 0o400), 0)
    t.equal(fs.rename('moved', 'again'), 0)
    t.equal(fs.rename('d/new', 'newer'), 0)
  })
  const third = { ...second, lower: [second.upper, ...second.lower], upper: `${where.top}/u3` }
  mkdirSync(third.upper)

  const now = BigInt(Date.now() + 1e6) * 1_000_000n
  for (const [name, at] of Object.entries({ one: where, two: second, three: third })) {
    const expected = await withKernel(at, 'metacopy=on', fs => fs.tree())
    const union = open(t, optionsOf(at))
    t.strictSame(diffTrees(expected, await union.tree(), { now }), [], `${name} layers deep`)
    t.strictSame(union.ops.counts(), NOTHING_OPEN)
    union.close()
  }

  const union = open(t, optionsOf(third))
  t.equal(await union.write('again', 'NEW', 2), 3)
  t.equal(await union.read('again'), 'moNEWdata')
  t.equal(await union.truncate('twice', 3), 0)
  t.equal(await union.read('twice'), 'twi')
  t.equal(await union.chmod('newer', 0o777), 0)
  t.equal(await union.read('newer'), 'old')
  const stat = await union.stat('newer')
  t.equal(typeof stat === 'object' && stat.mode & 0o777, 0o777)
  t.equal(await union.rename('f', 'f2'), 0)
  t.equal(await union.read('f2'), 'the data')
  union.close()
  await withKernel(third, 'metacopy=on', fs => {
    t.equal(fs.read('again'), 'moNEWdata')
    t.equal(fs.read('twice'), 'twi')
    t.equal(fs.read('newer'), 'old')
    t.equal(fs.read('f2'), 'the data')
    t.equal(fs.stat('f'), -E.ENOENT)
  })

  // A metadata-only copy in the upper layer is completed by the first write.
  const own = open(t, optionsOf(where))
  const before = await own.stat('f')
  t.equal(await own.write('f', 'THE'), 3)
  t.equal(await own.read('f'), 'THE data')
  t.equal(await own.truncate('moved', 2), 0)
  t.equal(await own.read('moved'), 'mo')
  t.equal(await own.write('twice', 'again', 0, 0o1000), 5)
  t.equal(await own.read('twice'), 'again')
  t.equal(await own.rename('d/new', 'new2'), 0)
  t.equal(await own.read('new2'), 'old', 'a renamed one still finds its data')
  t.equal(await own.chmod('big', 0o640), 0)
  const after = await own.stat('f')
  t.ok(typeof before === 'object' && typeof after === 'object' && before.ino === after.ino)
  t.strictSame(await own.listxattr('f'), [], 'nothing of it shows')
  t.equal(await own.read('big'), '\0'.repeat(1 << 20) + 'far')
  own.close()
  const lone = { ...where, lower: [scratch(t)] }
  await withKernel(lone, 'metacopy=on', fs => {
    t.equal(fs.read('f'), 'THE data', 'it needs its lower layer no more')
    t.equal(fs.read('moved'), 'mo')
    t.equal(fs.read('twice'), 'again')
  })
})

t.test('a hard link whose other name has a metadata-only copy', { skip: skipParity }, async t => {
  const where = unionDirectories(t, {
    lower: [{ h1: file('linked', { mode: 0o644 }), 'd/h2': link('h1'), h3: link('h1') }],
  })
  await withKernel(where, 'metacopy=on,index=on', fs => {
    t.equal(fs.chmod('h1', 0o600), 0)
  })
  for (const first of ['d/h2', 'h1', 'h3']) {
    const union = open(t, optionsOf(where))
    for (const path of [first, 'h1', 'd/h2', 'h3']) {
      t.equal(await union.read(path), 'linked', `${path} after ${first}`)
      const stat = await union.stat(path)
      t.equal(typeof stat === 'object' && stat.mode & 0o777, 0o600)
    }
    union.close()
  }
  const union = open(t, optionsOf(where))
  t.equal(await union.write('d/h2', 'LI'), 2)
  t.equal(await union.read('h1'), 'LInked')
  union.close()
  await withKernel(where, 'metacopy=on,index=on', fs => {
    for (const path of ['h1', 'd/h2', 'h3']) t.equal(fs.read(path), 'LInked', path)
  })
})

t.test('a metadata-only copy without data', { skip: skipParity }, async t => {
  const layers = {
    upper: { none: meta(), 'to/none': meta({ redirect: '/gone' }), directory: meta() },
    lower: [{ 'directory/x': 'x' }],
  }
  const where = unionDirectories(t, layers)
  const paths = ['none', 'to/none', 'directory']
  const expected = await withKernel(where, 'metacopy=on', fs => paths.map(path => fs.stat(path)))
  const union = open(t, optionsOf(where))
  for (const [i, path] of paths.entries()) t.equal(await union.stat(path), expected[i], path)
})

t.test('500 lower layers', async t => {
  const top = scratch(t)
  const lower = Array.from({ length: 500 }, (_, i) => `${top}/${i}`)
  for (const [i, path] of lower.entries()) {
    mkdirSync(path)
    build(path, {
      'all/': dir({ mode: 0o700 + (i % 8) }),
      [`all/f${i}`]: String(i),
      top: String(i),
    })
  }
  build(lower[250] as string, { 'middle/f': 'm' })
  build(lower[499] as string, { 'bottom/f': 'b' })
  for (const name of ['upper', 'work']) mkdirSync(`${top}/${name}`)
  const before = openFds()
  const union = open(t, {
    ...optionsOf({ top, lower, upper: `${top}/upper`, work: `${top}/work`, merged: '' }),
  })
  const names = await union.list('all')
  t.equal(Array.isArray(names) && names.length, 500)
  for (const i of [0, 1, 249, 498, 499]) t.equal(await union.read(`all/f${i}`), String(i))
  t.equal(await union.read('top'), '0')
  t.equal(await union.read('bottom/f'), 'b')
  t.equal(await union.read('middle/f'), 'm')
  const stat = await union.stat('all')
  t.equal(typeof stat === 'object' && stat.mode & 0o777, 0o700, 'of the topmost')
  t.equal(await union.unlink('all/f499'), 0)
  t.equal(await union.write('all/f498', 'new', 0), 3)
  t.equal(await union.stat('all/f499'), -E.ENOENT)
  t.equal(await union.read('all/f498'), 'new')
  t.strictSame(union.ops.counts(), NOTHING_OPEN)
  union.close()
  t.strictSame(await leakedFds(before), [], 'all descriptors of all layers are closed')
})

t.test('names of any bytes', { skip: skipParity }, async t => {
  const names = ['\xff\xfe', 'a\nb', 'back\\slash', ' ', '-', '*', 'é', '.\x01', 'n'.repeat(255)]
  const long = 'l'.repeat(252)
  const lower: Layer = { [long]: 'long', './': dir() }
  for (const name of names) {
    lower[name] = `content of ${name}`
    lower[`in/${name}/f`] = 'f'
  }
  await compare(t, 'bytes', { lower: [lower] }, async fs => [
    await fs.list(''),
    await fs.read('\xff\xfe'),
    await fs.unlink('\xff\xfe'),
    await fs.write('a\nb', 'x'),
    await fs.rename('in/\xff\xfe', 'in/\xfd'),
    await fs.rename(' ', '\t'),
    await fs.unlink(long),
    await fs.unlink('n'.repeat(255)),
    await fs.stat('n'.repeat(256)),
    await fs.create('m'.repeat(256), 0o644),
    await fs.create(long, 0o644),
    await fs.mkdir('\xc3', 0o755),
    await fs.symlink('\xff\n', '\x80'),
    await fs.readlink('\x80'),
  ])
})

const ctimeOf = (path: string): bigint => lstatSync(path, { bigint: true }).ctimeNs

t.test('a merged directory gets its origin before its attributes are reported', async t => {
  if (skipUnions !== false) return t.comment(skipUnions)
  const where = unionDirectories(t, { upper: { 'd/e/': dir() }, lower: [{ 'd/e/': dir() }] })
  const { ops, notified } = stateOf(t, optionsOf(where))
  const told = (parent: number, name: string): [id: number, ctime: bigint] => {
    const out = new Entry()
    t.equal(ops.lookup(parent, name, out), 0)
    const { ctimeSec, ctimeNsec } = out.attr
    return [out.nodeId, BigInt(ctimeSec) * 1_000_000_000n + BigInt(ctimeNsec)]
  }
  const before = ctimeOf(`${where.upper}/d`)
  const [d, ctime] = told(ROOT_ID, 'd')
  t.not(ctime, before)
  t.equal(ctime, ctimeOf(`${where.upper}/d`))
  notified.length = 0
  t.equal(told(d, 'e')[1], ctimeOf(`${where.upper}/d/e`))
  t.strictSame(notified, [d], 'its mark changes the ctime of the one above')
})

t.test('changes in the layers are seen', async t => {
  const where = unionDirectories(t, { upper: { 'd/': dir() }, lower: [{ 'd/f': 'f', g: 'g' }] })
  const union = open(t, optionsOf(where))
  union.warm = true
  t.equal(await union.read('d/f'), 'f')
  t.equal(await union.stat('d/new'), -E.ENOENT)
  writeFileSync(`${where.upper}/d/new`, 'n')
  t.equal(await union.read('d/new'), 'n', 'a new file')
  build(where.upper, { g: whiteout })
  union.forgetAll()
  t.equal(await union.stat('g'), -E.ENOENT, 'a whiteout')
  const out = new Entry()
  t.equal(union.ops.lookup(12345, 'x', out), -E.ESTALE, 'a number that nobody got')
  t.equal(union.ops.lookup(ROOT_ID, 'g', out), 0)
  t.equal(out.nodeId, 0)
  t.equal(union.ops.lookup(ROOT_ID, 'x'.repeat(256), out), -E.ENAMETOOLONG)
})

t.test('a directory is not removed by a name that it has lost', { skip: skipUnions }, async t => {
  for (const keepsBirthTimes of [true, false]) {
    const where = unionDirectories(t, { lower: [{}], upper: { 'd/': dir() } })
    const { u, ops, find } = stateOf(t, optionsOf(where))
    Object.assign(u.upper!, { keepsBirthTimes })
    find('d').lookups++
    t.equal(find('d').isDir, true, 'its descriptor is open')
    renameSync(`${where.upper}/d`, `${where.upper}/away`)
    mkdirSync(`${where.upper}/d`)
    t.equal(ops.rmdir(1, 'd'), -E.ESTALE)
    rmdirSync(`${where.upper}/d`)
    renameSync(`${where.upper}/away`, `${where.upper}/d`)
    t.equal(ops.rmdir(1, 'd'), 0)
  }
})
