import t from 'tap'

import { StatsQueries } from '../../../../src/fuse/session/stats.js'

t.test('each query gets its own answer', async t => {
  const stats = new StatsQueries()
  const told: number[] = []
  const tell = (id: number): boolean => told.push(id) > 0
  const first = stats.ask(tell)
  const second = stats.ask(tell)
  const third = stats.ask(tell)
  t.equal(new Set(told).size, 3)
  const [one = 0, two = 0] = told
  stats.answer(two, { requests: 2 })
  stats.answer(one, { requests: 1 })
  stats.answer(one, { requests: 9 })
  stats.answer(99, { requests: 99 })
  t.same(await first, { requests: 1 })
  t.same(await second, { requests: 2 })
  stats.end()
  t.same(await third, {}, 'nobody is left waiting')
  t.same(await stats.ask(() => false), {}, 'nor asks nobody')
})
