import t from 'tap'

import {
  DOT_DOT,
  indexAfter,
  Listings,
  order,
  placeOf,
  type Listed,
} from '../../../../src/overlay/namei/dir-cache.js'

const entry = (name: string, cookie = placeOf(name)): Listed => ({
  name,
  ino: 1,
  inoKnown: true,
  type: 8,
  layer: 0,
  cookie,
})

/** Two names with one place, found by trying. */
const colliding = (): [string, string] => {
  const seen = new Map<number, string>()
  for (let i = 0; ; i++) {
    const name = `n${i}`
    const other = seen.get(placeOf(name))
    if (other !== undefined) return [other, name]
    seen.set(placeOf(name), name)
  }
}

t.test('a place follows from the name, fits into 31 bits and comes after the dots', async t => {
  const names = ['a', 'b', 'ab', 'ba', '\xff', 'x'.repeat(255)]
  for (let i = 0; i < 100_000; i++) names.push(`file-${i}`)
  const places = names.map(placeOf)
  t.ok(places.every(place => place > DOT_DOT && place <= 0x7fff_ffff && Number.isInteger(place)))
  t.strictSame(names.map(placeOf), places)
  t.ok(new Set(places).size > names.length - 20, 'spread evenly')
})

t.test('names that share a place get one each', async t => {
  const [a, b] = colliding()
  for (const names of [
    [a, b],
    [b, a],
  ]) {
    const entries = order([entry('z'), ...names.map(name => entry(name))])
    t.equal(new Set(entries.map(e => e.cookie)).size, 3)
    const [first, second] = [a, b].toSorted()
    t.equal(entries.find(e => e.name === first)?.cookie, placeOf(a))
    t.equal(entries.find(e => e.name === second)?.cookie, placeOf(a) + 1)
  }
  const pushed = order([entry('a', 5), entry('b', 5), entry('c', 6), entry('d', 9)])
  t.strictSame(
    pushed.map(e => e.cookie),
    [5, 6, 7, 9],
  )
})

t.test('the first after a place', async t => {
  const entries = [3, 5, 9].map(cookie => entry('x', cookie))
  const found = [0, 2, 3, 4, 5, 8, 9, 2 ** 40].map(cookie => indexAfter(entries, cookie))
  t.strictSame(found, [0, 0, 1, 1, 2, 2, 3, 3])
  t.equal(indexAfter([], 0), 0)
})

t.test('which layer a name comes from', async t => {
  const [a, b] = colliding()
  const listings = new Listings()
  const layerOf = (name: string): number => listings.topmost(7, name)
  t.equal(layerOf(a), 0, 'nothing is known')
  const named = [a, b, 'c'].map((name, i) => ({ ...entry(name), layer: i + 1 }))
  listings.keep(7, order([...named]))
  t.strictSame(
    [a, b, 'c'].map(name => layerOf(name)),
    [1, 2, 3],
  )
  t.equal(layerOf('none'), Infinity)
  t.equal(listings.topmost(8, 'c'), 0, 'another directory')
  listings.end(7, 3)
  t.equal(layerOf('c'), 3)
  listings.end(7, 2)
  t.equal(layerOf('c'), 0)
  // All that lie close to each other.
  const names = Array.from({ length: 3000 }, (_, i) => `name-${i}`)
  const crowded = names.map((name, i) => ({ ...entry(name), layer: i }))
  const close = crowded.map(one => ({ ...one, cookie: placeOf(one.name) }))
  listings.keep(7, order(close))
  t.ok(names.every((name, i) => layerOf(name) === i))
  t.ok(names.every(name => layerOf(`${name}.`) === Infinity))
})

t.test('what is kept is bounded', async t => {
  const listings = new Listings()
  const kept = (): number[] =>
    Array.from({ length: 200 }, (_, id) => id).filter(id => listings.get(id) !== undefined)
  for (let id = 0; id < 100; id++) listings.keep(id, [entry('a')])
  t.strictSame(
    kept(),
    Array.from({ length: 64 }, (_, i) => 36 + i),
    'the oldest go first',
  )
  listings.drop(50)
  listings.forget(51)
  listings.forget(4711)
  t.notOk(kept().includes(50) || kept().includes(51))
  listings.keep(40, [])
  listings.keep(100, [entry('b')])
  listings.keep(101, [entry('b')])
  t.ok(kept().includes(40) && kept().includes(36), 'made again, it is the newest')
  const large = Array.from({ length: 200_000 }, (_, i) => entry('x', i))
  listings.keep(150, large)
  t.strictSame(kept(), [150], 'a large one drives out all others')
  listings.keep(151, [entry('a')])
  t.strictSame(kept(), [151])
})
