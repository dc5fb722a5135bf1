import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'

import t from 'tap'

import { applyDefaultAcl } from '../../../../src/overlay/owner/acl.js'
import { Entry, Opened, ROOT_ID } from '../../../../src/overlay/ops.js'
import { E } from '../../../../src/sys/errno.js'
import { ROOT, type Fs, type CallerIds } from '../../../helpers/fs-calls.js'
import {
  acl,
  dir,
  link,
  opaque,
  symlink,
  unionDirectories,
  whiteout,
  xattrWhiteout,
  type Layer,
  type Spec,
} from '../../../helpers/layers.js'
import { compare, NOTHING_OPEN, skipParity } from '../../../helpers/parity.js'
import * as sys from '../../../helpers/syscalls.js'
import type { Difference } from '../../../helpers/tree.js'
import { callerOf, open, optionsOf, readOnlyOptions } from '../../../helpers/union.js'

const { S, O } = sys

const MAKE: Record<string, (fs: Fs, path: string, mode: number, who: CallerIds) => unknown> = {
  file: (fs, path, mode, who) => fs.create(path, mode, who),
  'made file': (fs, path, mode, who) => fs.mknod(path, S.IFREG | mode, 0, 0, who),
  directory: (fs, path, mode, who) => fs.mkdir(path, mode, who),
  fifo: (fs, path, mode, who) => fs.mknod(path, S.IFIFO | mode, 0, 0, who),
  socket: (fs, path, mode, who) => fs.mknod(path, S.IFSOCK | mode, 0, 0, who),
  device: (fs, path, mode, who) => (who.uid === 0 ? fs.mknod(path, S.IFCHR | mode, 1, 3, who) : 0),
  symlink: (fs, path, _mode, who) => fs.symlink('target', path, who),
}
const MODES = [0o644, 0o6777, 0o1770]
const CALLERS: Record<string, CallerIds> = {
  root: ROOT,
  user: { uid: 1000, gid: 1000, umask: 0o027 },
  member: { uid: 1000, gid: 500, umask: 0 },
}
const ACL = acl('u::rwx,u:7:rwx,g::r-x,g:8:-wx,m::rw-,o::r--')
const PARENTS: Record<string, Partial<Spec>> = {
  plain: { mode: 0o777 },
  'set-gid': { mode: 0o2777, gid: 500 },
  'with an ACL': { mode: 0o777, xattrs: { 'system.posix_acl_default': ACL } },
  'with a small ACL': {
    mode: 0o777,
    xattrs: { 'system.posix_acl_default': acl('u::rwx,g::r-x,o::---') },
  },
  'set-gid with an ACL': {
    mode: 0o2777,
    gid: 500,
    xattrs: { 'system.posix_acl_default': ACL },
  },
}
/** The layers that have the parent, and the objects under the new names. */
const SITES: Record<string, { upper: boolean; lower: boolean; below?: 'file' | 'directory' }> = {
  upper: { upper: true, lower: false },
  merged: { upper: true, lower: true },
  lower: { upper: false, lower: true },
  'over a deleted file': { upper: true, lower: true, below: 'file' },
  'over a deleted directory': { upper: true, lower: true, below: 'directory' },
}

t.test('every type, by every caller, in every kind of directory', { skip: skipParity }, async t => {
  const cases: { path: string; type: string; mode: number; who: CallerIds }[] = []
  const upper: Layer = {}
  const lower: Layer = {}
  for (const [p, parent] of Object.entries(PARENTS))
    for (const [s, site] of Object.entries(SITES)) {
      const directory = `${p} ${s}`
      if (site.upper) upper[`${directory}/`] = dir(parent)
      if (site.lower) lower[`${directory}/`] = dir(parent)
      for (const type of Object.keys(MAKE))
        for (const mode of type === 'symlink' ? [0o777] : MODES)
          for (const [w, who] of Object.entries(CALLERS)) {
            const path = `${directory}/${type} ${mode.toString(8)} ${w}`
            cases.push({ path, type, mode, who })
            if (site.below !== undefined) upper[path] = whiteout
            if (site.below === 'file') lower[path] = 'deleted'
            if (site.below === 'directory') lower[`${path}/deleted`] = 'deleted'
          }
    }
  for (const warm of [true, false]) {
    const scenario = { upper, lower: [lower], warm, memory: true }
    await compare(t, `known ${warm}`, scenario, async fs => {
      const results: unknown[] = []
      for (const { path, type, mode, who } of cases)
        results.push([path, await MAKE[type]?.(fs, path, mode, who)])
      return results
    })
  }
})

