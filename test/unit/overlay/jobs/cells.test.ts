import t from 'tap'

import {
  begins,
  comesAlive,
  dies,
  endCell,
  ends,
  finishes,
  giveUp,
  hasBegun,
  hasEnded,
  isDead,
  isStarting,
  isThrough,
  LOADING,
  threadCell,
} from '../../../../src/overlay/jobs/cells.js'

t.test('who comes first wins', async t => {
  const alive = threadCell()
  t.ok(isStarting(alive))
  t.ok(comesAlive(alive))
  t.notOk(isStarting(alive))
  t.notOk(giveUp(alive), 'it lives')
  t.ok(comesAlive(alive), 'which it may say again')
  const late = threadCell()
  t.ok(giveUp(late))
  t.notOk(giveUp(late), 'once')
  t.notOk(comesAlive(late))
  t.notOk(isStarting(late))
  t.ok(isThrough(late, 5), 'it does nothing')
})

t.test('what a thread has begun, and is done with', async t => {
  const cell = threadCell()
  t.notOk(isThrough(cell, LOADING), 'it loads')
  t.notOk(hasBegun(cell, LOADING))
  comesAlive(cell)
  t.notOk(isThrough(cell, LOADING), 'it still does')
  finishes(cell, LOADING)
  t.ok(isThrough(cell, LOADING))
  begins(cell, 1)
  t.ok(hasBegun(cell, 1))
  t.notOk(hasBegun(cell, 2))
  t.notOk(isThrough(cell, 1))
  finishes(cell, 1)
  t.ok(isThrough(cell, 1))
  t.notOk(isThrough(cell, 2))
  // Numbers begin again.
  const last = 2 ** 31 - 1
  finishes(cell, last)
  t.notOk(isThrough(cell, (last + 1) | 0))
  finishes(cell, (last + 1) | 0)
  t.ok(isThrough(cell, last))
  t.notOk(isDead(cell))
  dies(cell)
  t.ok(isDead(cell))
  t.ok(isThrough(cell, 100))
})

t.test('a union that has ended', async t => {
  const cell = endCell()
  t.notOk(hasEnded(cell))
  ends(cell)
  t.ok(hasEnded(cell))
})
