import { mkdirSync, renameSync, rmdirSync, statSync, symlinkSync } from 'node:fs'

import t from 'tap'

import { DirectoryFds, Layer as RealLayer, RealDir } from '../../../../src/overlay/layer/layer.js'
import { NodeTable } from '../../../../src/overlay/inode/nodes.js'
import type { Node } from '../../../../src/overlay/inode/node.js'
import { Entry, Opened, ROOT_ID } from '../../../../src/overlay/ops.js'
import { E } from '../../../../src/sys/errno.js'
import { getrlimitNofile, setrlimitNofile } from '../../../../src/sys/proc.js'
import {
  dir,
  link,
  scratch,
  symlink,
  unionDirectories,
  whiteout,
  type Layer,
} from '../../../helpers/layers.js'
import { NOTHING_OPEN } from '../../../helpers/parity.js'
import * as sys from '../../../helpers/syscalls.js'
import { callerOf, open, openFds, optionsOf, leakedFds } from '../../../helpers/union.js'
import { ROOT } from '../../../helpers/fs-calls.js'

const LOWER: Layer = {
  'a/b/c/f': 'f',
  'a/b/g': 'g',
  'a/h1': 'h',
  'a/h2': link('a/h1'),
  'b/h3': link('a/h1'),
  s: symlink('x'),
}