t.test('names that exist', { skip: skipParity }, async t => {
  const layers = {
    upper: { u: 'u', 'd/': dir(), gone: whiteout },
    lower: [{ l: 'l', 'd/x': 'x', 'e/y': 'y', gone: 'g', s: symlink('l') }],
  }
  for (const warm of [true, false])
    await compare(t, `there ${warm}`, { ...layers, warm, memory: true }, async fs => {
      const results: unknown[] = []
      for (const path of ['u', 'l', 'd', 'd/x', 'e', 'e/y', 's', 'gone'])
        for (const make of Object.values(MAKE)) results.push(await make(fs, path, 0o755, ROOT))
      for (const path of ['none/x', 'u/x', 'l/x', 'n'.repeat(256), 'd/x/y'])
        for (const make of Object.values(MAKE)) results.push(await make(fs, path, 0o755, ROOT))
      results.push(await fs.mknod('null', S.IFCHR | 0o666, 0, 0))
      return results
    })
})

t.test('a new object hides the lower one', { skip: skipParity }, async t => {
  const lower: Layer[] = [
    { 'd/sub/old': 'old', 'd/f': 'f', 'e/old': 'old', 'o/x': 'x' },
    { 'd/sub/older': 'older', 'e/older': 'older', 'o/': opaque(), 'o/y': 'y' },
  ]
  await compare(t, 'hides', { lower, memory: true }, async fs => [
    await fs.unlink('d/sub/old'),
    await fs.unlink('d/sub/older'),
    await fs.rmdir('d/sub'),
    await fs.mkdir('d/sub', 0o755),
    await fs.list('d/sub'),
    await fs.create('d/sub/old', 0o644),
    await fs.unlink('d/f'),
    await fs.mkdir('d/f', 0o755),
    await fs.mkdir('d/f/deeper', 0o755),
    await fs.unlink('e/old'),
    await fs.unlink('e/older'),
    await fs.rmdir('e'),
    await fs.symlink('x', 'e'),
    await fs.unlink('e'),
    await fs.mkdir('e', 0o755),
    await fs.mkdir('new', 0o755),
    await fs.mkdir('d/new', 0o755),
    await fs.list('e'),
  ])
})

t.test('links', { skip: skipParity }, async t => {
  const layers = {
    upper: { u: 'u', 'd/gone': whiteout, 'd/gone2': whiteout },
    lower: [{ l: 'l', 'd/x': 'x', 'd/gone': 'g', 'd/gone2/f': 'f', 'e/y': 'y', s: symlink('l') }],
  }
  for (const warm of [true, false])
    await compare(t, `links ${warm}`, { ...layers, warm, memory: true }, async fs => [
      await fs.link('u', 'd/u'),
      await fs.link('l', 'e/l'),
      await fs.link('s', 'e/s'),
      await fs.link('d/x', 'd/gone'),
      await fs.link('e/y', 'd/gone2'),
      await fs.link('u', 'l'),
      await fs.link('d', 'd2'),
      await fs.link('none', 'x'),
      await fs.link('u', 'none/x'),
      await fs.link('u', 'n'.repeat(256)),
      await fs.write('d/gone2', 'Y'),
      await fs.read('e/y'),
      await fs.unlink('l'),
      await fs.unlink('d/u'),
      await fs.link('e/l', 'l'),
    ])
})

t.test('an unprivileged mount with user. xattrs', { skip: skipParity }, async t => {
  const layers = {
    upper: { gone: whiteout, 'd/x': whiteout },
    lower: [{ gone: 'g', 'd/x': 'x', 'e/y': 'y' }],
  }
  const options = { userxattr: true, index: false, redirectDir: 'off' as const }
  await compare(t, 'userxattr', { ...layers, options, memory: true }, async fs => [
    await fs.mkdir('gone', 0o755),
    await fs.mkdir('d/x', 0o755),
    await fs.mkdir('e/z', 0o755),
    await fs.write('e/y', 'Y'),
    await fs.unlink('e/y'),
    await fs.rmdir('e/z'),
    await fs.rmdir('e'),
    await fs.mkdir('e', 0o755),
    await fs.rename('e', 'd/e'),
    await fs.setxattr('d/e', 'user.overlay.opaque', 'mine'),
    await fs.setxattr('d/e', 'trusted.overlay.opaque', 'y'),
    await fs.listxattr('d/e'),
  ])
})

