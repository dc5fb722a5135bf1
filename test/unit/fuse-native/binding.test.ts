import t from 'tap'
import { timesOf } from '../../../src/fuse-native/binding.js'

/** fuse_thread_locals_t of a utimens, as the C side fills it. */
const structure = (atime: number, mtime: number): Buffer => {
  const thread = Buffer.alloc(360)
  thread.writeBigInt64LE(BigInt(atime), 104)
  thread.writeBigInt64LE(BigInt(mtime), 112)
  return thread
}
const low = (time: number): number => Number(BigInt.asUintN(32, BigInt(time)))
const high = (time: number): number => Number(BigInt.asUintN(32, BigInt(time) >> 32n))

t.test('the time that the package drops', async t => {
  for (const [atime, mtime] of [
    [0, 0],
    [1_795_279_580_690, 1_000_000_000_123],
    [-2501, -300_000_000_000],
  ] as const) {
    const times = timesOf(structure(atime, mtime), low(atime), high(atime))
    t.same(times, { atime, mtime })
  }
})

t.test('a structure that is not known', async t => {
  t.equal(timesOf(structure(1000, 2000), 1001, 0), undefined)
  t.equal(timesOf(structure(1000, 2000), 1000, 1), undefined)
  t.equal(timesOf(Buffer.alloc(100), 0, 0), undefined)
  t.equal(timesOf(undefined, 0, 0), undefined)
})
