import { copyFileSync, lstatSync, renameSync, writeFileSync } from 'node:fs'

import t from 'tap'

import { DOT_DOT, sortByCookie, cookieOf } from '../../../../src/overlay/namei/dir-cache.js'
import type { Node } from '../../../../src/overlay/inode/node.js'
import { Entry, Pending } from '../../../../src/overlay/ops.js'
import { E } from '../../../../src/sys/errno.js'
import type { Ino } from '../../../../src/sys/stat.js'
import { ROOT, type Fs } from '../../../helpers/fs-calls.js'
import {
  device,
  dir,
  fifo,
  file,
  link,
  withOverlayXattrs,
  opaque,
  socket,
  symlink,
  unionDirectories,
  whiteout,
  type Layer,
} from '../../../helpers/layers.js'
import { compare, NOTHING_OPEN, skipParity } from '../../../helpers/parity.js'
import * as sys from '../../../helpers/syscalls.js'
import { pendingOf, skipUnions, stateOf } from '../support.js'
import { callerOf, open, optionsOf, readOnlyOptions, type UnionFs } from '../../../helpers/union.js'

/** The names that one call returns: at most `room` names after a cookie. */
const readSome = (
  union: UnionFs,
  directory: number,
  cookie: number,
  room = Infinity,
): { names: string[]; cookie: number } => {
  const names: string[] = []
  let last = cookie
  union.ops.readdir(directory, cookie, {
    add: (name, _ino, _type, next) => {
      if (names.length >= room) return false
      names.push(name)
      last = next
      return true
    },
  })
  return { names, cookie: last }
}

/** All names, read by calls that return `room` names each. */
const readAll = (union: UnionFs, directory: number, room: number): string[] => {
  const all: string[] = []
  for (let cookie = 0; ;) {
    const some = readSome(union, directory, cookie, room)
    if (some.names.length === 0) return all
    all.push(...some.names)
    cookie = some.cookie
  }
}

const LAYERS: { upper: Layer; lower: Layer[] } = {
  upper: { 'd/u': 'u', 'd/both': 'u', 'd/gone': whiteout, 'd/sub/x': 'x' },
  lower: [
    { 'd/both': 'l', 'd/gone': 'l', 'd/l': 'l', 'd/gone2': whiteout, 'd/sub/y': 'y' },
    { 'd/gone2': 'll', 'd/gone': 'll', 'd/ll': 'll', 'd/both': 'll' },
  ],
}
const NAMES = ['.', '..', 'both', 'l', 'll', 'sub', 'u']

t.test('names of all layers, each once, with reads of any size', async t => {
  const union = open(t, optionsOf(unionDirectories(t, LAYERS)))
  const d = union.id('d')
  for (const room of [1, 2, 3, 100]) {
    const names = readAll(union, d, room)
    t.strictSame(names.toSorted(), NAMES, `${room} at once`)
    t.strictSame(names.slice(0, 2), ['.', '..'])
  }
  const first = readSome(union, d, 0, 3)
  const rest = readSome(union, d, first.cookie)
  t.strictSame([...first.names, ...rest.names].toSorted(), NAMES)
  t.strictSame(readSome(union, d, first.cookie), rest, 'a cookie can be used again')
  t.strictSame(readSome(union, d, rest.cookie).names, [], 'nothing after the end')
  t.strictSame(readSome(union, d, 2 ** 31).names, [], 'nor far after it')
})

t.test('changes are visible after the next rewind', async t => {
  const where = unionDirectories(t, LAYERS)
  const union = open(t, optionsOf(where))
  union.warm = true
  const d = union.id('d')
  const first = readSome(union, d, 0, 4)
  t.equal(await union.create('d/new', 0o644), 0)
  t.equal(await union.unlink('d/l'), 0)
  t.equal(await union.unlink('d/both'), 0)
  t.equal(await union.rename('d/ll', 'd/renamed'), 0)
  const rest = readSome(union, d, first.cookie)
  t.strictSame(
    [...first.names, ...rest.names].toSorted(),
    NAMES,
    'a listing that has begun is not disturbed',
  )
  const now = ['.', '..', 'new', 'renamed', 'sub', 'u']
  t.strictSame(readAll(union, d, 100).toSorted(), now, 'rewound')
  writeFileSync(`${where.upper}/d/beneath`, '')
  t.ok(readSome(union, d, 0).names.includes('beneath'), 'also of the layers')
})

