import t from 'tap'
import { Inos, listedStat, statfsOf, statOf } from '../../../src/fuse-native/attrs.js'
import { Attr, StatFsOut } from '../../../src/overlay/ops.js'

const TWO_32 = 0x1_0000_0000

t.test('inode numbers', async t => {
  const inos = new Inos()
  t.equal(inos.shown(7), 7)
  t.equal(inos.shown(TWO_32 - 7), TWO_32 - 7)
  const large = inos.shown(TWO_32 + 7)
  t.ok(large < TWO_32)
  t.not(inos.shown(2 * TWO_32 + 7), large, 'what is the same in 32 bits is told apart')
  t.not(inos.shown(0xffff_ffff_ffff_fff0n), large)
  t.equal(inos.shown(TWO_32 + 7), large, 'and stays')
})

t.test('attributes', async t => {
  const attr = new Attr()
  attr.nlink = 0
  attr.rdevMajor = 250
  attr.rdevMinor = 70_000
  attr.atimeSec = 12
  attr.atimeNsec = 345_999_999
  attr.mtimeSec = -1
  attr.mtimeNsec = 999_999_999
  const stat = statOf(attr, new Inos())
  t.match(stat, { atime: 12_345, mtime: 0, nlink: TWO_32 })
  t.equal(Uint32Array.of(stat.nlink)[0], 0, 'no link is no link')
  t.equal(stat.rdev, 0x1110_fa70, 'as new_encode_dev() has it')
  t.match(listedStat(TWO_32 * 3, 4, new Inos()), { mode: 0o040000, ino: TWO_32 - 1 })
})

t.test('counts that do not fit', async t => {
  const out = new StatFsOut()
  Object.assign(out, { bsize: 4096, frsize: 4096, blocks: TWO_32 * 3, bfree: TWO_32, bavail: 5 })
  Object.assign(out, { files: TWO_32 * 2, ffree: 3, namelen: 255 })
  t.match(statfsOf(out), {
    bsize: 16_384,
    frsize: 16_384,
    blocks: (TWO_32 * 3) / 4,
    bfree: TWO_32 / 4,
    bavail: 1,
    files: TWO_32 - 1,
    ffree: 3,
    favail: 3,
    namemax: 255,
  })
})