t.test('forget', async t => {
  await t.test('a node lives as long as its lookups and its children', async t => {
    const union = open(t, optionsOf(unionDirectories(t, { lower: [LOWER] })))
    const { ops } = union
    const count = (): number => ops.counts().nodes
    const a = union.lookup(ROOT_ID, 'a') as Entry
    union.lookup(ROOT_ID, 'a')
    const b = union.lookup(a.nodeId, 'b') as Entry
    const g = union.lookup(b.nodeId, 'g') as Entry
    t.equal(count(), 4)
    ops.forget(a.nodeId, 2)
    ops.forget(b.nodeId, 1)
    t.equal(count(), 4, 'parents are kept by their children')
    ops.forget(g.nodeId, 1)
    t.equal(count(), 1, 'and go with the last of them')
    t.equal(ops.getattr(g.nodeId, 0, g.attr), -E.ESTALE)
    const again = union.lookup(ROOT_ID, 'a') as Entry
    t.not(again.nodeId, a.nodeId, 'a number is never used twice')
    t.equal(again.attr.ino, a.attr.ino)
    ops.forget(again.nodeId, 100)
    ops.forget(again.nodeId, 1)
    ops.forget(4711, 1)
    t.equal(count(), 1, 'too many are no harm')
    ops.forget(ROOT_ID, 100)
    t.equal(count(), 1, 'the root stays')
    t.type(union.lookup(ROOT_ID, 's'), Entry)
  })

  await t.test('a directory that is forgotten has no descriptor open', async t => {
    const union = open(t, optionsOf(unionDirectories(t, { lower: [LOWER], upper: { a: dir() } })))
    const { ops } = union
    const before = openFds()
    const a = union.lookup(ROOT_ID, 'a') as Entry
    const b = union.lookup(a.nodeId, 'b') as Entry
    const g = union.lookup(b.nodeId, 'g') as Entry
    t.ok(openFds().length > before.length)
    for (const { nodeId } of [g, a, b]) ops.forget(nodeId, 1)
    t.strictSame(openFds(), before)
  })

  await t.test('open files are kept', async t => {
    const union = open(t, optionsOf(unionDirectories(t, { lower: [LOWER] })))
    const { ops } = union
    const file = (await union.open('a/b/g', sys.O.RDONLY)) as Opened
    union.id('a/b/c')
    union.forgetAll()
    t.strictSame(ops.counts(), { nodes: 4, files: 1, jobs: 0 })
    t.equal(union.readAll(file.fh), 'g')
    ops.release(file.fh)
    ops.release(file.fh)
    t.strictSame(ops.counts(), NOTHING_OPEN)
    t.equal(ops.read(file.fh, Buffer.alloc(1), 0, 1, 0), -E.EBADF)
    t.equal(ops.fsync(file.fh, false), -E.EBADF)
    t.equal(ops.lseek(file.fh, 0, 3), -E.EBADF)
    t.equal(ops.fallocate(file.fh, 0, 0, 1), -E.EBADF)
    t.equal(ops.copyFileRange(file.fh, 0, file.fh, 0, 1, 0), -E.EBADF)
  })

  await t.test('all names of a file are one node', async t => {
    const union = open(t, optionsOf(unionDirectories(t, { lower: [LOWER] })))
    const ids = ['a/h1', 'a/h2', 'b/h3'].map(path => union.id(path))
    t.equal(new Set(ids).size, 1)
    t.equal(union.ops.counts().nodes, 4, 'the root, two directories, one file')
    union.forgetAll()
    t.strictSame(union.ops.counts(), NOTHING_OPEN)
    t.equal(await union.write('b/h3', 'H'), 1)
    t.equal(await union.read('a/h1'), 'H')
    t.equal(union.id('a/h2'), union.id('b/h3'), 'in the upper layer too')
    union.forgetAll()
    t.strictSame(union.ops.counts(), NOTHING_OPEN)
  })

  await t.test(
    'unlinked nodes answer until they are forgotten, and leave no descriptor',
    async t => {
      const where = unionDirectories(t, {
        lower: [LOWER],
        upper: { u: 'upper', 'dir/x': whiteout },
      })
      const before = openFds()
      const union = open(t, optionsOf(where, { volatile: true }))
      const opened = openFds()
      const ids = ['a/b/g', 'a/h1', 'u', 'dir', 's'].map(path => union.id(path))
      t.equal(await union.write('a/b/g', 'G'), 1)
      for (const path of ['a/b/g', 'a/h1', 'u', 's']) t.equal(await union.unlink(path), 0, path)
      t.equal(await union.rmdir('dir'), 0)
      const out = new Entry()
      for (const [i, nlink] of [0, 2, 0, 0, 0].entries()) {
        t.equal(union.ops.getattr(ids[i] as number, 0, out.attr), 0)
        t.equal(out.attr.nlink, nlink)
      }
      t.equal(union.ops.lookup(ids[3] as number, 'x', out), 0)
      t.equal(out.nodeId, 0, 'a removed directory has nothing in it')
      const names: string[] = []
      union.ops.readdir(ids[3] as number, 0, { add: name => names.push(name) > 0 })
      t.strictSame(names, ['.', '..'])
      t.equal(union.ops.mkdir(callerOf(ROOT), ids[3] as number, 'y', 0o755, out), -E.ENOENT)
      union.forgetAll()
      t.strictSame(union.ops.counts(), NOTHING_OPEN)
      const directories = openFds().filter(target => target.startsWith(where.top))
      const had = opened.filter(target => target.startsWith(where.top))
      const deleted = directories.filter(target => target.endsWith('(deleted)'))
      t.strictSame(deleted, [])
      t.ok(directories.length >= had.length)
      union.close()
      t.strictSame(await leakedFds(before), [])
    },
  )

  await t.test('close with everything open', async t => {
    const where = unionDirectories(t, { lower: [LOWER], upper: { u: 'upper' } })
    const before = openFds()
    const union = open(t, optionsOf(where))
    for (const path of ['a/b/c/f', 'u', 'a/h2']) await union.open(path, sys.O.RDWR)
    await union.open('b/h3', sys.O.RDONLY)
    union.id('s')
    t.equal(await union.unlink('u'), 0)
    union.close()
    t.strictSame(await leakedFds(before), [])
  })
})