/** Names of a directory, for tests with a cookie of each of them. */
const NUMBERED = Array.from({ length: 500 }, (_, i) => `file-${i}`)

t.test('a cookie is valid for every reader, whatever happens in between', async t => {
  const layer: Layer = Object.fromEntries(NUMBERED.map(name => [`d/${name}`, '']))
  const where = unionDirectories(t, { upper: layer, lower: [{ 'd/file-7': 'l', 'other/': dir() }] })
  const union = open(t, optionsOf(where, { volatile: true }))
  const d = union.id('d')
  const whole = readAll(union, d, 1000)
  const first = readSome(union, d, 0, 102)
  for (const name of first.names.slice(2)) t.equal(await union.unlink(`d/${name}`), 0)
  t.equal(readAll(union, d, 1000).length, 2 + 400, 'someone else lists it, to its end')
  for (let i = 0; i < 100; i++) await union.create(`d/new-${i}`, 0o644)
  const rest = readAll(union, d, 50).filter(name => name.startsWith('file'))
  const seen = new Set(first.names)
  for (let cookie = first.cookie; ;) {
    const some = readSome(union, d, cookie, 33)
    if (some.names.length === 0) break
    for (const name of some.names) {
      if (seen.has(name)) t.fail(`${name} twice`)
      seen.add(name)
    }
    cookie = some.cookie
  }
  const missing = whole.filter(name => !seen.has(name))
  t.strictSame(missing, [], 'each name that stayed is seen once')
  t.strictSame(rest.length, 400)
})

t.test('listings that were not read to the end', async t => {
  const directories = Array.from({ length: 200 }, (_, i) => `d${i}`)
  const layer: Layer = {}
  for (const directory of directories)
    for (const name of ['a', 'b', 'c', 'd']) layer[`${directory}/${name}`] = ''
  const union = open(t, optionsOf(unionDirectories(t, { lower: [layer] })))
  const begun = directories.map(directory => ({
    id: union.id(directory),
    some: readSome(union, union.id(directory), 0, 3),
  }))
  for (const { id, some } of begun) {
    const names = [...some.names, ...readAll(union, id, 2)]
    t.strictSame(new Set(names), new Set(['.', '..', 'a', 'b', 'c', 'd']))
    t.strictSame(
      [...some.names, ...readSome(union, id, some.cookie).names].toSorted(),
      ['.', '..', 'a', 'b', 'c', 'd'],
      'also where the listing was dropped meanwhile',
    )
  }
})

/** Every kind of change that could affect an inode number or a type. */
const changes = async (fs: Fs): Promise<unknown> => [
  await fs.chmod('k/file', 0o600),
  await fs.chmod('k/dir', 0o700),
  await fs.chown('k/symlink', 1, 1),
  await fs.rename('k/fifo', 'k/fifo2'),
  await fs.rename('k/block', 'block'),
  await fs.write('k/h2', 'H'),
  await fs.create('k/new', 0o644),
  await fs.mkdir('k/newdir', 0o755),
  await fs.rename('k/file', 'k/newdir/file'),
  await fs.unlink('k/char'),
  await fs.mknod('k/char', sys.S.IFREG | 0o644),
]