/** Only the ordinary xattr may be added. */
const onDisk = ({ field, expected, got }: Difference): boolean =>
  field === 'xattrs' &&
  got.replace(/trusted\.overlay\.ordinary=79 ?/, '').trim() === expected.trim()

t.test('names that begin with .wh. hide nothing', { skip: skipParity }, async t => {
  const lower: Layer = { foo: 'foo', 'd/foo': 'foo', 'd/bar': 'bar', 'e/x': 'x', 'e/y/z': 'z' }
  await compare(t, 'made, renamed, linked, removed', { lower: [lower], onDisk }, async fs => [
    await fs.create('.wh.foo', 0o644),
    await fs.write('.wh.foo', 'text'),
    await fs.mkdir('d/.wh..wh..opq', 0o755),
    await fs.create('d/.wh..wh..opq/.wh.x', 0o600),
    await fs.symlink('d/.wh.bar', 'foo'),
    await fs.mknod('d/.wh.fifo', sys.S.IFIFO | 0o644),
    await fs.link('d/bar', 'e/.wh.x'),
    await fs.rename('e/y', 'e/.wh.y', 1),
    await fs.rename('d/foo', 'e/.wh.z'),
    await fs.list(''),
    await fs.list('d'),
    await fs.list('e'),
    await fs.unlink('.wh.foo'),
    await fs.create('.wh.foo', 0o640),
    await fs.rename('e/.wh.z', 'd/foo'),
    await fs.create('e/.wh.z', 0o644),
    await fs.rename('e/.wh.x', 'e/.wh.z', 2),
    await fs.unlink('e/.wh.z'),
    await fs.create('foo', 0o644),
    await fs.unlink('foo'),
    await fs.create('foo', 0o644),
    await fs.list('e'),
    await fs.stat('d/.wh.nothing'),
    await fs.rmdir('d/.wh..wh..opq'),
    await fs.unlink('d/.wh..wh..opq/.wh.x'),
    await fs.rmdir('d/.wh..wh..opq'),
    await fs.list('d'),
  ])
})

t.test('.wh. names of a lower layer, ordinary ones and whiteouts', async t => {
  const first = unionDirectories(t, { lower: [{ a: 'a', b: 'b', 'd/c': 'c' }] })
  let union = open(t, optionsOf(first))
  t.equal(await union.create('.wh.a', 0o600), 0)
  t.equal(await union.mkdir('.wh.dir', 0o755), 0)
  t.equal(await union.create('d/.wh..wh..opq', 0o600), 0)
  union.close()
  // A `.wh.` file of another program still hides a name.
  writeFileSync(`${first.upper}/.wh.b`, '')
  const second = unionDirectories(t, { lower: [{}] })
  union = open(t, { ...optionsOf(second), lower: [first.upper, ...first.lower] })
  for (let n = 0; n < 2; n++) {
    t.strictSame(await union.list(''), ['.wh.a', '.wh.dir', 'a', 'd'])
    t.strictSame(await union.list('d'), ['.wh..wh..opq', 'c'])
    t.equal(await union.stat('.wh.b'), -E.ENOENT)
    t.equal(await union.create('.wh.dir/new', 0o644), 0)
    t.equal(await union.write('.wh.a', 'copied up'), 9)
    t.equal(await union.chmod('d/.wh..wh..opq', 0o644), 0)
    union.close()
    union = open(t, { ...optionsOf(second), lower: [first.upper, ...first.lower] })
    t.equal(await union.unlink('.wh.dir/new'), 0)
  }
  for (const name of ['.wh.a', 'd/.wh..wh..opq']) t.equal(await union.unlink(name), 0)
  t.equal(await union.rmdir('.wh.dir'), 0)
  t.strictSame(await union.list(''), ['a', 'd'])
  t.strictSame(await union.list('d'), ['c'])
  t.equal(await union.create('.wh.b', 0o644), 0, 'the lower one still hides')
  t.strictSame(await union.list(''), ['.wh.b', 'a', 'd'])
})

