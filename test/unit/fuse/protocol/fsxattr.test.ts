import * as fc from 'fast-check'
import t from 'tap'

import { flagsOfFsx, fsxOfFlags, otherFsx } from '../../../../src/fuse/protocol/fsxattr.js'

const word = fc.integer({ min: 0, max: 0xffff_ffff })

t.test('flags survive the translation in both directions', async () => {
  fc.assert(fc.property(word, flags => flagsOfFsx(fsxOfFlags(flags), flags) === flags))
})

t.test('the new flags do not depend on the old ones', async () => {
  fc.assert(
    fc.property(word, word, (xflags, before) => {
      const known = fsxOfFlags(0xffff_ffff)
      return fsxOfFlags(flagsOfFsx(xflags, before)) === (xflags & known)
    }),
  )
})

t.test('flags without a counterpart stay unchanged', async () => {
  const told = flagsOfFsx(0xffff_ffff, 0)
  fc.assert(
    fc.property(
      word,
      word,
      (xflags, before) => (flagsOfFsx(xflags, before) & ~told) === (before & ~told),
    ),
  )
})

t.test('numbers of linux/fs.h', async t => {
  t.equal(fsxOfFlags(0x10), 0x8, 'immutable')
  t.equal(fsxOfFlags(0x20), 0x10, 'append-only')
  t.equal(fsxOfFlags(0x80 | 0x40), 0x40 | 0x80, 'noatime and nodump')
  t.equal(fsxOfFlags(0x2000_0000), 0x200, 'inherits the project')
  t.equal(fsxOfFlags(0x4000_0000), 0, 'no case folding')
  t.notOk(otherFsx(0x8 | 0x10 | 0x20 | 0x40 | 0x80 | 0x200 | 0x8000))
  for (const other of [0x1, 0x2, 0x100, 0x8000_0000]) t.ok(otherFsx(other | 0x8))
})
