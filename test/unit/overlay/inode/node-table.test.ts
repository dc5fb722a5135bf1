import * as fc from 'fast-check'
import t from 'tap'

import { IdTable } from '../../../../src/overlay/inode/node-table.js'

t.test('as a map', async t => {
  const step = fc.oneof(
    { weight: 4, arbitrary: fc.record({ add: fc.integer({ min: 1, max: 400 }) }) },
    { weight: 4, arbitrary: fc.record({ drop: fc.nat() }) },
    { weight: 1, arbitrary: fc.record({ dropAll: fc.constant(true) }) },
    { weight: 2, arbitrary: fc.record({ ask: fc.nat(5000) }) },
  )
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), fc.nat(2 ** 40), (steps, first) => {
      const table = new IdTable<{ id: number }>()
      const map = new Map<number, { id: number }>()
      let next = first
      const drop = (id: number): boolean => table.delete(id) === map.delete(id)
      const same = steps.every(it => {
        if ('add' in it) {
          for (let n = 0; n < it.add; n++) {
            const value = { id: next }
            table.add(next, value)
            map.set(next++, value)
          }
          return true
        }
        if ('drop' in it) {
          const ids = [...map.keys()]
          return drop(ids[it.drop % ids.length] ?? it.drop)
        }
        if ('dropAll' in it) return [...map.keys()].every(drop)
        return table.get(first + it.ask) === map.get(first + it.ask) && drop(first + it.ask)
      })
      const all: { id: number }[] = []
      table.forEach(value => all.push(value))
      const sorted = all.toSorted((a, b) => a.id - b.id)
      return (
        same &&
        table.size === map.size &&
        sorted.every((value, i) => value === [...map.values()][i]) &&
        [...map].every(([id, value]) => table.get(id) === value)
      )
    }),
  )
  t.pass('for every sequence of steps')
})
