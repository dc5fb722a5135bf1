import { Worker } from 'node:worker_threads'
import t from 'tap'
import { E } from '../../../src/sys/errno.js'
import * as io from '../../../src/sys/io.js'
import { directory } from './support.js'

t.test('eventfd and poll2', async t => {
  const d = directory(t)
  const a = d.keep(io.eventfd())
  const b = d.keep(io.eventfd())
  t.equal(io.poll2(a, b, 0), 0)
  t.equal(io.eventfdDrain(a), 0)
  t.equal(io.eventfdSignal(a), 0)
  t.equal(io.eventfdSignal(a), 0)
  t.equal(io.poll2(a, b, -1), 1)
  t.equal(io.poll2(b, a, -1), 2)
  t.equal(io.eventfdSignal(b), 0)
  t.equal(io.poll2(a, b, 1000), 3)
  t.equal(io.eventfdDrain(a), 2)
  t.equal(io.poll2(a, b, 0), 2)
  t.equal(io.poll2(a, -1, 0), 0, 'a negative descriptor is ignored')
  const start = Date.now()
  t.equal(io.poll2(a, -1, 30), 0)
  t.ok(Date.now() - start >= 29)

  const full = Buffer.alloc(8)
  full.writeBigUInt64LE(2n ** 64n - 2n)
  t.equal(io.write(a, full, 0, 8), 8)
  t.equal(io.eventfdSignal(a), 0, 'a full counter is signalled already')
  t.equal(io.poll2(a, -1, 0), 1)
  const gone = io.eventfd()
  io.close(gone)
  t.equal(io.poll2(gone, b, 0), 3, 'a closed descriptor counts as broken')
  t.equal(io.eventfdSignal(gone), -E.EBADF)
  t.equal(io.eventfdDrain(gone), -E.EBADF)
})

t.test('another thread wakes a waiting one', async t => {
  const d = directory(t)
  const fd = d.keep(io.eventfd())
  const script = `require('node:fs').writeSync(${fd}, new Uint8Array([1, 0, 0, 0, 0, 0, 0, 0]))`
  const worker = new Worker(script, { eval: true, execArgv: [] })
  t.equal(io.poll2(-1, fd, 60_000), 2)
  t.equal(io.eventfdDrain(fd), 1)
  await worker.terminate()
})