t.test('a tiny cache of directory descriptors', async t => {
  const lower: Layer[] = [{}, {}]
  const upper: Layer = {}
  for (let i = 0; i < 30; i++) {
    const path = `x${i % 3}/y${i % 5}/z${i}/w`
    lower[0] = { ...lower[0], [`${path}/one`]: `${i}` }
    lower[1] = { ...lower[1], [`${path}/two`]: `${i}` }
    if (i % 2 === 0) upper[`${path}/up`] = `${i}`
  }
  const where = unionDirectories(t, { lower, upper })
  const before = openFds()
  const union = open(t, optionsOf(where, { redirectDir: 'on' }), { maxDirectoryFds: 8 })
  const opened = openFds().length
  union.warm = true
  for (let round = 0; round < 2; round++)
    for (let i = 0; i < 30; i++) {
      const path = `x${i % 3}/y${i % 5}/z${i}/w`
      t.equal(await union.read(`${path}/one`), `${i}`)
      t.equal(await union.read(`${path}/two`), `${i}`)
    }
  t.ok(openFds().length <= opened + 8)
  for (let i = 0; i < 30; i++) {
    const path = `x${i % 3}/y${i % 5}/z${i}/w`
    t.equal(await union.write(`${path}/two`, 'new'), 3)
    t.equal(await union.unlink(`${path}/one`), 0)
    t.equal(await union.rename(`${path}/two`, `x0/moved${i}`), 0)
    t.equal(await union.create(`${path}/made`, 0o644), 0)
  }
  t.equal(await union.rename('x1', 'x0/x1'), 0)
  t.equal(await union.rename('x0', 'y'), 0)
  for (let i = 0; i < 30; i++) {
    const directory = ['y', 'y/x1', 'x2'][i % 3]
    const path = `${directory}/y${i % 5}/z${i}/w`
    t.strictSame(await union.list(path), i % 2 === 0 ? ['made', 'up'] : ['made'])
    t.match(await union.read(`y/moved${i}`), /^new/)
  }
  const threads = /^(pipe:|anon_inode:\[event)/
  t.ok(openFds().filter(target => !threads.test(target)).length <= opened + 8)
  union.forgetAll()
  t.strictSame(union.ops.counts(), NOTHING_OPEN)
  t.strictSame(union.loggedMessages, [])
  union.close()
  t.strictSame(await leakedFds(before), [])
})

const longName = (i: number): string => String(i).padEnd(200, i % 2 === 0 ? 'x' : 'y')

t.test('trees deeper than PATH_MAX', async t => {
  const where = unionDirectories(t, { lower: [{}, {}] })
  const depth = 60
  /** Creates a chain of directories in a layer, with a file at its end. */
  const deep = (top: string): void => {
    let fd = sys.open(top, sys.O.RDONLY | sys.O.DIRECTORY)
    for (let i = 0; i < depth; i++) {
      sys.mkdirat(fd, longName(i), 0o700)
      const next = sys.openat(fd, longName(i), sys.O.RDONLY | sys.O.DIRECTORY)
      sys.close(fd)
      fd = next
    }
    const file = sys.openat(fd, 'file', sys.O.CREAT | sys.O.WRONLY, 0o600)
    sys.write(file, Buffer.from('deep'))
    sys.close(file)
    sys.close(fd)
  }
  for (const top of where.lower) deep(top)
  const before = openFds()
  const names = Array.from({ length: depth }, (_, i) => longName(i))
  const path = names.join('/')
  t.ok(path.length > 12_000)
  for (const most of [8, 4096]) {
    const union = open(t, optionsOf(where, { redirectDir: 'on' }), { maxDirectoryFds: most })
    t.equal(await union.read(`${path}/file`), 'deep')
    t.equal(await union.write(`${path}/file`, 'DEEP'), 4, 'copied up with all its directories')
    t.equal(await union.create(`${path}/new`, 0o600), 0)
    t.equal(await union.mkdir(`${path}/dir`, 0o700), 0)
    t.equal(await union.rename(`${path}/new`, `${names[0]}/new`), 0)
    t.equal(await union.rename(`${names[0]}/new`, `${path}/dir/new`), 0)
    t.strictSame(await union.list(path), ['dir', 'file'])
    union.warm = true
    t.equal(await union.read(`${path}/file`), 'DEEP')
    t.equal(await union.unlink(`${path}/dir/new`), 0)
    t.equal(await union.rmdir(`${path}/dir`), 0)
    t.equal(await union.unlink(`${path}/file`), 0)
    for (let i = depth; i > 0; i--) t.equal(await union.rmdir(names.slice(0, i).join('/')), 0)
    t.strictSame(await union.list(''), [])
    union.forgetAll()
    t.strictSame(union.ops.counts(), NOTHING_OPEN)
    t.strictSame(union.loggedMessages, [])
    union.close()
    t.strictSame(await leakedFds(before), [])
    t.equal(
      sys.unlinkat(sys.AT_FDCWD, `${where.upper}/${longName(0)}`, 0),
      0,
      'one whiteout is left',
    )
  }
})

const inoOfFd = (fd: number): bigint => {
  const stat = sys.fstat(fd)
  return typeof stat === 'number' ? 0n : stat.ino
}

t.test('descriptors of layer directories', async t => {
  const top = scratch(t)
  const fd = sys.open(top, sys.O.RDONLY | sys.O.DIRECTORY)
  t.teardown(() => sys.close(fd))
  const layer = new RealLayer({
    index: 1,
    path: top,
    fd,
    dev: 0,
    fsIndex: 0,
    uuid: Buffer.alloc(16),
    handles: true,
    isPrivate: false,
  })
  const make = (parent: RealDir, name: string): RealDir => {
    const chain: string[] = []
    for (let at: RealDir | null = parent; at !== null && at.parent !== null; at = at.parent)
      chain.unshift(at.name)
    mkdirSync([top, ...chain, name].join('/'))
    return new RealDir(layer, parent, name)
  }
  const before = openFds()
  const fds = new DirectoryFds(1)
  const inoOf = (path: string): bigint => BigInt(statSync(`${top}/${path}`).ino)
  t.equal(fds.get(layer.root), fd)
  const directories = Array.from({ length: 12 }, (_, i) => make(layer.root, `d${i}`))
  const sub = make(directories[0] as RealDir, 'sub')
  for (const [i, directory] of directories.entries())
    t.equal(inoOfFd(fds.get(directory)), inoOf(`d${i}`))
  t.equal(openFds().length, before.length + 8, 'never more than eight, never fewer at most')
  t.equal(fds.get(directories[11] as RealDir), fds.get(directories[11] as RealDir))

  renameSync(`${top}/d0`, `${top}/d0moved`)
  t.equal(fds.get(sub), -E.ENOENT, 'it cannot be found under its old name')
  ;(directories[0] as RealDir).name = 'd0moved'
  t.equal(inoOfFd(fds.get(sub)), inoOf('d0moved/sub'), 'but under the new name')

  const one = directories[1] as RealDir
  fds.drop(one)
  renameSync(`${top}/d1`, `${top}/away`)
  symlinkSync('away', `${top}/d1`)
  t.ok([-E.ELOOP, -E.ENOTDIR].includes(fds.get(one)), 'no symlink is followed')
  one.name = '..'
  t.equal(fds.get(one), -E.EXDEV, 'no way leads out of the layer')

  const two = directories[2] as RealDir
  const held = fds.get(two)
  t.equal(fds.detach(two), held)
  t.equal(fds.detach(two), -1)
  rmdirSync(`${top}/d2`)
  t.not(inoOfFd(held), 0n, 'taken descriptors stay open')
  t.equal(fds.get(two), -E.ENOENT)
  fds.adopt(two, held)
  t.equal(fds.get(two), held)
  two.parent = null
  fds.drop(two)
  t.equal(fds.get(two), -E.ENOENT, 'a removed directory')

  for (const directory of directories.slice(3)) fds.get(directory)
  fds.shrink()
  t.equal(openFds().length, before.length + 4)
  fds.closeAll()
  t.strictSame(openFds(), before)
})

t.test('a process without free descriptors closes directories', async t => {
  const lower: Layer = {}
  for (let i = 0; i < 60; i++) lower[`d${i}/f`] = `${i}`
  const union = open(t, optionsOf(unionDirectories(t, { lower: [lower] })), {
    maxDirectoryFds: 100,
  })
  union.warm = true
  for (let i = 0; i < 60; i++) union.id(`d${i}/f`)
  const limit = getrlimitNofile()
  const highest = sys.openat(sys.AT_FDCWD, '/', sys.O.RDONLY)
  sys.close(highest)
  t.teardown(() => setrlimitNofile(limit))
  t.equal(setrlimitNofile(highest), 0)
  const opened: (Opened | number)[] = []
  for (let i = 0; i < 20; i++) opened.push(await union.open(`d${i}/f`, sys.O.RDONLY))
  const removed = await union.unlink('d30/f')
  setrlimitNofile(limit)
  t.equal(removed, 0)
  for (const [i, file] of opened.entries()) {
    if (typeof file === 'number') t.fail(`d${i}/f: errno ${-file}`)
    else {
      t.equal(union.readAll(file.fh), `${i}`)
      union.ops.release(file.fh)
    }
  }
  union.forgetAll()
  t.strictSame(union.ops.counts(), NOTHING_OPEN)
})

t.test('no operation leaves anything open', async t => {
  const where = unionDirectories(t, {
    lower: [LOWER, { 'a/b/low': 'low', 'd/e/f': 'f' }],
    upper: { 'a/u': 'u', 'd/x': whiteout, 'p/q/': dir() },
  })
  const before = openFds()
  const union = open(t, optionsOf(where, { redirectDir: 'on', volatile: true }), {
    maxDirectoryFds: 8,
  })
  // A reproducible pseudo-random sequence. The names are few, so that they are often used again.
  let seed = 42
  const random = (n: number): number => {
    seed = (seed + 0x6d2b79f5) | 0
    let x = Math.imul(seed ^ (seed >>> 15), 1 | seed)
    x = (x + Math.imul(x ^ (x >>> 7), 61 | x)) ^ x
    return ((x ^ (x >>> 14)) >>> 0) % n
  }
  const names = ['a', 'b', 'd', 'p', 'x', 'h1', 's']
  const path = (): string =>
    Array.from({ length: 1 + random(3) }, () => names[random(names.length)]).join('/')
  const handles: number[] = []
  const steps: (() => Promise<unknown>)[] = [
    () => union.create(path(), 0o644),
    () => union.mkdir(path(), 0o755),
    () => union.mkdir(path(), 0o755),
    () => union.symlink('x', path()),
    () => union.mknod(path(), sys.S.IFIFO | 0o600),
    () => union.link(path(), path()),
    () => union.unlink(path()),
    () => union.rmdir(path()),
    () => union.rename(path(), path(), random(3)),
    () => union.write(path(), 'text'),
    () => union.truncate(path(), 1),
    () => union.chmod(path(), 0o700),
    () => union.list(path()),
    () => union.setxattr(path(), 'user.x', 'x'),
    async () => {
      const file = await union.open(path(), random(3))
      if (typeof file !== 'number') handles.push(file.fh)
    },
    async () => union.ops.release(handles.splice(random(handles.length), 1)[0] ?? 0),
    async () => union.forgetAll(),
    async () => (union.warm = random(2) === 0),
  ]
  let most = 0
  for (let i = 0; i < 6000; i++) {
    await (steps[random(steps.length)] as () => Promise<unknown>)()
    most = Math.max(most, union.ops.counts().nodes)
  }
  t.ok(most > 20, 'there was something to forget')
  for (const fh of handles) union.ops.release(fh)
  union.forgetAll()
  t.strictSame(union.ops.counts(), NOTHING_OPEN)
  t.strictSame(union.loggedMessages, [])
  const tree = await union.tree()
  t.strictSame(tree.ghosts, [], 'every listed name can be found')
  for (const node of tree.nodes.values())
    if (node.listedIno !== node.stat.ino) t.fail(`${node.path}: d_ino is not st_ino`)
  union.close()
  t.strictSame(await leakedFds(before), [])
})

t.test('a copy loses its number with its node if its origin can not be found', async t => {
  for (const lasts of [true, false]) {
    const told: Node[] = []
    const nodes = new NodeTable(1, [], lasts ? null : directory => void told.push(directory))
    const directory = (name: string): Node => {
      const node = nodes.create(sys.S.IFDIR, 2, [])
      node.lookups = 1
      nodes.addName(node, nodes.root, name, true)
      return node
    }
    const [a, b] = [directory('a'), directory('b')]
    const forget = (hasOrigin: boolean, linked: boolean): string[] => {
      const file = nodes.create(sys.S.IFREG, 5)
      file.hasOrigin = hasOrigin
      if (linked) nodes.registerUpper(file, 5)
      nodes.addName(file, a, 'f', true)
      if (linked) nodes.addName(file, b, 'link', true)
      nodes.release(file)
      return told.splice(0).map(parent => parent.name)
    }
    t.strictSame(forget(false, true), [], 'made in the upper layer')
    t.strictSame(forget(true, false), lasts ? [] : ['a'], 'a copy')
    t.strictSame(forget(true, true), lasts ? [] : ['a', 'b'], 'a copy with two names')
  }
})