t.test('names that are reserved for whiteouts', async t => {
  const where = unionDirectories(t, { lower: [{ foo: 'foo' }] })
  const union = open(t, optionsOf(where, { whiteout: 'wh' }))
  for (const name of ['.wh.foo', '.wh.', '.wh..wh..opq']) {
    for (const [type, make] of Object.entries(MAKE))
      t.equal(await make(union, name, 0o755, ROOT), -E.EINVAL, `${type} ${name}`)
    t.equal(await union.link('foo', name), -E.EINVAL)
  }
  t.strictSame(await union.list(''), ['foo'])
  t.strictSame(readdirSync(where.upper), [])
})

t.test('without an upper layer nothing is created', async t => {
  const where = unionDirectories(t, { lower: [{ 'd/f': 'f' }, { g: 'g' }] })
  for (const options of [readOnlyOptions(where), optionsOf(where, { readOnly: true })]) {
    const union = open(t, options)
    for (const [type, make] of Object.entries(MAKE))
      t.equal(await make(union, 'd/new', 0o755, ROOT), -E.EROFS, type)
    t.equal(await union.link('g', 'd/g'), -E.EROFS)
    t.equal(await union.unlink('g'), -E.EROFS)
    t.equal(await union.rmdir('d'), -E.EROFS)
    t.equal(await union.rename('g', 'h'), -E.EROFS)
    t.equal(await union.rename('g', 'd', sys.RENAME.EXCHANGE), -E.EROFS)
    t.equal(await union.write('g', 'G'), -E.EROFS)
    t.equal(await union.write('g', '', 0, O.TRUNC), -E.EROFS)
    t.equal(await union.chmod('g', 0o600), -E.EROFS)
    t.equal(await union.setxattr('g', 'user.x', 'x'), -E.EROFS)
    t.equal(await union.removexattr('g', 'user.x'), -E.EROFS)
    t.equal(await union.setFlags('g', 0), -E.EROFS)
    const caller = callerOf(ROOT)
    t.equal(union.ops.tmpfile(caller, ROOT_ID, 0o600, O.RDWR, new Entry(), new Opened()), -E.EROFS)
    t.equal(await union.read('g'), 'g')
    t.strictSame(union.ops.counts(), NOTHING_OPEN)
    union.close()
  }
  t.strictSame(readdirSync(where.upper), [])
  t.strictSame(readdirSync(where.work), [])
})

t.test('create', async t => {
  const where = unionDirectories(t, { upper: { u: 'upper' }, lower: [{ l: 'lower', d: '' }] })
  const union = open(t, optionsOf(where))
  const caller = callerOf(ROOT)
  const make = async (
    name: string,
    flags: number,
  ): Promise<{ result: number; out: Entry; opened: Opened }> => {
    union.lookup(ROOT_ID, name)
    const out = new Entry()
    const opened = new Opened()
    const result = await union.run(() =>
      union.ops.create(caller, ROOT_ID, name, 0o666, flags, out, opened),
    )
    return { result, out, opened }
  }
  const made = await make('new', O.CREAT | O.WRONLY)
  t.equal(made.result, 0)
  t.ok(made.opened.writable && made.opened.upper)
  t.equal(made.out.attr.mode, S.IFREG | 0o644)
  t.equal(union.pwrite(made.opened.fh, 'text'), 4)
  const reader = await make('readonly', O.CREAT | O.RDONLY)
  t.notOk(reader.opened.writable)
  t.equal(union.pwrite(reader.opened.fh, 'text'), -E.EBADF)
  for (const name of ['l', 'u'])
    t.equal(
      (await make(name, O.CREAT | O.RDWR | O.TRUNC)).result,
      -E.ESTALE,
      'who may open a name that came meanwhile is for the kernel to decide',
    )
  t.equal(readFileSync(`${where.upper}/u`, 'latin1'), 'upper')
  t.equal((await make('l', O.CREAT | O.EXCL | O.RDWR)).result, -E.EEXIST)
  for (const { opened } of [made, reader]) union.ops.release(opened.fh)
  for (const { out } of [made, reader]) union.ops.forget(out.nodeId, 1)
  union.forgetAll()
  t.strictSame(union.ops.counts(), NOTHING_OPEN)
})

