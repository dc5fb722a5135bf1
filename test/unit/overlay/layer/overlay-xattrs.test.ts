import * as fs from 'node:fs'

import * as fc from 'fast-check'
import t from 'tap'

import {
  isXattrRefusal,
  XattrBit,
  OverlayXattrs,
} from '../../../../src/overlay/layer/overlay-xattrs.js'
import { E } from '../../../../src/sys/errno.js'
import { listxattrNames } from '../../../../src/sys/xattr.js'
import { build, dir, file, withOverlayXattrs, scratch } from '../../../helpers/layers.js'
import { skipUnions } from '../support.js'

t.test('a stored name is shown unchanged, and is never an overlay xattr', async t => {
  const part = fc.constantFrom('trusted.', 'user.', 'overlay.', 'opaque', 'x', '\xff')
  fc.assert(
    fc.property(fc.array(part, { maxLength: 5 }), fc.boolean(), (parts, userxattr) => {
      const marks = new OverlayXattrs(userxattr)
      const name = parts.join('')
      const stored = marks.escape(name)
      return (
        !marks.isPrivate(stored) &&
        marks.unescape(stored) === name &&
        (stored === name || marks.isEscaped(stored))
      )
    }),
  )
  const marks = new OverlayXattrs(false)
  t.equal(marks.escape('trusted.overlay.opaque'), 'trusted.overlay.overlay.opaque')
  t.ok(marks.isPrivate('trusted.overlay.anything'))
  t.notOk(marks.isPrivate('user.overlay.opaque'), 'of the other prefix')
})

t.test('refusals', async t => {
  t.strictSame([0, 5, -E.EOPNOTSUPP, -E.EPERM, -E.ENOSYS, -E.ENOSPC, -E.EIO].map(isXattrRefusal), [
    false,
    false,
    true,
    true,
    true,
    false,
    false,
  ])
})

t.test('on real objects', { skip: skipUnions }, async t => {
  const many = Object.fromEntries(
    Array.from({ length: 20 }, (_, i) => [`user.${String(i).padStart(60, 'n')}`, 'x']),
  )
  const all = [
    'opaque',
    'redirect',
    'metacopy',
    'origin',
    'impure',
    'whiteout',
    'protattr',
    'nlink',
    'ordinary',
  ]
  const top = scratch(t)
  build(top, {
    'trusted/': withOverlayXattrs(Object.fromEntries(all.map(mark => [mark, 'v']))),
    'user/': withOverlayXattrs(Object.fromEntries(all.map(mark => [mark, 'v'])), {}, 'user'),
    'old/': dir({ xattrs: { 'user.fuseoverlayfs.opaque': 'y' } }),
    'long/': withOverlayXattrs({ redirect: '/' + 'r'.repeat(800) }, { xattrs: many }),
    'strange/': withOverlayXattrs({ unknown: 'v', 'overlay.opaque': 'y' }),
    plain: file(''),
  })
  const fd = fs.openSync(top, 'r')
  t.teardown(() => fs.closeSync(fd))
  const marks = new OverlayXattrs(false)
  const everything = Object.values(XattrBit).reduce((sum, bit) => sum | bit, 0)

  t.test('the xattrs of an object', async t => {
    t.equal(marks.read(fd, 'trusted', false), everything)
    t.equal(new OverlayXattrs(true).read(fd, 'user', false), everything)
    t.equal(marks.read(fd, 'user', false), 0)
    t.equal(marks.read(fd, 'user', true), 0, 'any user could have set them')
    t.equal(marks.read(fd, 'old', true), 0)
    const told: string[] = []
    const cautious = new OverlayXattrs(false, () => void told.push('skipped'))
    for (const name of ['plain', 'user', 'old', 'user']) cautious.read(fd, name, true)
    t.strictSame(told, ['skipped'], 'it is reported once')
    const users = new OverlayXattrs(true)
    t.equal(
      users.read(fd, 'trusted', true),
      XattrBit.OPAQUE | XattrBit.WHITEOUT,
      'root has set the xattrs that hide names',
    )
    t.equal(users.read(fd, 'trusted', false), 0, 'but not in the upper layer')
    t.equal(users.read(fd, 'old', true), XattrBit.OPAQUE)
    t.equal(users.read(fd, 'old', false), 0)
    t.equal(marks.read(fd, 'long', false), XattrBit.REDIRECT, 'among many')
    t.equal(marks.read(fd, 'strange', true), 0)
    t.equal(marks.read(fd, 'none', true), -E.ENOENT)
  })

  t.test('their values', async t => {
    t.equal(marks.value(fd, 'long', 'redirect'), '/' + 'r'.repeat(800))
    t.equal(marks.value(fd, 'long', 'opaque'), null)
    t.equal(marks.opaque(fd, 'user', false), '')
    t.equal(marks.opaque(fd, 'user', true), '')
    t.equal(new OverlayXattrs(true).opaque(fd, 'user', true), 'v')
    t.equal(new OverlayXattrs(true).opaque(fd, 'trusted', true), 'v')
    t.equal(new OverlayXattrs(true).opaque(fd, 'trusted', false), '')
    t.equal(new OverlayXattrs(true).opaque(fd, 'old', true), 'y')
    const bytes = '\0\x80\xff'
    t.equal(marks.set(fd, 'plain', 'origin', bytes), 0)
    t.equal(marks.value(fd, 'plain', 'origin'), bytes)
  })

  t.test('making a directory opaque', async t => {
    const directory = fs.openSync(`${top}/old`, 'r')
    t.teardown(() => fs.closeSync(directory))
    t.equal(marks.canSet(directory), 1)
    t.strictSame(
      listxattrNames(directory, ''),
      ['user.fuseoverlayfs.opaque'],
      'a probe leaves nothing',
    )
    t.equal(marks.setXattrWhiteouts(directory), 0)
    t.equal(marks.opaque(directory, '', false), 'x')
    t.equal(marks.setOpaque(fd, 'old'), 0)
    t.equal(marks.setXattrWhiteouts(directory), 0)
    t.equal(marks.opaque(directory, '', false), 'y', 'one that is opaque stays so')
    const proc = fs.openSync('/proc/self', 'r')
    t.teardown(() => fs.closeSync(proc))
    t.equal(marks.canSet(proc), 0)
    t.equal(marks.setOpaque(proc, 'task'), -E.ENOENT, 'nor can a file in it say so')
  })
})
