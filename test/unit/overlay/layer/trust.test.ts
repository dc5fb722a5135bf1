/**
 * Which redirect and metacopy xattrs are trusted: compared with kernel overlayfs, and for
 * unprivileged mounters.
 */

import * as fs from 'node:fs'

import t, { type Test } from 'tap'

import { isSystemRoot, othersWrite, trustFor } from '../../../../src/overlay/layer/trust.js'
import { E } from '../../../../src/sys/errno.js'
import type { Fs } from '../../../helpers/fs-calls.js'
import {
  dir,
  file,
  withOverlayXattrs,
  unionDirectories,
  type Layer,
  type Spec,
} from '../../../helpers/layers.js'
import { skipParity, withKernel } from '../../../helpers/parity.js'
import * as sys from '../../../helpers/syscalls.js'
import { open, optionsOf } from '../../../helpers/union.js'
import { skipUnions, stateOf } from '../support.js'

const meta = (prefix: string, redirect?: string): Spec =>
  file('', {
    size: 2,
    xattrs: {
      [`${prefix}.overlay.metacopy`]: '',
      ...(redirect === undefined ? {} : { [`${prefix}.overlay.redirect`]: redirect }),
    },
  })

/** An upper layer and lower layers with valid and invalid redirect and metacopy xattrs. */
const layers = (prefix: string): { upper: Layer; lower: Layer[] } => {
  const to = (redirect: string): Spec => withOverlayXattrs({ redirect }, {}, prefix)
  return {
    upper: {
      'absolute/': to('/secret/inner'),
      'relative/': to('inner2'),
      'up to a NUL/': to('inner4\0junk'),
      'to nothing/': to('/no/such'),
      'to no name/': to('nothing'),
      'not merged/sub/': to('/secret/inner3'),
      'over opaque/': withOverlayXattrs({ redirect: '/secret/inner', opaque: 'y' }, {}, prefix),
      'two dots/': to('..'),
      'two dots, NUL/': to('..\0'),
      'two dots in a path/': to('/secret/../secret/inner'),
      'out of the layer/': to('/../victims'),
      'a dot/': to('.'),
      'a path/': to('../x'),
      'empty/': to(''),
      'root/': to('/'),
      'trailing/': to('/secret/inner/'),
      'doubled/': to('/secret//inner'),
      'long name/': to('n'.repeat(300)),
      'long name in a path/': to(`/${'n'.repeat(300)}/inner`),
      'long path/': to('/n'.repeat(1500)),
      meta: meta(prefix),
      'meta, redirected': meta(prefix, '/secret/inner/f'),
      'meta of nothing': meta(prefix),
      'meta, wrong': meta(prefix, '../secret'),
    },
    lower: [
      {
        'in lower/': to('/secret/inner5'),
        'in lower, to nothing/': to('/no/such'),
        'not merged/': dir(),
        'lower meta': meta(prefix),
        'lower meta of nothing': meta(prefix),
      },
      {
        'secret/': dir({ mode: 0o700 }),
        'secret/inner/f': 'ff',
        'secret/inner3/f': 'ff',
        'secret/inner5/f': 'ff',
        'inner4/g': 'g',
        'inner2/g': 'g',
        'in the last/': to('/secret/inner'),
        meta: 'mm',
        'lower meta': 'mm',
        'last meta': meta(prefix),
        'last, invalid/': to('../x'),
      },
    ],
  }
}

const see = async (view: Fs, paths: string[]): Promise<Record<string, unknown>> => {
  const seen: Record<string, unknown> = {}
  for (const path of paths)
    seen[path] = path.includes('meta') ? await view.read(path) : await view.list(path)
  return seen
}

const pathsOf = ({ upper, lower }: ReturnType<typeof layers>): string[] =>
  [upper, ...lower]
    .flatMap(layer => Object.keys(layer))
    .map(path => path.replace(/\/$/, ''))
    .filter(path => !path.includes('secret') && !/^inner\d/.test(path))

t.test(
  'root with userxattr follows no xattr that users could have written',
  { skip: skipParity },
  async t => {
    const scene = layers('user')
    const where = unionDirectories(t, scene)
    const paths = pathsOf(scene)
    const union = open(t, optionsOf(where, { userxattr: true, index: false, fsync: false }))
    const ours = await see(union, paths)
    t.strictSame(await union.read('absolute/f'), -E.EPERM, 'below a directory of mode 0700')
    t.strictSame(union.loggedMessages, [])
    union.close()
    const theirs = await withKernel(where, 'userxattr', kernel => see(kernel, paths))
    t.strictSame(ours, theirs)
    t.notMatch(JSON.stringify(ours), /"ff"|"mm"|"f"|"g"/)
  },
)

