import * as fs from 'node:fs'
import { tmpdir } from 'node:os'

import t, { type Test } from 'tap'

import { systemLine, systemLogger } from '../../../src/cli/syslog.js'
import { datagramsAt } from '../../helpers/syscalls.js'

/** The name of a socket has at most 107 bytes. */
const place = (t: Test): string => {
  const top = fs.mkdtempSync(`${tmpdir()}/tsoverlay-log-`)
  t.teardown(() => fs.rmSync(top, { recursive: true }))
  return `${top}/log`
}

t.test('a line, as RFC 3164 has it', async t => {
  t.equal(
    String(systemLine('warn', {}, 'busy', new Date(2026, 0, 5, 7, 8, 9))),
    `<28>Jan  5 07:08:09 tsoverlay[${process.pid}]: busy`,
  )
  t.equal(
    String(
      systemLine('error', { a: 1, b: '\n' }, 'two\nlines\x1b', new Date(2026, 11, 25, 17, 18, 19)),
    ),
    `<27>Dec 25 17:18:19 tsoverlay[${process.pid}]: two lines  {"a":1,"b":"\\n"}`,
  )
  t.match(String(systemLine('info', { n: 5n }, '', new Date())), /^<30>.*\{"n":"5"\}$/)
  t.equal(systemLine('warn', { x: 'x'.repeat(100_000) }, '', new Date()).length, 8192)
})

t.test('lines arrive, also after the reader was started anew', async t => {
  const path = place(t)
  const first = datagramsAt(path)
  const log = systemLogger('warn', path)
  t.ok(log.isLevelEnabled('warn'))
  t.notOk(log.isLevelEnabled('info'))
  log.info({}, 'not told')
  log.debug({}, 'not told')
  log.warn({ x: 1 }, 'one')
  log.error({}, 'two')
  t.match(first.next(), /^<28>.*: one \{"x":1\}$/)
  t.match(first.next(), /^<27>.*: two$/)
  t.equal(first.next(), undefined)
  first.close()
  fs.unlinkSync(path)
  log.warn({}, 'nobody reads this')
  const second = datagramsAt(path)
  log.warn({}, 'three')
  t.match(second.next(), /: three$/)
  second.close()
})

t.test('nobody is waited for', async t => {
  const path = place(t)
  systemLogger('warn', path).warn({}, 'nobody is there')
  systemLogger('warn', '/dev/null').warn({}, 'no socket')
  systemLogger('warn', `/${'x'.repeat(200)}`).warn({}, 'no such name')
  const lazy = datagramsAt(path)
  const log = systemLogger('warn', path)
  for (let i = 0; i < 5000; i++) log.warn({ i }, 'a reader without haste')
  t.match(lazy.next(), /"i":0/)
  lazy.close()
})
