import * as fs from 'node:fs'

import * as fc from 'fast-check'
import t, { type Test } from 'tap'

import { copyData, copyDense } from '../../../../src/overlay/jobs/copy-data.js'
import { E } from '../../../../src/sys/errno.js'
import { build, file, scratch } from '../../../helpers/layers.js'
import { openFds } from '../../../helpers/union.js'

const opener = (t: Test) => {
  const open: number[] = []
  t.teardown(() => open.forEach(fd => fs.closeSync(fd)))
  return (path: string, flags: string): number => {
    const fd = fs.openSync(path, flags)
    open.push(fd)
    return fd
  }
}

/** Pieces of data at random offsets, some adjacent, with holes between the others. */
const pieces = fc.array(
  fc.tuple(fc.integer({ min: 0, max: 300_000 }), fc.integer({ min: 1, max: 20_000 })),
  { maxLength: 4 },
)

t.test('the copy has the bytes, the size and the holes of its source', async t => {
  const top = scratch(t)
  let run = 0
  fc.assert(
    fc.property(pieces, fc.integer({ min: 0, max: 330_000 }), fc.boolean(), (list, size, dense) => {
      const name = String(run++)
      build(top, {
        [name]: file('', {
          pieces: list.map(([at, length], i) => [at, String.fromCharCode(97 + i).repeat(length)]),
        }),
      })
      const src = fs.openSync(`${top}/${name}`, 'r')
      const dst = fs.openSync(`${top}/${name}.copy`, 'w+')
      const result = dense ? copyDense(src, dst, size) : copyData(src, dst, size, false)
      const want = Buffer.alloc(size)
      fs.readFileSync(`${top}/${name}`).copy(want)
      const [from, to] = [fs.fstatSync(src), fs.fstatSync(dst)]
      fs.closeSync(src)
      fs.closeSync(dst)
      const same = fs.readFileSync(`${top}/${name}.copy`).equals(want)
      fs.rmSync(`${top}/${name}`)
      fs.rmSync(`${top}/${name}.copy`)
      // One more block is allowed if the copy's end divides an extent of the source.
      return result === 0 && same && (dense || to.blocks <= from.blocks + 8)
    }),
    { numRuns: 60 },
  )
})

t.test('a source that says it is empty is read to its end', async t => {
  const open = opener(t)
  const want = fs.readFileSync('/proc/version')
  for (const copy of [copyDense, (a: number, b: number, n: number) => copyData(a, b, n, true)]) {
    const path = `${scratch(t)}/copy`
    t.equal(copy(open('/proc/version', 'r'), open(path, 'w+'), want.length), 0)
    t.same(fs.readFileSync(path), want)
  }
})

t.test('a source whose seeks lead nowhere is read to its end', async t => {
  const top = scratch(t)
  const open = opener(t)
  t.equal(copyData(open('/dev/zero', 'r'), open(`${top}/zeros`, 'w'), 100_000, false), 0)
  t.equal(fs.statSync(`${top}/zeros`).size, 100_000)
})

t.test('an error is the result, whichever way is gone', async t => {
  const open = opener(t)
  const path = `${scratch(t)}/f`
  fs.writeFileSync(path, 'x'.repeat(5000))
  const before = openFds()
  const src = open(path, 'r')
  const full = open('/dev/full', 'w')
  for (const copy of [copyDense, (a: number, b: number, n: number) => copyData(a, b, n, false)]) {
    t.equal(copy(src, full, 5000), -E.ENOSPC, 'by hand')
    t.equal(copy(src, src, 5000), -E.EBADF, 'not open for writing')
    t.equal(copy(-1, full, 5000), -E.EBADF)
  }
  t.equal(openFds().length, before.length + 2, 'no descriptor of its own')
})
