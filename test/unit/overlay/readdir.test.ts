import { writeFileSync } from 'node:fs'

import t from 'tap'

import { Entry, Opened, ROOT_ID } from '../../../src/overlay/ops.js'
import type { Ino } from '../../../src/sys/stat.js'
import { ROOT, type Fs } from '../../helpers/fs-calls.js'
import {
  device,
  dir,
  fifo,
  link,
  opaque,
  socket,
  symlink,
  unionFolders,
  whiteout,
  type Layer,
} from '../../helpers/layers.js'
import { compare, NOTHING_OPEN, skipParity } from '../../helpers/parity.js'
import * as sys from '../../helpers/syscalls.js'
import { callerOf, open, optionsOf, readOnlyOptions, type UnionFs } from '../../helpers/union.js'

/** Names that one reading gives, at most `room` of them from a cookie on. */
const readSome = (
  union: UnionFs,
  fh: number,
  cookie: number,
  room = Infinity,
): { names: string[]; cookie: number } => {
  const names: string[] = []
  let last = cookie
  union.ops.readdir(fh, cookie, {
    add: (name, _ino, _type, next) => {
      if (names.length >= room) return false
      names.push(name)
      last = next
      return true
    },
  })
  return { names, cookie: last }
}

const openFolder = (union: UnionFs, path: string): Opened => {
  const opened = new Opened()
  union.ops.opendir(union.id(path), opened)
  return opened
}

