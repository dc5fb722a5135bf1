import * as fs from 'node:fs'

import t from 'tap'

import {
  chooseXattrNames,
  warnOfUserXattrs,
} from '../../../../src/overlay/layer/choose-xattr-names.js'
import { Layer } from '../../../../src/overlay/layer/layer.js'
import type { UnionOptions } from '../../../../src/overlay/options.js'
import { E } from '../../../../src/sys/errno.js'
import {
  dir,
  file,
  link,
  withOverlayXattrs,
  unionDirectories,
  whiteout,
} from '../../../helpers/layers.js'
import { skipParity, withKernel } from '../../../helpers/parity.js'
import * as sys from '../../../helpers/syscalls.js'
import { open, optionsOf, type UnionFs } from '../../../helpers/union.js'
import { skipUnions, stateOf } from '../support.js'

/** An upper root whose opaque xattr has the infix `tsoverlay.`. */
const own = (prefix: 'trusted' | 'user'): Record<'./', ReturnType<typeof dir>> => ({
  './': dir({ xattrs: { [`${prefix}.tsoverlay.opaque`]: 'x' } }),
})

const xattrsOf = (path: string): string[] => {
  const names = sys.listxattr({ path, follow: false })
  return typeof names === 'number' ? [] : names.filter(name => name.includes('overlay'))
}

const attributesOf = async (union: UnionFs, path: string): Promise<Record<string, unknown>> => {
  const names = await union.listxattr(path)
  const values: Record<string, unknown> = {}
  if (typeof names !== 'number')
    for (const name of names) values[name] = await union.getxattr(path, name)
  return values
}

t.test('the chosen names', { skip: skipUnions }, async t => {
  const choose = (
    upper: Record<string, ReturnType<typeof dir>>,
    userxattr: UnionOptions['userxattr'],
    given?: number,
  ): string => {
    const where = unionDirectories(t, { upper, lower: [{}] })
    const at = (path: string): number => {
      const fd = fs.openSync(path, 'r')
      t.teardown(() => fs.closeSync(fd))
      return fd
    }
    const layer = new Layer({
      index: 0,
      path: where.upper,
      fd: at(where.upper),
      dev: 0,
      fsIndex: 0,
      uuid: Buffer.alloc(16),
      handles: false,
      isPrivate: false,
    })
    const base = given ?? at(where.work)
    const { userPrefix, infix } = chooseXattrNames(optionsOf(where, { userxattr }), base, layer)
    const complaints: string[] = []
    const warn = (_: unknown, message: string): void => void complaints.push(message)
    warnOfUserXattrs(layer, { warn } as never)
    for (const complaint of complaints) t.match(complaint, /mount it with userxattr/)
    const warned = complaints.length === 0 ? '' : ', warns'
    return (userPrefix ? 'user.' : 'trusted.') + infix + warned
  }
  t.equal(choose({}, 'auto'), 'trusted.overlay.')
  t.equal(choose({}, false), 'trusted.overlay.')
  t.equal(choose({}, true), 'user.overlay.')
  t.equal(choose(own('trusted'), 'auto'), 'trusted.tsoverlay.', 'an upper layer keeps its infix')
  t.equal(choose(own('trusted'), false), 'trusted.tsoverlay.')
  t.equal(choose(own('trusted'), true), 'user.overlay.')
  t.equal(choose(own('user'), 'auto'), 'trusted.overlay., warns', 'any user could have written it')
  t.equal(choose(own('user'), true), 'user.tsoverlay., warns')
  t.equal(choose(own('trusted'), 'auto', -1), 'trusted.tsoverlay.', 'read-only')
  t.equal(choose(own('user'), true, -1), 'user.tsoverlay., warns')
  t.equal(choose({}, 'auto', -1), 'trusted.overlay.')
  const proc = fs.openSync('/proc/self', 'r')
  t.teardown(() => fs.closeSync(proc))
  for (const userxattr of ['auto', false] as const)
    t.equal(choose({}, userxattr, proc), 'trusted.overlay.', 'nothing can be written')
  t.equal(choose({}, true, proc), 'user.overlay.')
})

t.test('an upper layer with tsoverlay xattrs', { skip: skipUnions }, async t => {
  const lower = {
    gone: 'gone',
    'd/a': 'a',
    'd/b': 'b',
    'e/a': 'a',
    f: file('f', { xattrs: { 'trusted.overlay.opaque': 'y', 'trusted.tsoverlay.mine': '1' } }),
    one: 'link',
    two: link('one'),
  }
  const where = unionDirectories(t, { upper: own('trusted'), lower: [lower] })
  let union = open(t, optionsOf(where, { redirectDir: 'on', fsync: false }))
  const look = async (): Promise<unknown> => ({
    root: await union.list(''),
    d: await union.list('d'),
    e: await union.list('e'),
    moved: await union.list('moved'),
    attributes: await attributesOf(union, 'f'),
    two: await union.read('two'),
  })
  t.equal(await union.unlink('gone'), 0)
  t.equal(await union.unlink('d/a'), 0)
  t.equal(await union.rename('d', 'moved'), 0)
  t.equal(await union.unlink('e/a'), 0)
  t.equal(await union.rmdir('e'), 0)
  t.equal(await union.mkdir('e', 0o755), 0)
  t.equal(await union.write('f', 'x'), 1)
  t.equal(await union.write('one', 'x'), 1)
  const before = await look()
  t.match(before, {
    root: ['e', 'f', 'moved', 'one', 'two'],
    d: -E.ENOENT,
    e: [],
    moved: ['b'],
    attributes: { 'trusted.tsoverlay.mine': '1' },
    two: 'xink',
  })
  union.close()
  for (const name of ['', 'gone', 'e', 'moved', 'f'])
    t.ok(
      xattrsOf(`${where.upper}/${name}`).every(attr => attr.startsWith('trusted.tsoverlay.')),
      name,
    )
  t.ok(fs.statSync(`${where.upper}/gone`).isFile(), 'no device')
  union = open(t, optionsOf(where, { fsync: false }))
  t.strictSame(await look(), before, 'mounted anew')
  union.close()

  const above = unionDirectories(t, { lower: [] })
  const stacked = { ...above, lower: [where.upper, ...where.lower] }
  union = open(t, optionsOf(stacked, { fsync: false }))
  t.strictSame(await union.list(''), ['e', 'f', 'moved', 'one', 'two'], 'as a lower layer')
  t.strictSame(await union.list('moved'), ['b'])
  t.strictSame(await union.list('e'), [])
  t.strictSame(await attributesOf(union, 'f'), { 'trusted.tsoverlay.mine': '1' })
  t.equal(await union.write('f', 'y'), 1)
  t.strictSame(await attributesOf(union, 'f'), { 'trusted.tsoverlay.mine': '1' }, 'copied up')
  t.equal(await union.unlink('one'), 0)
  union.close()
  t.ok(fs.statSync(`${above.upper}/one`).isCharacterDevice(), 'each layer has its own names')
})