t.test('types and numbers are those of lookup', { skip: skipParity }, async t => {
  const kinds: Layer = {
    'k/file': 'f',
    'k/dir/': dir(),
    'k/symlink': symlink('x'),
    'k/fifo': fifo(),
    'k/socket': socket(),
    'k/char': device('char', 1, 3),
    'k/block': device('block', 7, 7),
    'k/h1': 'h',
    'k/h2': link('k/h1'),
  }
  const scenes: Record<string, { upper?: Layer; lower: Layer[] }> = {
    lower: { lower: [kinds] },
    'two lower layers': { lower: [kinds, { 'k/more': 'm', 'k/dir/x': 'x' }] },
    merged: { upper: { 'k/u': 'u', 'k/dir/': dir() }, lower: [kinds] },
    upper: { upper: kinds, lower: [{}] },
    opaque: { upper: { 'k/': opaque(), ...kinds }, lower: [{ 'k/hidden': 'h' }] },
  }
  for (const [name, scene] of Object.entries(scenes))
    for (const warm of [true, false])
      await compare(t, `${name}, ${warm}`, { ...scene, warm, memory: true }, changes)

  const union = open(t, optionsOf(unionDirectories(t, { lower: [kinds, { 'k/more': 'm' }] })))
  const check = async (name: string): Promise<void> => {
    const tree = await union.tree()
    for (const node of tree.nodes.values()) {
      if (node.listedIno !== node.stat.ino) t.fail(`${name}: ${node.path}: d_ino`)
      if (node.path !== '.' && node.listedType !== node.stat.mode >> 12)
        t.fail(`${name}: ${node.path}: type ${node.listedType}`)
    }
  }
  await check('before')
  await changes(union)
  await check('after')
  union.warm = true
  await check('known')
})

t.test('. and ..', async t => {
  const union = open(t, optionsOf(unionDirectories(t, LAYERS)))
  const dots = (path: string): Ino[] => {
    const listing = union.listing(union.id(path))
    if (typeof listing === 'number') throw new Error(path)
    return listing.slice(0, 2).map(entry => entry.ino)
  }
  const ino = async (path: string): Promise<number> => {
    const stat = await union.stat(path)
    return typeof stat === 'number' ? stat : Number(stat.ino)
  }
  t.strictSame(dots(''), [await ino(''), await ino('')])
  t.strictSame(dots('d'), [await ino('d'), await ino('')])
  t.strictSame(dots('d/sub'), [await ino('d/sub'), await ino('d')])
})

t.test('readdirplus', async t => {
  const union = open(t, optionsOf(unionDirectories(t, LAYERS)))
  const d = union.id('d')
  const before = union.ops.counts().nodes
  interface Plus {
    name: string
    ino: Ino
    cookie: number
    id: number
    size: number
  }
  const read = (cookie: number, room: number): Plus[] => {
    const all: Plus[] = []
    union.ops.readdirplus(d, cookie, {
      room: () => all.length < room,
      add: (name, ino, _type, next, entry) =>
        void all.push({ name, ino, cookie: next, id: entry.nodeId, size: entry.attr.size }),
    })
    return all
  }
  const all = read(0, 100)
  t.strictSame(all.map(entry => entry.name).toSorted(), NAMES)
  t.ok(
    all.slice(0, 2).every(entry => entry.id === 0),
    'the dots are not looked up',
  )
  t.ok(all.slice(2).every(entry => entry.id > 0))
  t.equal(union.ops.counts().nodes, before + 5)
  for (const { name, id, ino } of all.slice(2)) {
    const entry = union.lookup(union.id('d'), name) as Entry
    t.equal(entry.nodeId, id, name)
    t.equal(entry.attr.ino, ino, name)
  }
  for (const { id } of all) if (id > 0) union.ops.forget(id, 1)
  const few = read(0, 3)
  t.equal(few.length, 3)
  t.equal(union.ops.counts().nodes, before + 5, 'what the lookups above still hold')
  t.equal(read(few[2]?.cookie ?? 0, 100).length, 4)
  union.forgetAll()
  for (const { id } of few) if (id > 0) union.ops.forget(id, 1)
  t.ok(union.ops.counts().nodes > 2, 'one lookup each for the last reading')

  union.warm = true
  const some: string[] = []
  union.ops.readdirplus(d, 0, { room: () => true, add: name => void some.push(name) })
  t.equal(await union.unlink('d/u'), 0)
  const vanished: number[] = []
  union.ops.readdirplus(d, 2, {
    room: () => true,
    add: (name, _ino, _type, _next, entry) => void (name === 'u' && vanished.push(entry.nodeId)),
  })
  t.strictSame(vanished, [0], 'a name that vanished has no attributes')
})

