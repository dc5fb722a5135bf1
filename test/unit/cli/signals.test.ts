import { spawnSync } from 'node:child_process'

import t from 'tap'

import { bundle } from '../../helpers/bundle.js'

const module = bundle(t, 'cli/signals')

/** A server whose mount is nothing; it prints what it is asked, and what is logged. */
const serve = (code: string) => {
  const { stdout, status, signal } = spawnSync(
    process.execPath,
    [
      '--input-type=module',
      '-e',
      `import { handleSignals } from '${module}'
import { writeSync } from 'node:fs'
const print = text => writeSync(1, text + '\\n')
const line = level => (fields, message) => print(level + ': ' + message.split(':')[0])
let said = 0
const info = (fields, message) => {
  print('info: ' + message.split(':')[0])
  said++
}
const log = { info, warn: line('warn'), error: line('error') }
const turn = () => new Promise(done => setTimeout(done, 50))
// A signal is heard at some time; of counters nothing is logged before there is a mount.
const me = async signal => {
  const before = said
  process.kill(process.pid, signal)
  for (let turns = signal === 'SIGUSR1' ? 10 : 400; said === before && turns > 0; turns--) await turn()
  await turn()
}
const mountOf = unmount => ({ mountpoint: '/no/such/mount', closed: new Promise(() => {}), unmount, stats: async () => ({ n: 1 }) })
const signals = handleSignals(log)
setTimeout(() => process.exit(9), 30_000).unref()
${code}`,
    ],
    { encoding: 'utf8', timeout: 60_000, env: {} },
  )
  return { lines: stdout.split('\n').slice(0, -1), status, signal }
}

t.test('the first signal unmounts, also one that came before there was a mount', async t => {
  for (const name of ['SIGTERM', 'SIGINT', 'SIGHUP']) {
    const { lines, status } = serve(`
      await me('${name}')
      print('live')
      signals.attach(mountOf(async options => print('unmount ' + JSON.stringify(options))))
      await turn()`)
    t.strictSame(lines, [`info: ${name}`, 'live', 'unmount undefined'])
    t.equal(status, 0)
  }
})

const busy = (lazyFails: boolean): string[] =>
  serve(`
    signals.attach(mountOf(async (options = {}) => {
      print('unmount ' + JSON.stringify(options))
      if (!options.lazy || ${lazyFails}) throw new Error('busy')
    }))
    await me('SIGTERM')`).lines

t.test('a busy mount leaves the tree, and what then fails is said', async t => {
  const first = ['info: SIGTERM', 'unmount {}', 'warn: not unmounted', 'unmount {"lazy":true}']
  t.strictSame(busy(false), first)
  t.strictSame(busy(true), [...first, "error: the mount can't be detached from the tree"])
})

t.test('the second signal ends it at once, where nothing can be aborted', async t => {
  const { lines, signal } = serve(`
    signals.attach(mountOf(() => new Promise(() => {})))
    await me('SIGTERM')
    await me('SIGTERM')
    print('still here')`)
  t.equal(signal, 'SIGKILL')
  t.notOk(lines.includes('still here'))
})

t.test('counters, also for who asked before there was a mount', async t => {
  const { lines } = serve(`
    await me('SIGUSR1')
    print('live')
    signals.attach(mountOf(async () => {}))
    await turn()
    print('again')
    await me('SIGUSR1')
    signals.attach({ ...mountOf(), stats: () => Promise.reject(new Error('gone')) })
    await me('SIGUSR1')`)
  const counters = 'info: counters'
  t.strictSame(lines, ['live', counters, 'again', counters, counters, 'warn: no counters'])
})
