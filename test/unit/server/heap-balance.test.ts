import t from 'tap'

import { balance } from '../../../src/server/heap-balance.js'

const rig = (sizes: readonly number[], heap: { isHigh: boolean; isFull: boolean }) => {
  const unions = sizes.map(nodes => ({
    nodes,
    full: true,
    gave: 0,
    forgetUnused() {
      this.gave++
    },
  }))
  balance(unions, heap)
  return { full: unions.map(({ full }) => full), gave: unions.map(({ gave }) => gave) }
}

t.test('the union that gives nodes back', async t => {
  const sizes = [10, 5000, 20, 4000]
  t.same(rig(sizes, { isHigh: false, isFull: false }), {
    full: [false, false, false, false],
    gave: [0, 0, 0, 0],
  })
  t.same(rig(sizes, { isHigh: true, isFull: false }), {
    full: [false, false, false, false],
    gave: [0, 1, 0, 0],
  })
  t.same(rig(sizes, { isHigh: true, isFull: true }), {
    full: [false, true, false, true],
    gave: [0, 1, 0, 0],
  })
  t.same(rig([7], { isHigh: true, isFull: true }), { full: [true], gave: [1] })
  t.same(rig([], { isHigh: true, isFull: true }), { full: [], gave: [] })
})
