/** Memory for arguments of system calls. io.test.ts tests the addresses. */

import * as fc from 'fast-check'
import t from 'tap'

import { openPath, statxat } from '../../../src/sys/at.js'
import { O_DIRECTORY, O_RDONLY } from '../../../src/sys/constants.js'
import { E } from '../../../src/sys/errno.js'
import {
  addressOf,
  inBounds,
  PATH_MAX,
  put64,
  putA,
  putAttr,
  putB,
  putProcName,
  u64,
} from '../../../src/sys/scratch.js'
import { close } from '../../../src/sys/io.js'
import { Stat } from '../../../src/sys/stat.js'

t.test('a safe integer is written as 64 bits, also if negative', async () => {
  fc.assert(
    fc.property(fc.maxSafeInteger(), fc.nat({ max: 60 }), (n, i) => {
      put64(2 * i, n)
      return BigInt.asIntN(64, u64[i]!) === BigInt(n)
    }),
  )
})

t.test("a path is limited to the kernel's maximum", async t => {
  for (const put of [putA, putB, putAttr]) {
    t.ok(put('n'.repeat(PATH_MAX - 1)))
    t.notOk(put('n'.repeat(PATH_MAX)))
    t.ok(put(''))
  }
  t.ok(putProcName(2 ** 31 - 1, 'n'.repeat(PATH_MAX - 1)))
  t.notOk(putProcName(0, 'n'.repeat(PATH_MAX)))
  const fd = openPath('/', O_RDONLY | O_DIRECTORY)
  const st = new Stat()
  t.equal(statxat(fd, 'n'.repeat(PATH_MAX - 1), st), -E.ENAMETOOLONG)
  t.equal(statxat(fd, 'proc', st), 0, 'nothing of the longer one is left')
  close(fd)
})

t.test('a range lies in a view, or not', async t => {
  const view = new Uint8Array(10)
  const inside: [number, number][] = [
    [0, 10],
    [10, 0],
    [3, 7],
  ]
  const outside: [number, number][] = [
    [0, 11],
    [11, 0],
    [-1, 2],
    [2, -1],
    [Number.NaN, 1],
    [0, Number.NaN],
    [2 ** 53, 1],
  ]
  for (const [from, length] of inside) t.ok(inBounds(view, from, length))
  for (const [from, length] of outside) t.notOk(inBounds(view, from, length))
})

t.test('addresses of views differ by their offsets', async t => {
  const whole = Buffer.alloc(100)
  const start = addressOf(whole)
  for (const at of [1, 7, 99, 0]) {
    t.equal(addressOf(whole.subarray(at, at + 1)), start + at)
    t.equal(addressOf(new Uint8Array(whole.buffer, whole.byteOffset + at, 1)), start + at)
  }
  t.equal(addressOf(whole), start)
})