/** Directories and files that are listed but whose lookup fails. */
const BROKEN: Layer = {
  'd/good': 'g',
  'd/redirect/': withOverlayXattrs({ redirect: '../x' }),
  'd/metacopy': file('', { size: 100, xattrs: { 'trusted.overlay.metacopy': '' } }),
}
const byName = ([a]: [string, ...unknown[]], [b]: [string, ...unknown[]]): number =>
  a < b ? -1 : 1
const EINVAL = -22
const EIO = -5

t.test('names whose lookup fails', { skip: skipParity }, async t => {
  const impure: Layer = { 'd/': withOverlayXattrs({ impure: 'y' }), ...BROKEN }
  const scenes: Record<string, { upper?: Layer; lower: Layer[]; at: 'upper' | 'lower' }> = {
    'a lower directory': { lower: [BROKEN, {}], at: 'lower' },
    'an upper directory': { upper: BROKEN, lower: [{}], at: 'upper' },
    'an impure directory': { upper: impure, lower: [{}], at: 'upper' },
    'a merged directory': { upper: BROKEN, lower: [{ 'd/l': 'l' }], at: 'upper' },
    'an impure merged directory': { upper: impure, lower: [{ 'd/l': 'l' }], at: 'upper' },
    'two lower directories': { lower: [BROKEN, { 'd/l': 'l' }], at: 'lower' },
  }
  for (const [name, { at, ...scene }] of Object.entries(scenes)) {
    const where = unionDirectories(t, scene)
    const union = open(t, optionsOf(where))
    const layer = at === 'upper' ? where.upper : where.lower[0]
    const real = (entry: string): number => lstatSync(`${layer}/d/${entry}`).ino
    const expected = [
      ['good', real('good'), 8],
      ['metacopy', real('metacopy'), 8],
      ['redirect', real('redirect'), 4],
    ]
    t.equal(union.lookup(union.id('d'), 'redirect'), EINVAL, `${name}: it fails`)
    t.equal(union.lookup(union.id('d'), 'metacopy'), EIO, `${name}: it fails`)
    const listed: [string, Ino, number][] = []
    union.ops.readdir(union.id('d'), 2, {
      add: (entry, ino, type) => listed.push([entry, ino, type]) > 0,
    })
    const broken = listed.filter(([entry]) => entry !== 'l').toSorted(byName)
    t.strictSame(broken, expected, name)
    const plus: [string, Ino, number][] = []
    const nodes: number[] = []
    union.ops.readdirplus(union.id('d'), 2, {
      room: () => true,
      add: (entry, ino, type, _next, { nodeId }) => {
        plus.push([entry, ino, type])
        if (nodeId === 0) nodes.push(plus.length)
        else union.ops.forget(nodeId, 1)
      },
    })
    const seen = plus.filter(([entry]) => entry !== 'l').toSorted(byName)
    t.strictSame(seen, expected, `${name}, with attributes`)
    t.equal(nodes.length, 2, `${name}: there are none of what fails`)
  }
})

t.test('a file system without inode numbers in listings', async t => {
  const { u, ops, find } = stateOf(t, optionsOf(unionDirectories(t, { lower: [BROKEN, {}] })))
  const { id } = find('d')
  const names = ['good', 'redirect', 'gone']
  const entries = names.map(name => ({
    name,
    ino: 0,
    inoKnown: false,
    type: 0,
    layer: 1,
    cookie: cookieOf(name),
  }))
  u.dirCache.set(id, sortByCookie(entries))
  const listed = new Map<string, [Ino, number]>()
  ops.readdir(id, 2, { add: (name, ino, type) => listed.set(name, [ino, type]).size > 0 })
  t.strictSame(listed.get('good'), [find('d/good').ino, 8], 'lookup tells')
  t.strictSame(listed.get('redirect'), [0xffff_ffff, 0], 'any but 0, where it fails')
  t.notOk(listed.has('gone'), 'a name that is not there any more')
})

