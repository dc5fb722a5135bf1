import t from 'tap'

import { Tidy } from '../../../../src/fuse/device/idle-gc.js'
import { collectGarbage } from '../../../../src/overlay/inode/heap.js'

t.test('it collects after enough was forgotten, once', async t => {
  let collected = 0
  const tidy = new Tidy(() => collected++)
  tidy.forgot(19_999)
  t.equal(tidy.patience, -1, 'not worth it')
  tidy.forgot(1)
  t.ok(tidy.patience > 0)
  tidy.quiet()
  t.equal(collected, 1)
  t.equal(tidy.patience, -1)
})

t.test('what is not used any more goes', async t => {
  const gone = new WeakRef({ big: 'x'.repeat(100) })
  // A reference that was just looked at is kept to the end of the turn.
  await new Promise(resolve => setImmediate(resolve))
  collectGarbage()
  t.equal(gone.deref(), undefined)
})