t.test('xattrs with the other infix belong to callers', { skip: skipUnions }, async t => {
  const scene = {
    upper: {
      white: file('', { xattrs: { 'trusted.tsoverlay.whiteout': 'y' } }),
      'd/': dir({ xattrs: { 'trusted.tsoverlay.opaque': 'y' } }),
    },
    lower: [{ white: 'w', 'd/a': 'a' }],
  }
  const union = open(t, optionsOf(unionDirectories(t, scene), { fsync: false }))
  t.strictSame(await union.list(''), ['d', 'white'])
  t.strictSame(await union.list('d'), ['a'])
  t.strictSame(await attributesOf(union, 'white'), { 'trusted.tsoverlay.whiteout': 'y' })
  union.close()
  const kernels = {
    upper: { ...own('trusted'), white: whiteout, 'd/': withOverlayXattrs({ opaque: 'y' }) },
    lower: [{ white: 'w', 'd/a': 'a' }],
  }
  const reverse = open(t, optionsOf(unionDirectories(t, kernels), { fsync: false }))
  t.strictSame(await reverse.list(''), ['d'], 'a device is a whiteout everywhere')
  t.strictSame(await reverse.list('d'), ['a'])
  t.strictSame(await attributesOf(reverse, 'd'), { 'trusted.overlay.opaque': 'y' })
  reverse.close()
})

t.test('a caller can not change the infix of a layer', { skip: skipUnions }, async t => {
  const where = unionDirectories(t, { lower: [{ 'd/f': 'f' }] })
  const options = optionsOf(where, { redirectDir: 'on', fsync: false })
  let union = open(t, options)
  t.equal(await union.rename('d', 'e'), 0)
  for (const prefix of ['trusted', 'user'])
    for (const [name, value] of [
      ['opaque', 'x'],
      ['origin', ''],
    ])
      t.equal(await union.setxattr('', `${prefix}.tsoverlay.${name}`, value!), -E.EPERM)
  t.equal(await union.setxattr('e', 'trusted.tsoverlay.opaque', 'x'), 0, 'only the root matters')
  union.close()
  // Other xattrs do not, if the root started with `overlay.`.
  const root = { path: where.upper, follow: false }
  t.equal(sys.setxattr(root, 'trusted.tsoverlay.origin', Buffer.from('x'), 0), 0)
  union = open(t, options)
  t.strictSame(await union.list('e'), ['f'])
  union.close()
})

t.test('xattrs that users could have written', { skip: skipUnions }, async t => {
  const xattrs = { 'user.tsoverlay.redirect': '/secret' }
  const where = unionDirectories(t, {
    upper: { ...own('user'), 'd/': dir({ xattrs }) },
    lower: [{ 'secret/s': 's' }],
  })
  const options = optionsOf(where, { userxattr: true, index: false, fsync: false })
  const { u, close } = stateOf(t, options)
  t.equal(u.xattrs.names.prefix, 'user.tsoverlay.')
  t.equal(u.trust, 'none')
  close()
  const union = open(t, options)
  t.equal(await union.list('d'), -E.EPERM)
  union.close()
})

t.test('lower files that have no handles', { skip: skipParity }, async t => {
  const inner = unionDirectories(t, {
    lower: [{ one: 'link', two: link('one'), three: link('one'), 'z/o': 'oo', 'z/p': link('z/o') }],
  })
  const where = unionDirectories(t, { lower: [{}] })
  await withKernel(inner, '', async () => {
    const at = { ...where, lower: [inner.merged] }
    let union = open(t, optionsOf(at, { fsync: false }))
    t.equal(await union.write('one', 'x'), 1)
    t.equal(await union.read('two'), 'xink', 'by the index')
    t.equal(await union.unlink('one'), 0)
    t.equal(await union.write('z/o', 'x'), 1)
    union.close()
    t.equal(fs.readdirSync(`${where.work}/index`).length, 2)
    union = open(t, optionsOf(at, { fsync: false }))
    t.equal(await union.read('three'), 'xink', 'mounted anew')
    t.match(await union.stat('three'), { nlink: 2 })
    t.equal(await union.read('z/p'), 'xo')
    union.close()
    fs.utimesSync(`${inner.lower[0]}/z/o`, 1, 1)
    union = open(t, optionsOf(at, { fsync: false }))
    t.equal(await union.read('z/p'), 'oo', 'a changed file is not taken for the same file')
    union.close()
  })
})