t.test('a lookup that has to wait', async t => {
  const { u, ops, find } = stateOf(t, optionsOf(unionDirectories(t, { lower: [BROKEN, {}] })))
  const directory = find('d')
  const good = find('d/good')
  const pending = new Pending(u.pool.submit({ kind: 'syncfs', fd: -1 }), true)
  const children = directory.children as Map<string, Node>
  const get = children.get.bind(children)
  let allowed = 0
  children.get = name => {
    if (allowed-- === 0) throw pending
    return get(name)
  }
  u.dirCache.set(directory.id, [
    { name: 'good', ino: 1, inoKnown: true, type: 8, layer: 1, cookie: 3 },
    { name: 'redirect', ino: 1, inoKnown: true, type: 4, layer: 1, cookie: 4 },
  ])
  const read = (): string[] => {
    const names: string[] = []
    ops.readdirplus(directory.id, 2, { room: () => true, add: name => void names.push(name) })
    return names
  }
  t.equal(pendingOf(read), pending, 'the first one is waited for')
  t.equal(good.lookups, 0)
  allowed = 1
  t.strictSame(read(), ['good'], 'what was found before is told')
  t.equal(good.lookups, 1, 'and counted once')
})

t.test('large directories', { skip: skipParity }, async t => {
  const layers: Layer[] = [{}, {}]
  for (let i = 0; i < 3000; i++) {
    const layer = layers[i % 2] as Layer
    layer[`d/${i}`] = ''
    if (i % 10 === 0) layers[0] = { ...layers[0], [`d/${i + 1}`]: whiteout }
  }
  const where = unionDirectories(t, { lower: layers })
  const union = open(t, optionsOf(where))
  const d = union.id('d')
  const names = readAll(union, d, 77)
  t.equal(names.length, 3002 - 300)
  t.equal(new Set(names).size, names.length)
  const readOnly = open(t, readOnlyOptions(where))
  t.equal((readOnly.listing(readOnly.id('d')) as unknown[]).length, 3002 - 300)
})

t.test('directories that cannot be listed', async t => {
  const union = open(t, optionsOf(unionDirectories(t, LAYERS)))
  const none = { add: () => false, room: () => false }
  for (const node of [union.id('d/u'), 999]) {
    t.equal(union.ops.readdir(node, 0, none), -20)
    t.equal(union.ops.readdirplus(node, 0, none), -20)
  }
  const id = union.id('d/sub')
  t.equal(await union.unlink('d/sub/x'), 0)
  t.equal(await union.unlink('d/sub/y'), 0)
  t.equal(await union.rmdir('d/sub'), 0)
  t.strictSame(readSome(union, id, 0).names, ['.', '..'])
  t.equal(union.ops.mkdir(callerOf(ROOT), id, 'x', 0o755, new Entry()), -2)
  union.forgetAll()
  t.strictSame(union.ops.counts(), NOTHING_OPEN)
})

t.test(
  'an object that was replaced after the listing is not reported',
  { skip: skipUnions },
  async t => {
    const where = unionDirectories(t, {
      lower: [{}],
      upper: {
        'd/': dir({ xattrs: { 'trusted.overlay.impure': 'y' } }),
        'd/f': 'f',
        'd/h': 'h',
        'd/k': link('d/h'),
        other: 'other',
      },
    })
    const { ops, find } = stateOf(t, optionsOf(where))
    const d = find('d')
    d.lookups++
    const entry = new Entry()
    for (const names of [['f'], ['h', 'k']]) {
      // The listing is created before the union knows a node of any name.
      t.equal(ops.readdir(d.id, 0, { add: name => name.startsWith('.') }), 0)
      for (const name of names) t.equal(ops.lookup(d.id, name, entry), 0)
      for (const name of names) {
        renameSync(`${where.upper}/d/${name}`, `${where.upper}/${name}.away`)
        copyFileSync(`${where.upper}/other`, `${where.upper}/d/${name}`)
      }
      t.equal(ops.readdir(d.id, DOT_DOT, { add: () => true }), 0)
      for (const name of names) {
        t.equal(ops.unlink(d.id, name), -E.ESTALE, name)
        t.equal(ops.lookup(d.id, name, entry), 0)
        t.equal(ops.unlink(d.id, name), 0, 'once it was told')
      }
    }
  },
)
