import t from 'tap'

import {
  DirectoryXattrs,
  Found,
  lookupInDirectory,
  readDirectoryXattrs,
} from '../../../../src/overlay/layer/lookup-layer.js'
import { RealDir } from '../../../../src/overlay/layer/layer.js'
import { E } from '../../../../src/sys/errno.js'
import { Stat } from '../../../../src/sys/stat.js'
import {
  device,
  dir,
  file,
  withOverlayXattrs,
  opaque,
  symlink,
  unionDirectories,
  whiteout,
  xattrWhiteout,
} from '../../../helpers/layers.js'
import { readOnlyOptions } from '../../../helpers/union.js'
import { skipUnions, stateOf } from '../support.js'

t.test('the type of a name in a directory of a layer', { skip: skipUnions }, async t => {
  const where = unionDirectories(t, {
    lower: [
      {
        'file\xff': 'x',
        'd/': dir(),
        link: symlink('d'),
        null: device('char', 1, 3),
        char: whiteout,
        xattr: xattrWhiteout(),
        user: file('', { xattrs: { 'user.overlay.whiteout': 'y' } }),
        'not empty': file('x', { xattrs: { 'trusted.overlay.whiteout': 'y' } }),
        '.wh.dotted': '',
        '.wh.both': '',
        both: 'x',
      },
    ],
  })
  const { u } = stateOf(t, readOnlyOptions(where))
  const root = u.lowers[0]!.root
  const st = new Stat()
  const found = (name: string): number => lookupInDirectory(u, root, name, st)
  for (const name of ['char', 'xattr', 'dotted']) t.equal(found(name), Found.WHITEOUT, name)
  t.equal(found('user'), Found.FILE, 'any user could have marked it')
  for (const name of ['link', 'null', 'not empty', 'both', 'file\xff'])
    t.equal(found(name), Found.FILE, name)
  t.equal(st.size, 1, 'with its attributes')
  t.equal(found('d'), Found.DIRECTORY)
  t.equal(found('none'), Found.NOTHING)
  t.equal(found('n'.repeat(256)), Found.NOTHING, 'as the kernel')
  const under = (name: string): number =>
    lookupInDirectory(u, new RealDir(root.layer, root, name), 'x', st)
  t.equal(under('gone'), Found.NOTHING, 'a directory that is not there')
  t.equal(under('file\xff'), -E.ENOTDIR, 'no directory')
  t.equal(under('link'), -E.ENOTDIR, 'a symlink is not followed')
  t.equal(
    lookupInDirectory(u, new RealDir(root.layer, null, 'd'), 'x', st),
    Found.NOTHING,
    'one removed',
  )
})

t.test('the overlay xattrs of a directory', { skip: skipUnions }, async t => {
  const where = unionDirectories(t, {
    lower: [
      {
        'plain/': dir(),
        'y/': opaque(),
        'user/': opaque('user'),
        'x/': withOverlayXattrs({ opaque: 'x' }),
        'other/': withOverlayXattrs({ opaque: 'n' }),
        'old/': dir({ xattrs: { 'user.fuseoverlayfs.opaque': 'y' } }),
        'name/': withOverlayXattrs({ redirect: 'na\xffme' }),
        'path/': withOverlayXattrs({ redirect: '/a/b' }),
        'foreign/': withOverlayXattrs({ redirect: '/a/b' }, {}, 'user'),
        'wrong/': withOverlayXattrs({ redirect: '../a' }),
        'impure/': withOverlayXattrs({ impure: 'y' }),
        'dotted/.wh..wh..opq': '',
        'replaced/': dir(),
        '.wh.replaced': '',
      },
      {},
    ],
  })
  const { u } = stateOf(t, readOnlyOptions(where))
  const root = u.lowers[0]!.root
  const marks = (name: string, last = false): unknown[] => {
    const child = new RealDir(root.layer, root, name)
    const found = new DirectoryXattrs()
    const result = readDirectoryXattrs(u, child, root, name, last, found)
    return [result, found.opaque, found.redirect, child.xattrWhiteouts, child.impure]
  }
  t.strictSame(marks('plain'), [0, false, '', false, false])
  for (const name of ['user', 'old'])
    t.strictSame(marks(name), [0, false, '', false, false], `${name}: any user could have set it`)
  for (const name of ['y', 'dotted', 'replaced'])
    t.strictSame(marks(name), [0, true, '', false, false], name)
  t.strictSame(marks('x'), [0, false, '', true, false])
  t.strictSame(marks('other'), [0, false, '', false, false])
  t.strictSame(marks('name'), [0, false, 'na\xffme', false, false])
  t.strictSame(marks('path'), [0, false, '/a/b', false, false])
  t.strictSame(marks('foreign'), [0, false, '', false, false], 'any user could have set it')
  t.strictSame(marks('impure'), [0, false, '', false, true])
  t.equal(marks('wrong')[0], -E.EINVAL)
  t.strictSame(marks('dotted', true), [0, false, '', false, false], 'nothing below to hide')
})
