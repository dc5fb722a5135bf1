import t from 'tap'

import { comesAlive, giveUp, isStarting, startCell } from '../../../src/overlay/io-start.js'

t.test('who comes first wins', async t => {
  const alive = startCell()
  t.ok(isStarting(alive))
  t.ok(comesAlive(alive))
  t.notOk(isStarting(alive))
  t.notOk(giveUp(alive), 'it lives')
  t.ok(comesAlive(alive), 'which it may say again')
  const late = startCell()
  t.ok(giveUp(late))
  t.notOk(giveUp(late), 'once')
  t.notOk(comesAlive(late))
  t.notOk(isStarting(late))
})