t.test('files without a name', async t => {
  const where = unionDirectories(t, {
    upper: { 'd/gone': whiteout },
    lower: [{ 'd/gone': 'g', 'd/there': 't', 'low/x': 'x' }],
  })
  const union = open(t, optionsOf(where))
  const who: CallerIds = { uid: 1000, gid: 500, umask: 0o022 }
  const tmp = (path: string, flags: number): { out: Entry; opened: Opened; result: number } => {
    const out = new Entry()
    const opened = new Opened()
    const result = union.ops.tmpfile(callerOf(who), union.id(path), 0o666, flags, out, opened)
    return { out, opened, result }
  }
  const gone = tmp('low', O.RDWR)
  t.equal(gone.result, 0)
  t.equal(gone.out.attr.nlink, 0)
  t.equal(gone.out.attr.mode, S.IFREG | 0o644)
  t.strictSame([gone.out.attr.uid, gone.out.attr.gid], [1000, 500])
  t.equal(union.pwrite(gone.opened.fh, 'nothing stays'), 13)
  t.strictSame(await union.list('low'), ['x'])
  const kept = tmp('d', O.WRONLY)
  t.equal(union.pwrite(kept.opened.fh, 'kept'), 4)
  const linked = new Entry()
  const d = union.id('d')
  union.id('d/there')
  t.equal(union.ops.link(kept.out.nodeId, d, 'there', linked), -E.EEXIST)
  t.equal(union.ops.link(kept.out.nodeId, d, 'gone', linked), 0, 'linked over a whiteout')
  t.equal(linked.nodeId, kept.out.nodeId)
  t.equal(linked.attr.nlink, 1)
  t.equal(await union.read('d/gone'), 'kept')
  t.equal(await union.link('d/gone', 'd/second'), 0)
  t.equal(await union.read('d/second'), 'kept')
  t.equal(union.pwrite(kept.opened.fh, 'KEPT'), 4)
  t.equal(await union.read('d/second'), 'KEPT')
  const never = tmp('d', O.RDWR | O.EXCL)
  t.equal(never.result, 0)
  t.equal(union.ops.link(never.out.nodeId, d, 'never', linked), -E.ENOENT)
  for (const { opened, out } of [gone, kept, never]) {
    union.ops.release(opened.fh)
    union.ops.forget(out.nodeId, 1)
  }
  union.ops.forget(linked.nodeId, 1)
  union.forgetAll()
  t.strictSame(union.ops.counts(), NOTHING_OPEN)
  union.close()
  t.strictSame(readdirSync(`${where.work}/work`), [])
  t.equal(statSync(`${where.upper}/d/gone`).nlink, 2)
})

t.test('in removed directories', async t => {
  const where = unionDirectories(t, { upper: { 'u/': dir() }, lower: [{ 'l/': dir(), f: 'f' }] })
  const union = open(t, optionsOf(where))
  for (const path of ['u', 'l']) {
    const id = union.id(path)
    t.equal(await union.rmdir(path), 0)
    const out = new Entry()
    const caller = callerOf(ROOT)
    t.equal(union.ops.mkdir(caller, id, 'x', 0o755, out), -E.ENOENT)
    t.equal(union.ops.mknod(caller, id, 'x', S.IFREG, 0, 0, out), -E.ENOENT)
    t.equal(union.ops.symlink(caller, id, 'x', 'y', out), -E.ENOENT)
    t.equal(union.ops.create(caller, id, 'x', 0o644, 0, out, new Opened()), -E.ENOENT)
    t.equal(union.ops.tmpfile(caller, id, 0o644, O.RDWR, out, new Opened()), -E.ENOENT)
    t.equal(await union.run(() => union.ops.link(union.id('f'), id, 'x', out)), -E.ENOENT)
    t.equal(await union.run(() => union.ops.rename(ROOT_ID, 'f', id, 'x', 0)), -E.ENOENT)
    t.equal(union.ops.unlink(id, 'x'), -E.ENOENT)
    t.equal(union.ops.rmdir(id, 'x'), -E.ENOENT)
    t.equal(union.ops.lookup(id, 'x', out), 0)
    t.equal(out.nodeId, 0)
  }
  union.forgetAll()
  t.strictSame(union.ops.counts(), NOTHING_OPEN)
})

