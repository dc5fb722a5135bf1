/**
 * Which layers the names of a directory come from. The names that are listed or hidden are tested
 * in readdir.test.ts.
 */

import { writeFileSync } from 'node:fs'
import t from 'tap'
import { unionDirectories, whiteout, type Layer } from '../../../helpers/layers.js'
import { open, optionsOf, type UnionFs } from '../../../helpers/union.js'

const ENOENT = -2

/** All names, read to the end. */
const listOf = (union: UnionFs, directory: number): string[] => {
  const names: string[] = []
  let last = 0
  for (let before = -1; before !== last;) {
    before = last
    union.ops.readdir(directory, last, {
      add: (name, _ino, _type, next) => {
        names.push(name)
        last = next
        return true
      },
    })
  }
  return names.slice(2).toSorted()
}

/** Five layers of a directory, each with a file of its own and a file that all layers have. */
const LOWER = ['a', 'b', 'c', 'd', 'e'].map((name): Layer => ({
  [`d/${name}`]: name,
  'd/all': name,
}))

t.test('with many layers, only those that the listing names are searched', async t => {
  const directories = unionDirectories(t, { upper: { 'd/u': 'u' }, lower: LOWER })
  const union = open(t, optionsOf(directories))
  const directory = union.id('d')
  const list = (): string[] => listOf(union, directory)
  const all = ['a', 'all', 'b', 'c', 'd', 'e', 'u']
  t.strictSame(list(), all)
  // Layers must not be changed while they are in use. The test does it to find out which layer is
  // still searched.
  for (const name of ['ghost', 'e']) writeFileSync(`${directories.lower[1]}/d/${name}`, 'ghost')
  t.equal(await union.read('d/ghost'), ENOENT)
  for (const name of 'abcde') t.equal(await union.read(`d/${name}`), name)
  t.equal(await union.read('d/all'), 'a')
  // The upper layer changes, so it is always searched.
  t.equal(await union.create('d/new', 0o644), 0)
  t.equal(await union.read('d/new'), '')
  t.equal(await union.unlink('d/all'), 0)
  t.equal(await union.read('d/all'), ENOENT)
  t.equal(await union.create('d/all', 0o600), 0)
  t.equal(await union.read('d/all'), '')
  t.equal(await union.unlink('d/all'), 0)
  t.strictSame(list(), ['a', 'b', 'c', 'd', 'e', 'ghost', 'new', 'u'])
  t.equal(await union.read('d/ghost'), 'ghost', 'listed anew, it is known')
})

t.test('a moved directory has another name in the layers', async t => {
  const LOWERS = ['a', 'b', 'c', 'd'].map((name): Layer => ({ [`d/directory/${name}`]: name }))
  const directories = unionDirectories(t, { upper: { 'd/u': 'u' }, lower: LOWERS })
  const union = open(t, { ...optionsOf(directories), redirectDir: 'on' })
  const directory = union.id('d')
  t.strictSame(listOf(union, directory), ['directory', 'u'])
  t.equal(await union.rename('d/directory', 'd/moved', 0), 0)
  for (const name of 'abcd') t.equal(await union.read(`d/moved/${name}`), name)
  t.equal(await union.read('d/directory/a'), ENOENT)
  t.strictSame(listOf(union, directory), ['moved', 'u'])
  for (const name of 'abcd') t.equal(await union.read(`d/moved/${name}`), name)
})

t.test('many lookups in many layers cause a listing', async t => {
  for (const upper of [{ 'd/u': 'u' }, {}]) {
    const directories = unionDirectories(t, { upper, lower: LOWER })
    const union = open(t, optionsOf(directories))
    union.id('d')
    for (let i = 0; i < 5; i++) t.equal(await union.read(`d/none-${i}`), ENOENT)
    writeFileSync(`${directories.lower[1]}/d/ghost`, 'ghost')
    t.equal(await union.read('d/ghost'), ENOENT)
    for (const name of 'abcde') t.equal(await union.read(`d/${name}`), name)
    t.equal(await union.unlink('d/c'), 0)
    t.equal(await union.read('d/c'), ENOENT)
  }
  // With two layers, both are always searched.
  const directories = unionDirectories(t, { upper: { 'd/u': 'u' }, lower: LOWER.slice(0, 1) })
  const union = open(t, optionsOf(directories))
  union.id('d')
  for (let i = 0; i < 30; i++) t.equal(await union.read(`d/none-${i}`), ENOENT)
  writeFileSync(`${directories.lower[0]}/d/ghost`, 'ghost')
  t.equal(await union.read('d/ghost'), 'ghost')
})

t.test('with very many layers, the first lookup causes a listing', async t => {
  const layers = Array.from({ length: 16 }, (_, i): Layer => ({
    [`d/${i}`]: String(i),
    'd/all': String(i),
  }))
  Object.assign(layers[3]!, { 'd/5': whiteout, 'd/.wh.6': '', 'd/directory/3': '3' })
  Object.assign(layers[8]!, { 'd/directory/8': '8', 'd/.wh.directory': '', 'd/4': 'lower' })
  Object.assign(layers[12]!, { 'd/directory/12': '12' })
  for (const upper of [{ 'd/7': whiteout, 'd/u': 'u' }, {}]) {
    const directories = unionDirectories(t, { upper, lower: layers })
    const union = open(t, optionsOf(directories))
    union.id('d')
    t.equal(await union.read('d/none'), ENOENT)
    writeFileSync(`${directories.lower[1]}/d/ghost`, 'ghost')
    t.equal(await union.read('d/ghost'), ENOENT)
    const hidden = ['5', '6', ...('d/7' in upper ? ['7'] : [])]
    for (let i = 0; i < 16; i++)
      t.equal(await union.read(`d/${i}`), hidden.includes(`${i}`) ? ENOENT : `${i}`, `${i}`)
    t.equal(await union.read('d/all'), '0')
    t.strictSame(
      await union.list('d/directory'),
      ['3', '8'],
      'a mark hides what is below its layer',
    )
    t.equal(await union.unlink('d/9'), 0)
    t.equal(await union.read('d/9'), ENOENT)
  }
})
