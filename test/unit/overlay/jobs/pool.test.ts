import * as fs from 'node:fs'

import t from 'tap'

import { IoPool, series } from '../../../../src/overlay/jobs/pool.js'
import { IoThreads, drained } from '../../../../src/overlay/jobs/threads.js'
import type { IoTask } from '../../../../src/overlay/jobs/task.js'
import { silentLogger } from '../../../../src/log.js'
import { E } from '../../../../src/sys/errno.js'
import { poll2 } from '../../../../src/sys/io.js'
import { loading } from '../../../../src/sys/loading.js'
import { scratch } from '../../../helpers/layers.js'
import { leakedFds, openFds } from '../../../helpers/union.js'
import { resultOf } from '../support.js'

const isOpen = (fd: number): boolean => fs.existsSync(`/proc/self/fd/${fd}`)

t.test('close does not wait for a starting thread', async t => {
  const starting = new IoPool(silentLogger)
  starting.start()
  t.ok(Atomics.load(loading, 0) > 0)
  starting.close()
  t.ok(Atomics.load(loading, 0) > 0)
  t.ok(isOpen(starting.wakeFd), 'the thread may signal it')
  await drained()
  t.equal(Atomics.load(loading, 0), 0)
  t.notOk(isOpen(starting.wakeFd))
})

// Most of these tests share a pool, because starting a thread is slow.
const before = openFds()
const pool = new IoPool(silentLogger)
const waitFor = async (holds: () => boolean): Promise<boolean> => {
  for (let n = 0; n < 3000 && !holds(); n++) await new Promise(next => setTimeout(next, 10))
  return holds()
}
const run = (task: IoTask) => resultOf({ job: pool.submit(task) }, () => pool.runCallbacks())

t.test('callbacks run only on the submitting thread, and only in runCallbacks', async t => {
  const seen: string[] = []
  t.equal(poll2(pool.wakeFd, -1, 0), 0)
  const job = pool.submit({ kind: 'fsync', fd: -1, datasync: false }, result => {
    seen.push(`finish ${result}`)
    return 3
  })
  job.onDone(result => void seen.push(`first ${result}`))
  job.onDone(result => void seen.push(`second ${result}`))
  t.equal(pool.pending, 1)
  // Wait for an answer. On a busy machine a thread starts slowly.
  while (poll2(pool.wakeFd, -1, 0) === 0) await new Promise(next => setTimeout(next, 10))
  t.strictSame(seen, [])
  pool.runCallbacks()
  t.equal(pool.pending, 0)
  t.equal(poll2(pool.wakeFd, -1, 0), 0)
  job.onDone(result => void seen.push(`late ${result}`))
  t.strictSame(seen, [`finish ${-E.EBADF}`, 'first 3', 'second 3', 'late 3'])
  pool.runCallbacks()
  t.equal(seen.length, 4, 'once')
})

t.test('every kind of task, with its result', async t => {
  const top = scratch(t)
  fs.writeFileSync(`${top}/src`, 'content')
  const src = fs.openSync(`${top}/src`, 'r')
  const dst = fs.openSync(`${top}/dst`, 'w+')
  t.teardown(() => [src, dst].forEach(fd => fs.closeSync(fd)))
  t.equal(await run({ kind: 'copy', src, dst, size: 7, sync: true }), 0)
  t.equal(fs.readFileSync(`${top}/dst`, 'latin1'), 'content')
  t.equal(await run({ kind: 'write', fd: dst, bytes: Buffer.from('\0\xff', 'latin1') }), 2)
  t.equal(fs.readFileSync(`${top}/dst`, 'latin1'), '\0\xffntent')
  for (const datasync of [true, false]) t.equal(await run({ kind: 'fsync', fd: dst, datasync }), 0)
  t.equal(await run({ kind: 'syncfs', fd: dst }), 0)
  t.equal(await run({ kind: 'syncfs', fd: -1 }), -E.EBADF, 'an error is a result')
})

t.test('one task after the other', async t => {
  const results: number[] = []
  const job = series(
    pool,
    last => {
      results.push(last)
      return results.length < 4 ? { kind: 'fsync', fd: -1, datasync: false } : 7
    },
    () => t.fail('not to be abandoned'),
  )
  t.equal(await resultOf({ job }, () => pool.runCallbacks()), 7)
  t.strictSame(results, [0, -E.EBADF, -E.EBADF, -E.EBADF])
})

t.test('the work of a thread that does not start is done inline', async t => {
  const lines: string[] = []
  const note = (_fields: object, message: string): void => void lines.push(message)
  // No thread starts in this time.
  const late = new IoPool({ ...silentLogger, error: note }, new IoThreads({ startMs: 0 }))
  const seen: number[] = []
  const ask = (): void =>
    late.submit({ kind: 'fsync', fd: -1, datasync: false }).onDone(result => void seen.push(result))
  ask()
  t.equal(poll2(late.wakeFd, -1, 0), 0, 'no signal')
  await new Promise(next => setTimeout(next, 2))
  late.runCallbacks()
  t.strictSame(seen, [-E.EBADF])
  t.match(lines, [/no thread for input and output/])
  ask()
  t.equal(poll2(late.wakeFd, -1, 0), 1, 'and for some time no other thread is started')
  late.runCallbacks()
  t.equal(seen.length, 2)
  t.equal(late.pending, 0)
  t.equal(lines.length, 1)
  late.close()
  t.ok(await waitFor(() => Atomics.load(loading, 0) === 0), 'it has ended by itself')
})

t.test(
  'close before the answer: an abandoned task keeps its descriptors until its thread is done',
  async t => {
    const top = scratch(t)
    const src = fs.openSync('/dev/zero', 'r') // which seeks nowhere
    const dst = fs.openSync(`${top}/zeros`, 'w')
    let abandoned = 0
    pool.submit(
      { kind: 'copy', src, dst, size: 64 << 20, sync: false },
      () => {
        t.fail('not to be finished')
        return 0
      },
      () => {
        abandoned++
        fs.closeSync(src)
        fs.closeSync(dst)
      },
    )
    pool.close()
    t.ok(abandoned === 1 || (isOpen(src) && isOpen(dst)), 'its descriptors may still be used')
    t.strictSame(await leakedFds(before), [])
    t.equal(abandoned, 1)
  },
)
