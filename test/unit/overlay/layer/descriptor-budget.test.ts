import t from 'tap'

import { BoundedCache } from '../../../../src/overlay/layer/bounded-cache.js'
import {
  directoryBudget,
  RESERVED,
  MAX_BUDGET,
  setDescriptorLimit,
  shareCounters,
  inodeFileBudget,
  THREADS,
} from '../../../../src/overlay/layer/descriptor-budget.js'

t.test('all threads and unions together stay below the limit', async t => {
  const cell = new Int32Array(2)
  shareCounters(cell)
  for (const limit of [1024, 4096, 20_000, 1 << 20]) {
    for (const threads of [1, 2, 8]) {
      for (const held of [12, limit >> 2, limit >> 1]) {
        setDescriptorLimit(limit)
        cell[THREADS] = threads
        cell[RESERVED] = held
        const each = directoryBudget() + inodeFileBudget()
        t.ok(each * threads + held < limit, `${limit}, ${threads} threads, ${held} held`)
      }
    }
  }
  t.equal(directoryBudget(), MAX_BUDGET)
  setDescriptorLimit(64)
  t.equal(directoryBudget(), 16, 'as many as an operation needs')
})

const key = (name: string): { name: string } => ({ name })

t.test('a cache whose bound changes', async t => {
  let bound = 4
  const closed: string[] = []
  const cache = new BoundedCache<{ name: string }, number>(
    8,
    () => bound,
    (value, { name }) => closed.push(`${name}${value}`),
  )
  const [a, b, c, d, e] = [key('a'), key('b'), key('c'), key('d'), key('e')]
  for (const one of [a, b, c, d]) cache.set(one, 1)
  t.equal(cache.get(a), 1)
  cache.set(e, 1)
  t.strictSame(closed.splice(0), ['b1'], 'the longest unused')
  bound = 2
  cache.trim()
  t.strictSame(closed.splice(0), ['c1', 'd1'])
  t.equal(cache.halve(2), false)
  t.equal(cache.halve(1), true)
  t.strictSame(closed.splice(0), ['a1'])
  cache.set(a, 2)
  cache.close(({ name }) => name === 'a')
  t.strictSame(closed.splice(0), ['a2'])
  cache.close()
  t.strictSame([closed, cache.size], [['e1'], 0])
})
