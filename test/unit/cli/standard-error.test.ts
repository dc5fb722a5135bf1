import { spawnSync } from 'node:child_process'

import t from 'tap'

import { bundle } from '../../helpers/bundle.js'

const opener = `
const { closeSync, openSync } = require('node:fs')
const { parentPort, workerData } = require('node:worker_threads')
parentPort.postMessage('ready')
while (Atomics.load(workerData, 0) === 0) closeSync(openSync('/proc/self/status'))`

/**
 * A thread opens and closes files while the main thread lets go of standard error, again and again.
 */
const script = (module: string): string => `
import { readlinkSync } from 'node:fs'
import { Worker } from 'node:worker_threads'
import { detachStandardError } from ${JSON.stringify(module)}
const stop = new Int32Array(new SharedArrayBuffer(4))
new Worker(${JSON.stringify(opener)}, { eval: true, execArgv: [], workerData: stop }).on('message', () => {
  const seen = new Set()
  for (let i = 0; i < 20000; i++) {
    detachStandardError()
    seen.add(readlinkSync('/proc/self/fd/2'))
  }
  Atomics.store(stop, 0, 1)
  console.log([...seen].join())
})`

t.test('standard error is never another file, also while a thread opens files', async t => {
  const { stdout, status, signal } = spawnSync(
    process.execPath,
    ['--input-type=module', '-e', script(bundle(t, 'cli/standard-error'))],
    { encoding: 'utf8', timeout: 30_000, killSignal: 'SIGKILL', env: {} },
  )
  t.strictSame([status, signal], [0, null])
  t.equal(stdout, '/dev/null\n')
})
