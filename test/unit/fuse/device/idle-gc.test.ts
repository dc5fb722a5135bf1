import t from 'tap'

import { IdleGc } from '../../../../src/fuse/device/idle-gc.js'
import { collectGarbage } from '../../../../src/overlay/inode/heap.js'

t.test('it collects once after enough nodes were forgotten', async t => {
  let collected = 0
  const idleGc = new IdleGc(() => collected++)
  idleGc.forgot(19_999)
  t.equal(idleGc.timeout, -1, 'not worth it')
  idleGc.forgot(1)
  t.ok(idleGc.timeout > 0)
  idleGc.run()
  t.equal(collected, 1)
  t.equal(idleGc.timeout, -1)
})

t.test('unreferenced objects are collected', async t => {
  const gone = new WeakRef({ big: 'x'.repeat(100) })
  // The engine keeps a recently read WeakRef's target until the end of the turn.
  await new Promise(resolve => setImmediate(resolve))
  collectGarbage()
  t.equal(gone.deref(), undefined)
})