t.test('trusted xattrs are followed as by the kernel', { skip: skipParity }, async t => {
  const scene = layers('trusted')
  const where = unionDirectories(t, scene)
  const paths = pathsOf(scene)
  const union = open(t, optionsOf(where, { index: false, fsync: false }))
  const ours = await see(union, paths)
  t.strictSame(union.loggedMessages, [])
  union.close()
  const theirs = await withKernel(where, 'redirect_dir=on,metacopy=on', kernel =>
    see(kernel, paths),
  )
  t.strictSame(ours, theirs)
  t.strictSame(ours['absolute'], ['f'])
  const nofollow = { redirectDir: 'nofollow' as const, index: false, fsync: false }
  const blind = open(t, optionsOf(where, nofollow))
  // The kernel's listing has no inode number for a name whose lookup fails.
  const dirs = paths.filter(path => !path.includes('meta') && path !== 'not merged')
  const refused = await see(blind, dirs)
  blind.close()
  const kernels = await withKernel(where, 'redirect_dir=nofollow', kernel => see(kernel, dirs))
  t.strictSame(refused, kernels, 'nofollow')
})

t.test('a union with trusted xattrs ignores user xattrs', { skip: skipParity }, async t => {
  const scene = layers('user')
  Object.assign(scene.upper, {
    'opaque/': withOverlayXattrs({ opaque: 'y' }, {}, 'user'),
    white: file('', { xattrs: { 'user.overlay.whiteout': 'y' } }),
  })
  Object.assign(scene.lower[0] ?? {}, {
    'lower opaque/': withOverlayXattrs({ opaque: 'y' }, {}, 'user'),
    'old opaque/': dir({ xattrs: { 'user.fuseoverlayfs.opaque': 'y' } }),
    'x/': withOverlayXattrs({ opaque: 'x' }, {}, 'user'),
    'x/w': file('', { xattrs: { 'user.overlay.whiteout': 'y' } }),
  })
  Object.assign(scene.lower[1] ?? {}, {
    'opaque/a': 'a',
    'lower opaque/a': 'a',
    'old opaque/a': 'a',
    'x/w': 'w',
  })
  const where = unionDirectories(t, scene)
  const paths = [...pathsOf(scene), '']
  const union = open(t, optionsOf(where, { index: false, fsync: false }))
  const ours = await see(union, paths)
  t.match(
    union.loggedMessages.map(complaint => complaint.message),
    [/userxattr/],
    'a single warning',
  )
  union.close()
  t.strictSame(ours, await withKernel(where, 'index=off', kernel => see(kernel, paths)))
})

t.test('root may not enable redirects with userxattr', { skip: skipUnions }, async t => {
  const where = unionDirectories(t, { lower: [{}] })
  for (const redirectDir of ['on', 'follow'] as const)
    t.throws(() => stateOf(t, optionsOf(where, { userxattr: true, redirectDir })), {
      code: 'EINVAL',
      message: /userxattr and redirect_dir/,
    })
  t.equal(stateOf(t, optionsOf(where, { userxattr: true })).u.options.redirectDir, 'nofollow')
})

/** Acts as an unprivileged user that owns the layers, except for objects of other users. */
const asUser = <T>(use: () => T): T =>
  sys.withCredentials({ uid: 1000, gid: 1000, groups: [] }, use)

const give = (path: string, uid: number): void => {
  fs.chmodSync(path, 0o755)
  for (const name of ['', ...fs.readdirSync(path, { recursive: true, encoding: 'utf8' })])
    fs.lchownSync(`${path}/${name}`, uid, uid)
}

const redirected = (redirect: string, mode = 0o755): Spec =>
  withOverlayXattrs({ redirect }, { mode }, 'user')

