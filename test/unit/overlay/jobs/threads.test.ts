import { execFileSync } from 'node:child_process'
import * as fs from 'node:fs'

import t, { type Test } from 'tap'

import { IoPool } from '../../../../src/overlay/jobs/pool.js'
import { ioThreads, IoThreads, isDrained, drained } from '../../../../src/overlay/jobs/threads.js'
import type { IoTask } from '../../../../src/overlay/jobs/task.js'
import type { Result } from '../../../../src/overlay/ops.js'
import { silentLogger } from '../../../../src/log.js'
import { E } from '../../../../src/sys/errno.js'
import { eventfdDrain, poll2 } from '../../../../src/sys/io.js'
import { loading } from '../../../../src/sys/loading.js'
import { scratch } from '../../../helpers/layers.js'
import { openFds } from '../../../helpers/union.js'

/** A task that fails at once. */
const NOTHING: IoTask = { kind: 'fsync', fd: -1, datasync: false }
const isSignalled = (pool: IoPool, ms = 0): boolean => poll2(pool.wakeFd, -1, ms) > 0
const isOpen = (fd: number): boolean => fs.existsSync(`/proc/self/fd/${fd}`)

const until = async (holds: () => boolean): Promise<void> => {
  while (!holds()) await new Promise(next => setTimeout(next, 5))
}

/** Runs tasks that do nothing, each on its own thread as long as there are enough threads. */
const run = async (pool: IoPool, tasks = 1): Promise<Result[]> => {
  const results: Result[] = []
  for (let i = 0; i < tasks; i++) pool.submit(NOTHING).onDone(r => results.push(r))
  await until(() => {
    if (isSignalled(pool)) pool.runCallbacks()
    return results.length === tasks
  })
  return results
}

/** Its buffer takes less than 100,000 bytes. A thread that writes more blocks. */
const makeFifo = (t: Test): number => {
  const path = `${scratch(t)}/fifo`
  execFileSync('mkfifo', [path])
  return fs.openSync(path, fs.constants.O_RDWR)
}

const readAll = (fd: number, length: number): Buffer => {
  const read = Buffer.alloc(length)
  for (let at = 0; at < length;) at += fs.readSync(fd, read, { offset: at })
  return read
}

t.test('the next union reuses the threads of the last', async t => {
  const first = new IoPool(silentLogger)
  t.strictSame(await run(first), [-E.EBADF])
  const open = openFds()
  first.close()
  await drained()
  for (let i = 0; i < 3; i++) {
    const next = new IoPool(silentLogger)
    t.strictSame(await run(next), [-E.EBADF])
    t.strictSame(openFds(), open, 'no other was started')
    next.close()
    await drained()
    t.ok(isDrained())
    t.equal(openFds().length, open.length - 1, 'its descriptor is closed')
  }
})

t.test('a task that was not begun at the end is not run', async t => {
  const pool = new IoPool(silentLogger)
  await run(pool, 2) // both threads live
  const top = scratch(t)
  const size = 16 << 20
  fs.writeFileSync(`${top}/src`, Buffer.alloc(size, 'x'))
  const src = fs.openSync(`${top}/src`, 'r')
  const begun: (boolean | undefined)[] = []
  const copies = Array.from({ length: 8 }, (_, i) => `${top}/${i}`)
  copies.forEach((name, i) => {
    const dst = fs.openSync(name, 'w')
    pool.submit(
      { kind: 'copy', src, dst, size, sync: false },
      () => {
        t.fail('not to be finished')
        return 0
      },
      mayHaveBegun => {
        begun[i] = mayHaveBegun
        fs.closeSync(dst)
      },
    )
  })
  pool.close()
  t.ok([0, copies.length].includes(Object.keys(begun).length), 'none before all')
  await drained()
  fs.closeSync(src)
  t.equal(Object.keys(begun).length, copies.length)
  t.ok(begun.includes(false), 'some were left')
  begun.forEach((was, i) => {
    const { size: written } = fs.statSync(copies[i]!)
    t.equal(written > 0, was, `${i}: ${written} bytes`)
  })
  const next = new IoPool(silentLogger)
  t.strictSame(await run(next), [-E.EBADF], 'the threads go on with the next')
  next.close()
  await drained()
})