/** Everything through readings of `room` names. */
const readAll = (union: UnionFs, fh: number, room: number): string[] => {
  const all: string[] = []
  for (let cookie = 0; ;) {
    const some = readSome(union, fh, cookie, room)
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

t.test('names of all layers, each once, in readings of any size', async t => {
  const union = open(t, optionsOf(unionFolders(t, LAYERS)))
  const { fh } = openFolder(union, 'd')
  for (const room of [1, 2, 3, 100]) {
    const names = readAll(union, fh, room)
    t.strictSame(names.toSorted(), NAMES, `${room} at once`)
    t.strictSame(names.slice(0, 2), ['.', '..'])
  }
  const first = readSome(union, fh, 0, 3)
  const rest = readSome(union, fh, first.cookie)
  t.strictSame([...first.names, ...rest.names].toSorted(), NAMES)
  t.strictSame(readSome(union, fh, first.cookie), rest, 'a cookie can be used again')
  t.strictSame(readSome(union, fh, rest.cookie).names, [], 'nothing after the end')
  t.strictSame(readSome(union, fh, 1_000_000).names, [], 'nor far after it')
  union.ops.releasedir(fh)
})

t.test('changes show from the next start on', async t => {
  const where = unionFolders(t, LAYERS)
  const union = open(t, optionsOf(where))
  const { fh } = openFolder(union, 'd')
  const first = readSome(union, fh, 0, 4)
  t.equal(await union.create('d/new', 0o644), 0)
  t.equal(await union.unlink('d/l'), 0)
  t.equal(await union.unlink('d/both'), 0)
  t.equal(await union.rename('d/ll', 'd/renamed'), 0)
  const rest = readSome(union, fh, first.cookie)
  t.strictSame(
    [...first.names, ...rest.names].toSorted(),
    NAMES,
    'a listing that has begun is not disturbed',
  )
  t.strictSame(
    readSome(union, fh, 0).names.toSorted(),
    ['.', '..', 'new', 'renamed', 'sub', 'u'],
    'rewound',
  )
  const again = openFolder(union, 'd')
  t.strictSame(readSome(union, again.fh, 5).names.length, 1, 'a start in the middle')
  writeFileSync(`${where.upper}/d/beneath`, '')
  t.ok(readSome(union, again.fh, 0).names.includes('beneath'), 'also of the layers')
  union.ops.releasedir(fh)
  union.ops.releasedir(again.fh)
})

t.test('what is told of an unchanged folder', async t => {
  const where = unionFolders(t, LAYERS)
  const union = open(t, optionsOf(where, { redirectDir: 'on', volatile: true }))
  union.warm = true
  const unchanged = (): boolean => {
    const opened = openFolder(union, 'd')
    union.ops.releasedir(opened.fh)
    return opened.unchanged
  }
  t.notOk(unchanged(), 'nobody has read it before')
  t.ok(unchanged())
  const changes: Record<string, () => unknown> = {
    create: () => union.create('d/new', 0o644),
    mkdir: () => union.mkdir('d/dir', 0o755),
    symlink: () => union.symlink('x', 'd/symlink'),
    link: () => union.link('d/new', 'd/link'),
    unlink: () => union.unlink('d/new'),
    'unlink of a lower one': () => union.unlink('d/l'),
    rmdir: () => union.rmdir('d/dir'),
    'rename in it': () => union.rename('d/link', 'd/link2'),
    'rename out of it': () => union.rename('d/link2', 'link2'),
    'rename into it': () => union.rename('link2', 'd/link3'),
    exchange: () => union.rename('d/link3', 'd/sub', sys.RENAME.EXCHANGE),
  }
  for (const [name, change] of Object.entries(changes)) {
    t.equal(await change(), 0, name)
    t.notOk(unchanged(), name)
    t.ok(unchanged())
  }
  t.equal(await union.write('d/u', 'text'), 4)
  t.ok(unchanged(), 'what is in its files is no matter')
})

/** Some of everything that could change a number or a type. */
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

  const union = open(t, optionsOf(unionFolders(t, { lower: [kinds, { 'k/more': 'm' }] })))
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
  const union = open(t, optionsOf(unionFolders(t, LAYERS)))
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
  const union = open(t, optionsOf(unionFolders(t, LAYERS)))
  const { fh } = openFolder(union, 'd')
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
    union.ops.readdirplus(fh, cookie, {
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

  const gone = openFolder(union, 'd')
  const some: string[] = []
  union.ops.readdirplus(gone.fh, 0, { room: () => true, add: name => void some.push(name) })
  t.equal(await union.unlink('d/u'), 0)
  const vanished: number[] = []
  union.ops.readdirplus(gone.fh, 2, {
    room: () => true,
    add: (name, _ino, _type, _next, entry) => void (name === 'u' && vanished.push(entry.nodeId)),
  })
  t.strictSame(vanished, [0], 'a name that vanished has no attributes')
})

t.test('large folders', { skip: skipParity }, async t => {
  const layers: Layer[] = [{}, {}]
  for (let i = 0; i < 3000; i++) {
    const layer = layers[i % 2] as Layer
    layer[`d/${i}`] = ''
    if (i % 10 === 0) layers[0] = { ...layers[0], [`d/${i + 1}`]: whiteout }
  }
  const where = unionFolders(t, { lower: layers })
  const union = open(t, optionsOf(where))
  const { fh } = openFolder(union, 'd')
  const names = readAll(union, fh, 77)
  t.equal(names.length, 3002 - 300)
  t.equal(new Set(names).size, names.length)
  union.ops.releasedir(fh)
  const readOnly = open(t, readOnlyOptions(where))
  t.equal((readOnly.listing(readOnly.id('d')) as unknown[]).length, 3002 - 300)
})

t.test('folders that cannot be listed', async t => {
  const union = open(t, optionsOf(unionFolders(t, LAYERS)))
  const opened = new Opened()
  t.equal(union.ops.opendir(union.id('d/u'), opened), -20)
  t.equal(union.ops.opendir(999, opened), -20)
  const id = union.id('d/sub')
  t.equal(union.ops.opendir(id, opened), 0)
  t.equal(await union.unlink('d/sub/x'), 0)
  t.equal(await union.unlink('d/sub/y'), 0)
  t.equal(await union.rmdir('d/sub'), 0)
  t.strictSame(readSome(union, opened.fh, 0).names, ['.', '..'])
  t.equal(union.ops.mkdir(callerOf(ROOT), id, 'x', 0o755, new Entry()), -2)
  union.ops.releasedir(opened.fh)
  union.forgetAll()
  t.strictSame(union.ops.counts(), NOTHING_OPEN)
  t.equal(union.ops.opendir(ROOT_ID, opened), 0)
  union.ops.releasedir(opened.fh)
})