/** What an unprivileged mounter finds behind the xattrs of different owners: 0, or an errno. */
const looks = (t: Test, shared: boolean): Record<string, number> => {
  const where = unionDirectories(t, {
    upper: {
      'own/': redirected('/secret/inner'),
      'other/': redirected('/secret/inner'),
      'group/': redirected('/secret/inner', 0o775),
      'world/': redirected('/secret/inner', 0o757),
      'sticky/': redirected('/secret/inner', 0o1777),
      meta: meta('user', '/secret/inner/f'),
      'meta of another': meta('user', '/secret/inner/f'),
    },
    lower: [{ 'secret/': dir({ mode: 0o700 }), 'secret/inner/f': 'ff' }],
  })
  for (const path of [where.top, where.upper, where.work, ...where.lower]) give(path, 1000)
  for (const name of ['other', 'meta of another'])
    fs.lchownSync(`${where.upper}/${name}`, 1001, 1001)
  const { u, find, close } = stateOf(t, optionsOf(where, { userxattr: true, fsync: false }))
  // As for an unprivileged mounter.
  const options = { ...u.options, redirectDir: 'off' }
  Object.assign(u, { options, trust: shared ? 'own' : 'all' })
  const result: Record<string, number> = {}
  const names = ['own', 'other', 'group', 'world', 'sticky'].map(name => `${name}/f`)
  asUser(() => {
    for (const name of [...names, 'meta', 'meta of another'])
      try {
        result[name] = find(name).isReg ? 0 : -1
      } catch (error) {
        result[name] = Number(/errno (\d+)/.exec(String(error))?.[1])
      }
  })
  close()
  return result
}

t.test('an unprivileged mounter trusts its own xattrs, and others on a private mount', async t => {
  if (skipUnions !== false) return t.comment(skipUnions)
  t.strictSame(looks(t, false), {
    'own/f': 0,
    'other/f': 0,
    'group/f': 0,
    'world/f': 0,
    'sticky/f': 0,
    meta: 0,
    'meta of another': 0,
  })
  t.strictSame(looks(t, true), {
    'own/f': 0,
    'other/f': E.EPERM,
    'group/f': E.EPERM,
    'world/f': E.EPERM,
    'sticky/f': 0,
    meta: 0,
    'meta of another': E.EPERM,
  })
})

t.test('trust', { skip: skipUnions }, async t => {
  t.ok(isSystemRoot())
  t.equal(trustFor(false, true), 'all')
  t.equal(trustFor(true, false), 'none', 'root, also on a private mount')
  t.ok(othersWrite({ mode: sys.S.IFREG | 0o620 }))
  t.ok(othersWrite({ mode: sys.S.IFREG | 0o1602 }))
  t.ok(othersWrite({ mode: sys.S.IFDIR | 0o702 }))
  t.notOk(othersWrite({ mode: sys.S.IFDIR | 0o1777 }))
  t.notOk(othersWrite({ mode: sys.S.IFREG | 0o4755 }))
})

const PLACES = [
  'root',
  'owner',
  'other',
  'plain',
  'in/root',
  'in/owner',
  'in/own',
  'in/other',
  'below/other',
]

const markOf = (uid: number): Spec => file('', { uid, gid: uid })

t.test('a .wh. file in a sticky directory hides objects that its owner could remove', async t => {
  if (skipUnions !== false) return t.comment(skipUnions)
  const sticky = dir({ mode: 0o1777, uid: 5 })
  const where = unionDirectories(t, {
    lower: [
      {
        'root/': sticky,
        'root/.wh..wh..opq': markOf(0),
        'owner/': sticky,
        'owner/.wh..wh..opq': markOf(5),
        'other/': sticky,
        'other/.wh..wh..opq': markOf(1000),
        'plain/': dir({ mode: 0o777 }),
        'plain/.wh..wh..opq': markOf(1000),
        'in/': sticky,
        'in/.wh.root': markOf(0),
        'in/root/': dir(),
        'in/.wh.owner': markOf(5),
        'in/owner/': dir(),
        'in/.wh.own': markOf(1000),
        'in/own/': dir({ uid: 1000 }),
        'in/.wh.other': markOf(1000),
        'in/other/': dir(),
        // The owner could also have created a device 0/0.
        'in/.wh.file': markOf(1000),
        'below/.wh.other': markOf(1000),
        'below/other/': dir(),
      },
      Object.fromEntries([...PLACES.map(path => `${path}/f`), 'in/file'].map(path => [path, 'f'])),
    ],
  })
  const union = open(t, optionsOf(where, { fsync: false }))
  const shown: string[] = []
  for (const path of PLACES) if ((await union.read(`${path}/f`)) === 'f') shown.push(path)
  t.strictSame(shown, ['other', 'in/other'])
  t.equal(await union.read('in/file'), -E.ENOENT)
})
