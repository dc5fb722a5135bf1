import t from 'tap'

import { credibleAdjust, nlinkAdjust } from '../../../../src/overlay/copy-up/nlink.js'
import { Entry } from '../../../../src/overlay/ops.js'
import { link, unionDirectories } from '../../../helpers/layers.js'
import * as sys from '../../../helpers/syscalls.js'
import { optionsOf } from '../../../helpers/union.js'
import { skipUnions, stateOf } from '../support.js'

t.test('values of the nlink xattr', async t => {
  for (const [value, wanted] of [
    ['U+0', 0],
    ['U-1', -1],
    ['U+12', 12],
    ['U+1\0', 1],
    ['U', 0],
    ['', 0],
    [null, 0],
    ['U+1x', 0],
    ['X+1', 0],
    // The lower inode has three links, the upper one two. The union's count is 3 + n, whatever the
    // upper inode's count is.
    ['L+0', 1],
    ['L-1', 0],
    ['L+2', 3],
  ] as const)
    t.equal(nlinkAdjust(value, 2, 3), wanted, JSON.stringify(value))
  t.equal(
    nlinkAdjust('L+5', 4, null),
    -1,
    'without the lower inode the names of the upper one count',
  )
})

t.test('an impossible count is ignored', async t => {
  for (const value of ['U-2', 'U-99', 'L-3', 'L-9', 'U+2147483646', 'L+99999999999'])
    t.equal(credibleAdjust(value, 2, 3), 0, value)
  t.equal(credibleAdjust('U-1', 2, 3), -1)
  t.equal(credibleAdjust('L-2', 2, 3), -1)
})

t.test('which nlink xattr is used', { skip: skipUnions }, async t => {
  const where = unionDirectories(t, {
    lower: [{ one: '', a: '', b: link('a') }],
    upper: { f: '', g: link('f') },
  })
  const options = { ...optionsOf(where), userxattr: true as const }
  for (const value of ['U+5', 'U-1', 'U-2', 'L-1']) {
    t.equal(
      sys.setxattr(
        { path: `${where.upper}/f`, follow: true },
        'user.overlay.nlink',
        Buffer.from(value),
        0,
      ),
      0,
    )
    const { ops, close } = stateOf(t, options)
    const entry = new Entry()
    t.equal(ops.lookup(1, 'f', entry), 0)
    t.equal(entry.attr.nlink, 2, value)
    close()
  }
})
