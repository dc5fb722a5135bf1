import t from 'tap'

import {
  markBegun,
  markAlive,
  markDead,
  endCell,
  markEnded,
  markDone,
  giveUp,
  hasBegun,
  hasEnded,
  isDead,
  isStarting,
  isDone,
  LOADING,
  threadCell,
} from '../../../../src/overlay/jobs/cells.js'

t.test('the first side wins', async t => {
  const alive = threadCell()
  t.ok(isStarting(alive))
  t.ok(markAlive(alive))
  t.notOk(isStarting(alive))
  t.notOk(giveUp(alive), 'it lives')
  t.ok(markAlive(alive), 'which it may say again')
  const late = threadCell()
  t.ok(giveUp(late))
  t.notOk(giveUp(late), 'once')
  t.notOk(markAlive(late))
  t.notOk(isStarting(late))
  t.ok(isDone(late, 5), 'it does nothing')
})

t.test('tasks that a thread has begun and completed', async t => {
  const cell = threadCell()
  t.notOk(isDone(cell, LOADING), 'it loads')
  t.notOk(hasBegun(cell, LOADING))
  markAlive(cell)
  t.notOk(isDone(cell, LOADING), 'it still does')
  markDone(cell, LOADING)
  t.ok(isDone(cell, LOADING))
  markBegun(cell, 1)
  t.ok(hasBegun(cell, 1))
  t.notOk(hasBegun(cell, 2))
  t.notOk(isDone(cell, 1))
  markDone(cell, 1)
  t.ok(isDone(cell, 1))
  t.notOk(isDone(cell, 2))
  // Task numbers wrap around.
  const last = 2 ** 31 - 1
  markDone(cell, last)
  t.notOk(isDone(cell, (last + 1) | 0))
  markDone(cell, (last + 1) | 0)
  t.ok(isDone(cell, last))
  t.notOk(isDead(cell))
  markDead(cell)
  t.ok(isDead(cell))
  t.ok(isDone(cell, 100))
})

t.test('a union that has ended', async t => {
  const cell = endCell()
  t.notOk(hasEnded(cell))
  markEnded(cell)
  t.ok(hasEnded(cell))
})
