import type { NodeLink, NodeLinks } from '../../../../src/overlay/inode/node.js'
import { linkSync, mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs'

import * as fc from 'fast-check'
import t from 'tap'

import { findChild } from '../../../../src/overlay/namei/lookup.js'
import { Links } from '../../../../src/overlay/inode/links.js'
import { NodeTable } from '../../../../src/overlay/inode/nodes.js'
import { Node } from '../../../../src/overlay/inode/node.js'
import type { Opened } from '../../../../src/overlay/ops.js'
import { E } from '../../../../src/sys/errno.js'
import type { Fs } from '../../../helpers/fs-calls.js'
import {
  dir,
  fifo,
  file,
  link,
  symlink,
  unionDirectories,
  type Layer,
} from '../../../helpers/layers.js'
import {
  alternate,
  compare,
  NOTHING_OPEN,
  skipParity,
  withKernel,
  type Scenario,
} from '../../../helpers/parity.js'
import * as sys from '../../../helpers/syscalls.js'
import { open, optionsOf } from '../../../helpers/union.js'
import { stateOf } from '../support.js'

const LOWER: Layer = {
  'a/1': file('linked', { mode: 0o600 }),
  'a/2': link('a/1'),
  'b/3': link('a/1'),
  'b/': dir({ mode: 0o711 }),
  p: fifo(),
  'a/p': link('p'),
  s: symlink('target'),
  'b/s': link('s'),
  single: 'single',
}
const NAMES = ['a/1', 'a/2', 'b/3']

/** The result of `look` for all names after an `x` was written. */
const CHANGED = NAMES.map(() => [3, 6, 'xinked'])

/** The link count and the content of names. */
const look = async (fs: Fs, names: string[]): Promise<unknown[]> => {
  const out: unknown[] = []
  for (const name of names) {
    const stat = await fs.stat(name)
    if (typeof stat === 'number') out.push(stat)
    else if ((stat.mode & sys.S.IFMT) !== sys.S.IFREG) out.push([stat.nlink, stat.mode])
    else out.push([stat.nlink, stat.size, await fs.read(name)])
  }
  return out
}

/**
 * The kernel creates an upper link for every name that is written through. Here the index entry,
 * which leads to the same inode, is enough.
 */
const fewerNames = (d: { path: string; field: string; got: string }): boolean =>
  (/^(a|b)(\/\d)?$|^index\//.test(d.path) && ['xattrs', 'nlink'].includes(d.field)) ||
  (/^(a|b)\/\d$/.test(d.path) && ['there', 'same inode as'].includes(d.field))

const scenario = (more: Partial<Scenario> = {}): Scenario => ({
  lower: [LOWER],
  memory: true,
  ...more,
})

t.test('one inode through all its names', { skip: skipParity }, async t => {
  const sequences: Record<string, (fs: Fs) => unknown> = {
    'written through one': async fs => [
      await fs.write('a/2', 'LINK'),
      await look(fs, NAMES),
      await fs.chmod('a/p', 0o600),
      await fs.chown('b/s', 5, 5),
      await look(fs, ['p', 'a/p', 's', 'b/s', 'single']),
    ],
    'attributes of one': async fs => [
      await fs.chmod('b/3', 0o751),
      await fs.setxattr('b/3', 'user.x', 'x'),
      await fs.utimens('b/3', { sec: 1, nsec: 2 }, { sec: 3, nsec: 4 }),
      await fs.getxattr('b/3', 'user.x'),
    ],
    'one removed': async fs => [await fs.unlink('a/1'), await look(fs, NAMES)],
    'all removed': async fs => [
      await fs.unlink('a/1'),
      await fs.unlink('b/3'),
      await look(fs, NAMES),
      await fs.unlink('a/2'),
      await fs.unlink('p'),
      await fs.unlink('a/p'),
      await fs.unlink('s'),
      await fs.unlink('b/s'),
      await fs.list('a'),
    ],
    'written, then all removed': async fs => [
      await fs.write('a/1', 'x'),
      await fs.unlink('a/1'),
      await look(fs, NAMES),
      await fs.unlink('b/3'),
      await look(fs, NAMES),
      await fs.unlink('a/2'),
      await fs.create('a/1', 0o644),
      await look(fs, NAMES),
    ],
    'a further name': async fs => [
      await fs.link('a/1', 'b/4'),
      await look(fs, [...NAMES, 'b/4']),
      await fs.link('single', 'b/single'),
      await fs.write('b/single', 'x'),
      await look(fs, ['single', 'b/single']),
      await fs.unlink('single'),
      await look(fs, ['single', 'b/single']),
      await fs.unlink('a/1'),
      await look(fs, [...NAMES, 'b/4']),
      await fs.link('b/4', 'a/1'),
      await look(fs, [...NAMES, 'b/4']),
    ],
    'names moved': async fs => [
      await fs.rename('a/1', 'b/new'),
      await look(fs, ['a/1', 'a/2', 'b/3', 'b/new']),
      await fs.rename('b/new', 'a/1'),
      await look(fs, NAMES),
      await fs.rename('a/1', 'b/4'),
      await fs.rename('b/4', 'single'),
      await look(fs, ['a/2', 'b/3', 'single']),
    ],
    'exchanged with another': async fs => [
      await fs.rename('a/1', 'single', sys.RENAME.EXCHANGE),
      await look(fs, [...NAMES, 'single']),
      await fs.unlink('single'),
      await look(fs, [...NAMES, 'single']),
    ],
    'new files with several names': async fs => [
      await fs.create('a/new', 0o644),
      await fs.link('a/new', 'b/new'),
      await fs.link('b/new', 'new'),
      await fs.write('new', 'new'),
      await look(fs, ['a/new', 'b/new', 'new']),
      await fs.unlink('a/new'),
      await fs.rename('b/new', 'new'),
      await look(fs, ['a/new', 'b/new', 'new']),
      await fs.unlink('new'),
      await look(fs, ['a/new', 'b/new', 'new']),
    ],
  }
  for (const [name, steps] of Object.entries(sequences))
    for (const warm of [true, false])
      await compare(
        t,
        `${name}${warm ? '' : ', forgotten between'}`,
        scenario({ warm, onDisk: fewerNames }),
        steps,
      )
  await compare(t, 'on disk', scenario({ memory: false, options: { volatile: false } }), fs =>
    fs.write('a/2', 'LINK'),
  )
})

t.test('names in several layers', { skip: skipParity }, async t => {
  const lower: Layer[] = [
    { 'a/1': 'upper of two', 'a/2': link('a/1'), 'c/x': 'x', 'c/y': link('c/x') },
    { 'a/1': 'lower of two', 'a/3': link('a/1'), 'c/y': 'hidden', 'c/z': link('c/y') },
  ]
  const upper: Layer = { 'u/1': 'upper', 'u/2': link('u/1'), 'a/9': 'nine', 'a/8': link('a/9') }
  const all = ['a/1', 'a/2', 'a/3', 'c/x', 'c/y', 'c/z', 'u/1', 'u/2', 'a/8', 'a/9']
  for (const warm of [true, false])
    await compare(t, `layers ${warm}`, { lower, upper, warm, memory: true }, async fs => [
      await look(fs, all),
      await fs.write('a/3', 'A3'),
      await fs.write('c/z', 'CZ'),
      await fs.write('u/2', 'U2'),
      await fs.write('a/8', 'A8'),
      await look(fs, all),
      await fs.unlink('a/3'),
      await fs.unlink('u/1'),
      await fs.unlink('a/9'),
      await look(fs, all),
    ])
})

t.test('a name in a directory that cannot be copied up', { skip: skipParity }, async t => {
  const where = unionDirectories(t, { lower: [LOWER] })
  // A value that the kernel neither reads nor copies.
  sys.setxattr(
    { path: `${where.lower[0]}/a`, follow: false },
    'security.capability',
    Buffer.alloc(0),
    0,
  )
  const union = open(t, optionsOf(where))
  t.equal(await union.chmod('a', 0o700), -E.EINVAL)
  t.strictSame(await look(union, NAMES), [
    [3, 6, 'linked'],
    [3, 6, 'linked'],
    [3, 6, 'linked'],
  ])
  t.equal(await union.write('b/3', 'x'), 1, 'the others take the change')
  t.strictSame(await look(union, NAMES), CHANGED)
  t.equal(await union.unlink('b/3'), 0)
  t.strictSame(await look(union, ['a/1', 'a/2']), [
    [2, 6, 'xinked'],
    [2, 6, 'xinked'],
  ])
  union.close()
})

t.test('over remounts by either', { skip: skipParity }, async t => {
  const all = [...NAMES, 'b/4', 'single', 's2']
  const steps: ((fs: Fs) => unknown)[] = [
    fs => look(fs, all),
    fs => fs.write('a/1', 'one'),
    fs => look(fs, all),
    fs => fs.write('b/3', 'three'),
    fs => fs.link('a/2', 'b/4'),
    fs => look(fs, all),
    fs => fs.unlink('a/1'),
    fs => look(fs, all),
    fs => fs.rename('a/2', 'single'),
    fs => fs.write('single', 'S'),
    fs => look(fs, all),
    fs => fs.unlink('b/3'),
    fs => fs.unlink('single'),
    fs => look(fs, all),
    fs => fs.unlink('b/4'),
    fs => look(fs, all),
    fs => fs.rename('b/s', 's2'),
    fs => fs.unlink('s'),
    fs => fs.unlink('p'),
    fs => fs.unlink('a/p'),
  ]
  await alternate(t, 'links', scenario({ onDisk: fewerNames }), steps)
  // With the roles exchanged: each side does the other's steps.
  await alternate(t, 'links, shifted', scenario({ onDisk: fewerNames }), steps.slice(1))
})

t.test('the index goes with the last name', { skip: skipParity }, async t => {
  const where = unionDirectories(t, { lower: [LOWER] })
  const index = (): string[] => readdirSync(`${where.work}/index`)
  let union = open(t, optionsOf(where))
  t.equal(await union.write('a/1', 'x'), 1)
  t.equal(index().length, 1)
  t.equal(await union.unlink('a/1'), 0)
  t.equal(await union.unlink('a/2'), 0)
  t.equal(index().length, 1)
  union.close()
  union = open(t, optionsOf(where))
  t.strictSame(await look(union, NAMES), [-2, -2, [1, 6, 'xinked']])
  t.equal(await union.unlink('b/3'), 0)
  t.strictSame(index(), [])
  union.close()

  union = open(t, optionsOf(where))
  t.equal(await union.chmod('p', 0o600), 0)
  t.equal(index().length, 1)
  t.equal(await union.rename('single', 'p'), 0)
  t.equal(index().length, 1)
  t.equal(await union.rename('p', 'a/p'), 0)
  t.strictSame(index(), [], 'by renames over it')
  union.close()
})

t.test('open while its names go', async t => {
  const where = unionDirectories(t, { lower: [LOWER] })
  const union = open(t, optionsOf(where))
  const reader = (await union.open('a/1', sys.O.RDONLY)) as Opened
  const writer = (await union.open('b/3', sys.O.RDWR)) as Opened
  for (const name of NAMES) t.equal(await union.unlink(name), 0)
  t.strictSame(readdirSync(`${where.work}/index`), [])
  t.equal(union.pwrite(writer.fh, 'still'), 5)
  t.equal(union.readAll(reader.fh), 'stilld')
  union.ops.release(reader.fh)
  union.ops.release(writer.fh)
  t.strictSame(union.ops.counts(), NOTHING_OPEN)
})

t.test('a crash between the index and the name', { skip: skipParity }, async t => {
  const where = unionDirectories(t, { lower: [LOWER] })
  let union = open(t, optionsOf(where))
  t.equal(await union.write('a/1', 'x'), 1)
  union.close()
  // As after a crash before the name was created: only the index has the inode.
  const [key] = readdirSync(`${where.work}/index`)
  sys.unlinkat(sys.AT_FDCWD, `${where.upper}/a/1`, 0)
  union = open(t, optionsOf(where))
  t.equal(await union.read('a/2'), 'xinked', 'the others still lead to it')
  t.equal(await union.write('b/3', 'y'), 1)
  union.close()
  t.equal(readFileSync(`${where.work}/index/${key}`, 'latin1'), 'yinked')
  const kernel = await withKernel(where, 'index=on', fs => look(fs, NAMES))
  union = open(t, optionsOf(where))
  t.strictSame(await look(union, NAMES), kernel)
})

t.test('an index entry that nothing leads to', { skip: skipParity }, async t => {
  const where = unionDirectories(t, { lower: [LOWER] })
  let union = open(t, optionsOf(where))
  t.equal(await union.write('a/1', 'x'), 1)
  union.close()
  const [key = ''] = readdirSync(`${where.work}/index`)
  sys.unlinkat(sys.AT_FDCWD, `${where.upper}/a/1`, 0)
  const entry = { path: `${where.work}/index/${key}`, follow: false }
  sys.setxattr(entry, 'trusted.overlay.nlink', Buffer.from('U-1'), 0)
  union = open(t, optionsOf(where))
  t.strictSame(readdirSync(`${where.work}/index`), [], 'is removed')
  t.strictSame(await look(union, ['a/1']), [[3, 6, 'linked']])
})

t.test('without an index every known name follows', async t => {
  const where = unionDirectories(t, { lower: [LOWER] })
  let union = open(t, optionsOf(where, { index: false }))
  for (const name of NAMES) union.id(name)
  t.equal(await union.write('a/1', 'x'), 1)
  t.strictSame(await look(union, NAMES), CHANGED)
  t.equal(statSync(`${where.upper}/b/3`).nlink, 3)
  t.notOk(readdirSync(where.work).includes('index'))
  union.close()
  union = open(t, optionsOf(where, { index: false }))
  t.strictSame(await look(union, NAMES), CHANGED, 'after a remount too')
  t.equal(await union.unlink('a/2'), 0)
  t.strictSame(await look(union, NAMES), [[2, 6, 'xinked'], -2, [2, 6, 'xinked']])
})

t.test('without an index other names keep the lower file', { skip: skipParity }, async t => {
  const scene = { lower: [LOWER] }
  const change = async (fs: Fs): Promise<unknown[]> => {
    const seen: unknown[] = [await fs.write('a/1', 'x')]
    seen.push(await look(fs, NAMES), await fs.write('b/3', 'y'), await look(fs, NAMES))
    seen.push(await fs.unlink('a/2'), await look(fs, NAMES), await fs.unlink('p'))
    seen.push(await look(fs, ['a/p']), await fs.unlink('a/p'), await look(fs, NAMES))
    const numbers = new Set<bigint>()
    for (const name of ['a/1', 'b/3', 'single']) {
      const stat = await fs.stat(name)
      if (typeof stat !== 'number') numbers.add(stat.ino)
    }
    return [...seen, numbers.size, await fs.list('a'), await fs.list('b')]
  }
  const where = unionDirectories(t, scene)
  const union = open(t, optionsOf(where, { index: false }))
  const ours = await change(union)
  union.close()
  const again = open(t, optionsOf(where, { index: false }))
  t.strictSame(await look(again, NAMES), [[1, 6, 'xinked'], -2, [1, 6, 'yinked']], 'remounted')
  again.close()
  const theirs = unionDirectories(t, scene)
  t.strictSame(ours, await withKernel(theirs, 'index=off', change))
})

t.test('the lower layers on another file system', { skip: skipParity }, async t => {
  const where = unionDirectories(t, { lower: [LOWER] })
  const memory = `${where.top}/memory`
  mkdirSync(memory)
  t.equal(sys.mount('none', memory, 'tmpfs', 0, ''), 0)
  for (const name of ['upper', 'work']) mkdirSync(`${memory}/${name}`)
  const at = { ...where, upper: `${memory}/upper`, work: `${memory}/work` }
  let union = open(t, optionsOf(at))
  const before = await union.tree()
  t.equal(await union.write('a/1', 'x'), 1)
  t.equal(await union.chmod('single', 0o600), 0)
  t.equal(await union.chmod('b', 0o700), 0)
  t.strictSame(await look(union, NAMES), CHANGED)
  const inos = (tree: typeof before): [string, bigint, bigint][] =>
    [...tree.nodes.values()].map(node => [node.path, node.stat.ino, node.listedIno])
  const after = await union.tree()
  t.strictSame(inos(after), inos(before), 'numbers stay over copy-up')
  const numbers = new Set([...after.nodes.values()].map(node => node.stat.ino))
  t.equal(numbers.size, after.nodes.size - 4, 'and are different ones')
  t.equal(await union.create('new', 0o600), 0)
  union.close()
  union = open(t, optionsOf(at))
  t.strictSame(
    inos(await union.tree()).filter(([path]) => path !== 'new'),
    inos(before),
    'and over a remount',
  )
  t.strictSame(await look(union, NAMES), CHANGED)
  union.close()
  const kernel = await withKernel(at, 'index=on', fs => look(fs, NAMES))
  t.strictSame(kernel, CHANGED)
})

t.test('the names of a file are those added and not removed', async t => {
  const directories = [1, 2, 3].map(id => new Node(id, sys.S.IFDIR, id))
  const step = fc.record({
    what: fc.constantFrom('add', 'add', 'add', 'remove', 'up', 'prefer'),
    directory: fc.nat(2),
    name: fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f', 'g'),
    upper: fc.boolean(),
  })
  const property = fc.property(fc.array(step, { maxLength: 80 }), steps => {
    const links = new Links<Node>()
    const model = new Map<string, boolean>()
    for (const { what, directory, name, upper } of steps) {
      const parent = directories[directory] as Node
      const key = `${parent.id}/${name}`
      const one = links.get(parent, name)
      if ((one === undefined) === model.has(key)) return false
      if (one !== undefined && one.inUpper !== model.get(key)) return false
      const others = [...model].some(([other, up]) => up && other !== key)
      if (links.hasOtherInUpper(parent, name) !== others) return false
      if (what === 'add') {
        links.add(parent, name, upper)
        if (!model.has(key)) model.set(key, upper)
      } else if (what === 'remove') {
        links.remove(parent, name)
        model.delete(key)
      } else if (one !== undefined && what === 'up') {
        links.setInUpper(one)
        model.set(key, true)
        if (links.first !== one) {
          if (links.first?.inUpper !== true) return false
        }
      } else if (one !== undefined) {
        links.prefer(one)
        if (links.first !== one && (links.first?.inUpper !== true || one.inUpper)) return false
      }
      const all: NodeLink[] = [...links]
      if (all.length !== model.size || links.size !== model.size) return false
      const lower = all.findIndex(each => !each.inUpper)
      if (lower >= 0 && all.slice(lower).some(each => each.inUpper)) return false
      if (links.first !== (all[0] ?? null)) return false
    }
    return true
  })
  t.doesNotThrow(() => fc.assert(property))
})

/** Counts the steps from a name of a file to the next name. */
const countSteps = (links: NodeLinks): { steps: number } => {
  const counter = { steps: 0 }
  for (const one of Array.from(links)) {
    let { after } = one
    Object.defineProperty(one, 'after', {
      get() {
        counter.steps++
        return after
      },
      set(value: NodeLink | null) {
        after = value
      },
    })
  }
  return counter
}

t.test('no operation on a name iterates over the others', async t => {
  const names = Array.from({ length: 20_000 }, (_, i) => `n${i}`)
  const nodes = new NodeTable(1, [])
  const node = nodes.create(sys.S.IFREG, 2)
  nodes.registerUpper(node, 2)
  const { root } = nodes
  for (const [i, name] of names.entries()) nodes.addName(node, root, name, i % 2 === 0)
  if (node.links === null) throw new Error('no names')
  const { links } = node
  const counter = countSteps(links)
  for (const name of names) {
    nodes.addName(node, root, name, true)
    links.hasOtherInUpper(root, name)
    const one = links.get(root, name)
    if (one !== undefined) links.setInUpper(one)
  }
  for (const name of names) nodes.removeName(node, root, name)
  t.equal(node.parent, null, 'none is left')
  t.ok(counter.steps < 20 * names.length, `${counter.steps} steps`)
})

t.test('looking up and removing the names of a file', { skip: skipParity }, async t => {
  const names = Array.from({ length: 2_000 }, (_, i) => `n${i}`)
  for (const at of ['upper', 'lower'] as const) {
    const where = unionDirectories(t, {
      upper: at === 'upper' ? { f: 'x' } : {},
      lower: [at === 'upper' ? {} : { f: 'x' }],
    })
    const layer = at === 'upper' ? where.upper : where.lower[0]
    for (const name of names) linkSync(`${layer}/f`, `${layer}/${name}`)
    const { u, ops, find } = stateOf(t, optionsOf(where, { volatile: true }))
    const node = find('f')
    // The node keeps its lookup count for the whole test.
    node.lookups++
    const lookUp = (): void => {
      for (const name of names) if (findChild(u, u.nodes.root, name) !== node) t.fail(name)
    }
    lookUp()
    if (node.links === null) throw new Error('no names')
    const counter = countSteps(node.links)
    lookUp()
    const known = u.nodes.root.children as Map<string, Node>
    for (const name of names) known.delete(name)
    lookUp()
    t.equal(node.links.size, names.length + 1)
    t.ok(counter.steps < 20 * names.length, `${at}: ${counter.steps} steps`)
    // The first removal copies the lower file up, with all known names.
    t.equal(ops.unlink(1, 'n0'), 0)
    counter.steps = 0
    for (const name of names.slice(1)) t.equal(ops.unlink(1, name), 0)
    t.ok(counter.steps < 20 * names.length, `${at}: ${counter.steps} steps`)
    t.equal(node.links.size, 1)
  }
})
