import t from 'tap'

import { Heap } from '../../../../src/overlay/inode/heap.js'

/** A heap with a given used fraction before and after a collection. */
const rig = () => {
  const state = { used: 0, live: 0, collections: 0, told: 0 }
  const heap = new Heap(
    () => state.used,
    () => {
      state.collections++
      state.used = state.live
    },
  )
  heap.onCollected = () => state.told++
  return { heap, state }
}

t.test('it collects if the heap is full and has grown', async t => {
  const { heap, state } = rig()
  state.used = 0.49
  heap.allocated(4096)
  t.equal(state.collections, 0)
  Object.assign(state, { used: 0.6, live: 0.4 })
  heap.allocated(4095)
  t.equal(state.collections, 0, 'few objects')
  heap.allocated(1)
  t.strictSame([state.collections, state.told], [1, 1])
  t.notOk(heap.isHigh, 'it was garbage')
  Object.assign(state, { used: 0.6, live: 0.55 })
  heap.allocated(4096)
  t.strictSame([state.collections, heap.isHigh, heap.isFull], [2, true, false])
  state.used = 0.6
  heap.allocated(4096)
  t.equal(state.collections, 2, 'hardly more than before')
  Object.assign(state, { used: 0.8, live: 0.8 })
  heap.allocated(4096)
  t.strictSame([state.collections, heap.isFull], [3, true])
  state.live = 0.2
  heap.collect()
  t.strictSame([heap.isHigh, heap.isFull, heap.used], [false, false, 0.2])
})

t.test('garbage leaves room', async t => {
  const { heap, state } = rig()
  state.used = 0.7
  t.ok(heap.hasRoom())
  t.equal(state.collections, 0)
  Object.assign(state, { used: 0.8, live: 0.3 })
  t.ok(heap.hasRoom())
  t.equal(state.collections, 1)
  Object.assign(state, { used: 0.8, live: 0.79 })
  t.notOk(heap.hasRoom())
})
