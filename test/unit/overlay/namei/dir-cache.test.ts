import t from 'tap'

import {
  DOT_DOT,
  indexAfter,
  DirCache,
  sortByCookie,
  cookieOf,
  type CachedName,
} from '../../../../src/overlay/namei/dir-cache.js'

const entry = (name: string, cookie = cookieOf(name)): CachedName => ({
  name,
  ino: 1,
  inoKnown: true,
  type: 8,
  layer: 0,
  cookie,
})

/** Two names with the same hash, found by trial. */
const colliding = (): [string, string] => {
  const seen = new Map<number, string>()
  for (let i = 0; ; i++) {
    const name = `n${i}`
    const other = seen.get(cookieOf(name))
    if (other !== undefined) return [other, name]
    seen.set(cookieOf(name), name)
  }
}

t.test('a cookie depends on the name, has 31 bits and comes after the dots', async t => {
  const names = ['a', 'b', 'ab', 'ba', '\xff', 'x'.repeat(255)]
  for (let i = 0; i < 100_000; i++) names.push(`file-${i}`)
  const places = names.map(cookieOf)
  t.ok(places.every(place => place > DOT_DOT && place <= 0x7fff_ffff && Number.isInteger(place)))
  t.strictSame(names.map(cookieOf), places)
  t.ok(new Set(places).size > names.length - 20, 'spread evenly')
})

t.test('names with the same hash get different cookies', async t => {
  const [a, b] = colliding()
  for (const names of [
    [a, b],
    [b, a],
  ]) {
    const entries = sortByCookie([entry('z'), ...names.map(name => entry(name))])
    t.equal(new Set(entries.map(e => e.cookie)).size, 3)
    const [first, second] = [a, b].toSorted()
    t.equal(entries.find(e => e.name === first)?.cookie, cookieOf(a))
    t.equal(entries.find(e => e.name === second)?.cookie, cookieOf(a) + 1)
  }
  const pushed = sortByCookie([entry('a', 5), entry('b', 5), entry('c', 6), entry('d', 9)])
  t.strictSame(
    pushed.map(e => e.cookie),
    [5, 6, 7, 9],
  )
})

t.test('the first entry after a cookie', async t => {
  const entries = [3, 5, 9].map(cookie => entry('x', cookie))
  const found = [0, 2, 3, 4, 5, 8, 9, 2 ** 40].map(cookie => indexAfter(entries, cookie))
  t.strictSame(found, [0, 0, 1, 1, 2, 2, 3, 3])
  t.equal(indexAfter([], 0), 0)
})

t.test('which layer a name comes from', async t => {
  const [a, b] = colliding()
  const dirCache = new DirCache()
  const layerOf = (name: string): number => dirCache.topmost(7, name)
  t.equal(layerOf(a), 0, 'nothing is known')
  const named = [a, b, 'c'].map((name, i) => ({ ...entry(name), layer: i + 1 }))
  dirCache.set(7, sortByCookie([...named]))
  t.strictSame(
    [a, b, 'c'].map(name => layerOf(name)),
    [1, 2, 3],
  )
  t.equal(layerOf('none'), Infinity)
  t.equal(dirCache.topmost(8, 'c'), 0, 'another directory')
  dirCache.readToEnd(7, 3)
  t.equal(layerOf('c'), 3)
  dirCache.readToEnd(7, 2)
  t.equal(layerOf('c'), 0)
  // The cookies of these names lie close to each other.
  const names = Array.from({ length: 3000 }, (_, i) => `name-${i}`)
  const crowded = names.map((name, i) => ({ ...entry(name), layer: i }))
  const close = crowded.map(one => ({ ...one, cookie: cookieOf(one.name) }))
  dirCache.set(7, sortByCookie(close))
  t.ok(names.every((name, i) => layerOf(name) === i))
  t.ok(names.every(name => layerOf(`${name}.`) === Infinity))
})

t.test('the cache is bounded', async t => {
  const dirCache = new DirCache()
  const kept = (): number[] =>
    Array.from({ length: 200 }, (_, id) => id).filter(id => dirCache.get(id) !== undefined)
  for (let id = 0; id < 100; id++) dirCache.set(id, [entry('a')])
  t.strictSame(
    kept(),
    Array.from({ length: 64 }, (_, i) => 36 + i),
    'the oldest go first',
  )
  dirCache.drop(50)
  dirCache.forget(51)
  dirCache.forget(4711)
  t.notOk(kept().includes(50) || kept().includes(51))
  dirCache.set(40, [])
  dirCache.set(100, [entry('b')])
  dirCache.set(101, [entry('b')])
  t.ok(kept().includes(40) && kept().includes(36), 'made again, it is the newest')
  const large = Array.from({ length: 200_000 }, (_, i) => entry('x', i))
  dirCache.set(150, large)
  t.strictSame(kept(), [150], 'a large one drives out all others')
  dirCache.set(151, [entry('a')])
  t.strictSame(kept(), [151])
})