t.test('many unions have few threads', async t => {
  const pools = Array.from({ length: 20 }, () => new IoPool(silentLogger))
  const results = await Promise.all(pools.map(pool => run(pool, 5)))
  t.ok(results.flat().every(result => result === -E.EBADF))
  t.equal(results.flat().length, 100)
  t.equal(ioThreads.size, 2)
  for (const pool of pools) pool.close()
  await drained()
  t.notOk(pools.some(pool => isOpen(pool.wakeFd)))
})

t.test('the answer of a union is received while another collects its own', async t => {
  const [one, other] = [new IoPool(silentLogger), new IoPool(silentLogger)]
  const seen: string[] = []
  one.submit(NOTHING).onDone(() => void seen.push('one'))
  other.submit(NOTHING).onDone(() => void seen.push('other'))
  t.ok(isSignalled(one, 10_000))
  t.ok(isSignalled(other, 10_000))
  eventfdDrain(one.wakeFd) // as if it had looked just before
  other.runCallbacks()
  t.strictSame(seen, ['other'])
  t.equal(one.pending, 1)
  t.ok(isSignalled(one), 'it is signalled')
  one.runCallbacks()
  t.strictSame(seen, ['other', 'one'])
  t.equal(one.pending, 0)
  one.close()
  other.close()
  await drained()
})

t.test('a union with many tasks does not delay the tasks of another', async t => {
  const [one, other] = [new IoPool(silentLogger), new IoPool(silentLogger)]
  // A starting thread would delay the tasks that were assigned to it.
  await run(one, 8)
  t.ok(ioThreads.size >= 2)
  let finished = 0
  for (let i = 0; i < 1000; i++) one.submit(NOTHING).onDone(() => void finished++)
  const served: Result[] = []
  other.submit(NOTHING).onDone(result => void served.push(result))
  for (let woken; (woken = poll2(one.wakeFd, other.wakeFd, 10_000)) > 0;) {
    if ((woken & 1) !== 0) one.runCallbacks()
    if ((woken & 2) !== 0) other.runCallbacks()
    if (served.length > 0) break
  }
  t.strictSame(served, [-E.EBADF])
  t.ok(finished < 50, `${finished} before it`)
  await until(() => {
    one.runCallbacks()
    return one.pending === 0
  })
  t.equal(finished, 1000)
  one.close()
  other.close()
  await drained()
})

t.test('no task is assigned behind a message to the kernel', async t => {
  const fd = makeFifo(t)
  const [one, other] = [new IoPool(silentLogger), new IoPool(silentLogger)]
  const results: Result[] = []
  const bytes = Buffer.alloc(100_000, 'x')
  one.submit({ kind: 'write', fd, bytes }).onDone(r => results.push(r))
  other.submit({ kind: 'write', fd, bytes: Buffer.from('y') }).onDone(r => results.push(r))
  t.equal((await run(other, 20)).length, 20)
  t.ok((await run(one, 1)).length, 'nor that of the union that waits for the kernel')
  t.strictSame(results, [])
  t.ok(ioThreads.size <= 3)
  const read = readAll(fd, 100_001)
  t.equal(read.toString('latin1', 99_999), 'xy', 'one after the other')
  await until(() => {
    for (const pool of [one, other]) pool.runCallbacks()
    return results.length === 2
  })
  t.strictSame(results, [100_000, 1])
  fs.closeSync(fd)
  one.close()
  other.close()
  await drained()
})

t.test('one thread sleeps for all', async t => {
  const pools = Array.from({ length: 20 }, () => new IoPool(silentLogger))
  const begin = performance.now()
  let awake = 0
  for (const pool of pools) pool.submit({ kind: 'sleep', ms: 200 }).onDone(() => void awake++)
  pools.pop()!.close()
  const [ended] = pools
  await until(() => {
    for (const pool of pools) if (isSignalled(pool)) pool.runCallbacks()
    return awake === pools.length
  })
  t.ok(performance.now() - begin < 1500)
  t.equal(ended!.pending, 0)
  for (const pool of pools) pool.close()
  await drained()
})

