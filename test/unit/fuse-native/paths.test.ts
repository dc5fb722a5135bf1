import t from 'tap'
import { Dentry, Paths, type Place } from '../../../src/fuse-native/paths.js'
import { ROOT_ID } from '../../../src/overlay/ops.js'
import { E } from '../../../src/sys/errno.js'
import { NamesOps } from './support.js'

const found = (at: Dentry | number): Dentry => {
  if (typeof at === 'number') throw new Error(`errno ${-at}`)
  return at
}
const placed = (at: Place | number): Place => {
  if (typeof at === 'number') throw new Error(`errno ${-at}`)
  return at
}

t.test('a path is looked up once', async t => {
  const union = new NamesOps('/a', '/a/b', '/a/b/c')
  const paths = new Paths(union.ops)
  t.equal(found(paths.find('/')).id, ROOT_ID)
  const { id } = found(paths.find('/a/b/c'))
  t.equal(found(paths.find('/a/b/c')).id, id)
  t.equal(union.calls.length, 3)
  t.equal(paths.find('/a/none'), -E.ENOENT)
  t.equal(paths.find('/a/\ufffd'), -E.EILSEQ)
  const place = placed(paths.place('/a/b/new'))
  t.equal(place.directory, found(paths.find('/a/b')))
  t.equal(place.name, 'new')
  t.equal(paths.place('/none/new'), -E.ENOENT)
  paths.trim()
  t.same([...union.held.values()], [1, 1, 1], 'each holds one lookup')
})

t.test('names above the limit are forgotten, leaves first', async t => {
  const names = Array.from({ length: 20 }, (_, i) => `/d/f${i}`)
  const union = new NamesOps('/d', ...names)
  const paths = new Paths(union.ops, 5)
  const { id } = found(paths.find('/d'))
  for (const name of names) found(paths.find(name))
  t.equal(union.held.size, 21, 'not before the operation is over')
  paths.trim()
  t.equal(paths.size, 5)
  t.equal(union.held.size, 5)
  t.ok(union.held.has(id), 'the directory stays as long as there is something in it')
  found(paths.find('/d/f0'))
  paths.trim()
  t.equal(union.held.size, 5)
})

t.test('names that are removed, moved and created', async t => {
  const union = new NamesOps('/a', '/a/x', '/b', '/b/y')
  const paths = new Paths(union.ops)
  const x = found(paths.find('/a/x'))
  found(paths.find('/b/y'))
  paths.move(x, placed(paths.place('/b/y')))
  t.equal(found(paths.find('/b/y')), x, 'what was there is gone')
  paths.remove(found(paths.find('/b')))
  paths.trim()
  t.same([...union.held.keys()], [found(paths.find('/a')).id], 'and all below')
  union.put('/a/new', 77)
  union.held.set(77, 2) // created, and looked up once more
  const place = placed(paths.place('/a/new'))
  const made = paths.add(place, 77)
  t.equal(paths.add(place, 77), made)
  paths.trim()
  t.equal(union.held.get(77), 1, 'it is held once')
})

t.test('hidden names stay', async t => {
  const union = new NamesOps('/d', '/d/open', '/d/1', '/d/2', '/d/3')
  const paths = new Paths(union.ops, 1)
  const open = found(paths.find('/d/open'))
  paths.hide(open, '.hidden')
  for (const name of ['1', '2', '3']) {
    found(paths.find(`/d/${name}`))
    paths.trim()
  }
  t.equal(found(paths.find('/d/.hidden')), open)
  t.not(found(paths.find('/d/open')), open, 'its name is looked up anew')
  paths.remove(open)
  paths.trim()
  t.notOk(union.calls.includes('lookup 2 .hidden'), 'the union never hears of it')
})
