import * as fs from 'node:fs'

import t from 'tap'

import { RealDir } from '../../../../src/overlay/layer/layer.js'
import { OverlayXattrs } from '../../../../src/overlay/layer/overlay-xattrs.js'
import {
  hasOpaqueFile,
  hasDotWhiteout,
  isDotWhiteoutName,
  isWhiteout,
} from '../../../../src/overlay/layer/whiteout.js'
import { statxat } from '../../../../src/sys/at.js'
import { E } from '../../../../src/sys/errno.js'
import { Stat } from '../../../../src/sys/stat.js'
import {
  device,
  dir,
  file,
  symlink,
  unionDirectories,
  whiteout,
  xattrWhiteout,
} from '../../../helpers/layers.js'
import { readOnlyOptions } from '../../../helpers/union.js'
import { skipUnions, stateOf } from '../support.js'

t.test('names', async t => {
  for (const name of ['.wh.', '.wh.a', '.wh..wh..opq', '.wh..wh.plnk'])
    t.ok(isDotWhiteoutName(name))
  for (const name of ['.wh', 'a.wh.b', '.WH.a', '']) t.notOk(isDotWhiteoutName(name))
})

t.test('objects', { skip: skipUnions }, async t => {
  const where = unionDirectories(t, {
    lower: [
      {
        char: whiteout,
        trusted: xattrWhiteout(),
        user: xattrWhiteout('user'),
        long: file('', { xattrs: { 'user.overlay.whiteout': 'y'.repeat(600) } }),
        full: file('x', { xattrs: { 'trusted.overlay.whiteout': 'y' } }),
        'directory/': dir({ xattrs: { 'trusted.overlay.whiteout': 'y' } }),
        link: symlink('char'),
        other: device('char', 0, 1),
        block: device('block', 0, 0),
        empty: '',
      },
    ],
  })
  const fd = fs.openSync(where.lower[0]!, 'r')
  t.teardown(() => fs.closeSync(fd))
  const st = new Stat()
  const marks = (userxattr: boolean, lower: boolean): string[] =>
    fs.readdirSync(where.lower[0]!).filter(name => {
      t.equal(statxat(fd, name, st), 0)
      return isWhiteout(new OverlayXattrs(userxattr), fd, name, st, lower) > 0
    })
  t.strictSame(marks(false, true), ['char', 'trusted'], 'any user could have marked the others')
  t.strictSame(marks(false, false), ['char', 'trusted'])
  t.strictSame(marks(true, true), ['char', 'long', 'trusted', 'user'])
  t.strictSame(marks(true, false), ['char', 'long', 'user'])
})

t.test('a directory is probed name by name, and listed after many probes', async t => {
  if (skipUnions !== false) return t.comment(skipUnions)
  const longest = 'n'.repeat(251)
  const where = unionDirectories(t, {
    lower: [{ '.wh.gone\xff': '', [`.wh.${longest}`]: '', '.wh..wh..opq': '', plain: '' }],
  })
  const { u, complaints } = stateOf(t, readOnlyOptions(where))
  const layer = u.lowers[0]!
  const real = new RealDir(layer, null, '')
  const has = (name: string): boolean => hasDotWhiteout(u, real, layer.fd, name) > 0
  const answers = (): boolean[] => ['gone\xff', longest, 'plain', 'gone', 'n'.repeat(252)].map(has)
  const first = answers()
  t.strictSame(first, [true, true, false, false, false])
  t.equal(real.dotWhiteouts, undefined)
  for (let i = 0; i < 12; i++) has(`some ${i}`)
  t.same(real.dotWhiteouts, new Set(['gone\xff', longest, '.wh..opq']))
  t.strictSame(answers(), first, 'with the same answers')
  fs.writeFileSync(`${where.lower[0]}/.wh.late`, '')
  t.notOk(has('late'), 'the layer of a mounted union does not change')

  const unreadable = new RealDir(layer, null, '')
  for (let i = 0; i < 20; i++) t.equal(hasDotWhiteout(u, unreadable, -1, 'x'), -E.EBADF)
  t.equal(unreadable.dotWhiteouts, undefined)
  t.ok(complaints.length > 0, 'a directory that cannot be read')
})

t.test('a directory with the opaque file is opaque', async t => {
  const where = unionDirectories(t, { lower: [{ 'd/.wh..wh..opq': '', 'e/': '', f: '' }] })
  const fd = fs.openSync(where.lower[0]!, 'r')
  t.teardown(() => fs.closeSync(fd))
  t.strictSame(
    ['d', 'e', 'f', 'none'].map(name =>
      hasOpaqueFile({ xattrs: new OverlayXattrs(false) }, true, fd, name),
    ),
    [1, 0, 0, 0],
  )
})