t.test('an end is noticed without an event loop, and delays no other union', t => {
  const fd = makeFifo(t)
  const [one, other] = [new IoPool(silentLogger), new IoPool(silentLogger)]
  const seen: string[] = []
  const never = (): Result => {
    t.fail('not to be finished')
    return 0
  }
  const abandoned = (begun?: boolean): void => void seen.push(`abandoned ${begun}`)
  one.submit({ kind: 'write', fd, bytes: Buffer.alloc(100_000) }, never, abandoned)
  one.submit({ kind: 'write', fd, bytes: Buffer.alloc(1) }, never, abandoned)
  t.ok(poll2(fd, -1, 10_000) > 0, 'it is in the middle of the first')
  one.close()
  t.notOk(isDrained())
  t.strictSame(seen, [])
  other.submit(NOTHING).onDone(() => void seen.push('other'))
  t.ok(isSignalled(other, 10_000))
  other.runCallbacks()
  t.strictSame(seen, ['other'])
  readAll(fd, 100_000)
  while (!isDrained()) t.ok(poll2(ioThreads.endsFd, -1, 10_000) > 0)
  t.strictSame(seen, ['other', 'abandoned true', 'abandoned false'])
  t.notOk(isOpen(one.wakeFd))
  t.equal(poll2(fd, -1, 0), 0, 'the second was skipped')
  fs.closeSync(fd)
  other.close()
  t.end()
})

t.test('a thread that dies', async t => {
  const top = scratch(t)
  const threads = new IoThreads({ entry: new URL('dying-worker.ts', import.meta.url) })
  const lines: string[] = []
  const log = { ...silentLogger, error: (_: object, message: string) => void lines.push(message) }
  const [one, other] = [new IoPool(log, threads), new IoPool(log, threads)]
  await run(one, 2)
  t.equal(threads.size, 2)
  const fds = [0, 1].map(i => fs.openSync(`${top}/${i}`, 'w'))
  for (const fd of fds) one.closeLater(fd)
  const results: Result[] = []
  for (let i = 0; i < 6; i++) other.submit(NOTHING).onDone(r => results.push(r))
  // Both threads have closed their descriptor and died without an answer.
  await until(() => !fds.some(isOpen))
  const again: number[] = []
  while (!fds.every(isOpen)) again.push(fs.openSync(`${top}/again`, 'w'))
  await until(() => {
    for (const pool of [one, other]) pool.runCallbacks()
    return one.pending === 0 && results.length === 6
  })
  t.ok(again.every(isOpen), 'nothing is closed twice: the numbers mean other files')
  t.ok(
    results.every(r => r === -E.EBADF),
    'tasks that it had not begun are run',
  )
  t.strictSame(lines, Array(2).fill('a thread for input and output died'))
  t.equal(threads.size, 0)
  for (const fd of again) fs.closeSync(fd)
  one.close()
  other.close()
  t.ok(threads.isDrained())
})

t.test('no thread can be started', async t => {
  const threads = new IoThreads({ entry: new URL('no-worker.ts', import.meta.url) })
  const lines: string[] = []
  const log = { ...silentLogger, error: (_: object, message: string) => void lines.push(message) }
  const [one, other] = [new IoPool(log, threads), new IoPool(log, threads)]
  t.strictSame(
    await Promise.all([run(one, 5), run(other, 5)]),
    Array(2).fill(Array(5).fill(-E.EBADF)),
  )
  t.ok(lines.length > 0)
  t.equal(Atomics.load(loading, 0), 0, 'no thread is loading')
  one.submit(NOTHING, undefined, begun => t.equal(begun, false))
  one.close()
  other.close()
  t.ok(threads.isDrained())
  t.notOk(isOpen(one.wakeFd))
})
