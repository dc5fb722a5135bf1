/** Threads that load the foreign-function library. */

import { Worker } from 'node:worker_threads'
import t from 'tap'
import { beginLoading, endLoading, loading, awaitLoading } from '../../../src/sys/loading.js'

t.test('a counter for the process', async t => {
  t.equal(awaitLoading(0), true)
  beginLoading()
  beginLoading()
  t.equal(awaitLoading(1), false, 'it waits no longer than it is told')
  endLoading()
  // Another instance of the module, in this thread and in another, has the same counter.
  const thread = new Worker(
    `const { getEnvironmentData } = require('node:worker_threads')
     const cell = getEnvironmentData('tsoverlay: loading')
     setTimeout(() => { Atomics.sub(cell, 0, 1); Atomics.notify(cell, 0) }, 50)`,
    { eval: true },
  )
  t.equal(awaitLoading(), true, 'and until then')
  t.equal(Atomics.load(loading, 0), 0)
  await thread.terminate()
})