t.test('whiteouts of other forms in the upper layer are replaced', async t => {
  const upper: Layer = {
    './': dir({ xattrs: { 'trusted.overlay.opaque': 'x' } }),
    'd/': dir(),
  }
  const lower: Layer = { 'd/x': 'x' }
  for (const type of Object.keys(MAKE)) {
    upper[`.wh.dot ${type}`] = ''
    upper[`xattr ${type}`] = xattrWhiteout()
    upper[`d/.wh.dot ${type}`] = ''
    for (const form of ['dot', 'xattr']) lower[`${form} ${type}/old`] = 'old'
    lower[`d/dot ${type}/old`] = 'old'
  }
  const where = unionDirectories(t, { upper, lower: [lower] })
  const names = Object.keys(lower)
    .map(path => path.replace('/old', ''))
    .filter(path => path !== 'd/x')
  for (const whiteoutForm of ['char', 'wh', 'xattr'] as const) {
    let union = open(t, optionsOf(where, { whiteout: whiteoutForm }))
    for (const path of names) {
      const make = MAKE[path.replace(/^(d\/)?\w+ /, '')]
      t.equal(await make?.(union, path, 0o755, ROOT), 0, `${whiteoutForm}: ${path}`)
    }
    const before = await union.tree()
    union.close()
    union = open(t, optionsOf(where, { whiteout: whiteoutForm }))
    const after = await union.tree()
    t.strictSame([...after.nodes.keys()], [...before.nodes.keys()], 'after a remount too')
    t.notOk([...after.nodes.keys()].some(path => path.endsWith('/old')))
    for (const path of names) {
      const stat = await union.stat(path)
      const isDir = typeof stat === 'object' && (stat.mode & S.IFMT) === S.IFDIR
      t.equal(await (isDir ? union.rmdir(path) : union.unlink(path)), 0)
    }
    t.strictSame(await union.list(''), ['d'])
    t.strictSame(await union.list('d'), ['x'])
    union.close()
    union = open(t, optionsOf(where, { whiteout: whiteoutForm }))
    t.strictSame(await union.list(''), ['d'])
    t.strictSame(await union.list('d'), ['x'])
    t.strictSame(union.loggedMessages, [])
    union.close()
  }
})

t.test('applyDefaultAcl', async t => {
  const full = 'u::rwx,u:7:rwx,g::rwx,g:8:rwx,m::rwx,o::rwx'
  const vectors: [text: string, mode: number, wanted: number, access: string | null][] = [
    ['u::rwx,g::rwx,o::rwx', 0o640, 0o640, null],
    ['u::rw-,g::r--,o::---', 0o777, 0o640, null],
    ['u::r--,g::---,o::---', 0o666, 0o400, null],
    [full, 0o640, 0o640, 'u::rw-,u:7:rwx,g::rwx,g:8:rwx,m::r--,o::---'],
    [full, 0o1777, 0o1777, full],
    [full, 0, 0, 'u::---,u:7:rwx,g::rwx,g:8:rwx,m::---,o::---'],
    ['u::rwx,u:7:r--,g::r-x,m::r-x,o::--x', 0o666, 0o640, 'u::rw-,u:7:r--,g::r-x,m::r--,o::---'],
    ['u::rwx,g::rwx,m::r--,o::r--', 0o666, 0o644, 'u::rw-,g::rwx,m::r--,o::r--'],
  ]
  for (const [text, mode, wanted, access] of vectors) {
    const value = Buffer.from(acl(text), 'latin1')
    const created = applyDefaultAcl(value, S.IFREG | mode)
    t.equal(created.mode, S.IFREG | wanted, `${text} ${mode.toString(8)}: mode`)
    t.equal(created.access?.latin1Slice() ?? null, access === null ? null : acl(access), text)
    t.equal(value.latin1Slice(), acl(text), 'the default stays')
  }
  const odd = applyDefaultAcl(Buffer.from([2, 0, 0, 0, 1, 0]), 0o644)
  t.strictSame(odd, { mode: 0o644, access: null }, 'half an entry is none')
})

t.test('a link of a link', { skip: skipParity }, async t => {
  const lower: Layer = { a: 'a', b: link('a') }
  await compare(t, 'links', { lower: [lower], memory: true }, async fs => [
    await fs.link('a', 'c'),
    await fs.link('c', 'd'),
    await fs.rename('d', 'b'),
    await fs.unlink('a'),
    await fs.list(''),
  ])
})
