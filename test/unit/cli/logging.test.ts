import * as fs from 'node:fs'

import t from 'tap'

import { createLogger, reportWarnings } from '../../../src/cli/logging.js'

t.test('a log file gets lines of JSON after those that it has', async t => {
  const file = `${t.testdir({ log: '{"msg":"before"}\n' })}/log`
  const { logger: log, level } = await createLogger({ level: 'warn', file, foreground: false })
  t.equal(level, 'warn')
  log.info({ x: 1 }, 'not told')
  log.warn({ x: '\xff' }, 'a warning')
  log.error({}, 'an error')
  const lines = fs.readFileSync(file, 'utf8').trimEnd().split('\n')
  t.match(
    lines.map(line => JSON.parse(line) as unknown),
    [{ msg: 'before' }, { level: 40, x: '\xff', msg: 'a warning' }, { level: 50, msg: 'an error' }],
  )
  t.equal(lines.length, 3)
  t.ok(log.isLevelEnabled('error'))
  t.notOk(log.isLevelEnabled('info'))
})

t.test('a log file that cannot be is an error that names it', async t => {
  const file = `${t.testdir()}/none/log`
  await t.rejects(createLogger({ level: 'info', file, foreground: false }), {
    name: 'MountError',
    option: 'log-file',
    path: file,
    code: 'ENOENT',
  })
})

t.test('a log file is for whoever serves', async t => {
  const file = `${t.testdir()}/log`
  await createLogger({ level: undefined, file, foreground: true })
  t.equal(fs.statSync(file).mode & 0o777, 0o600)
})

t.test('a full disk loses lines, and nothing else', async t => {
  const { logger } = await createLogger({ level: 'info', file: '/dev/full', foreground: false })
  for (let i = 0; i < 2000; i++) logger.error({ i }, 'x'.repeat(1000))
  await new Promise(done => setTimeout(done, 50))
  t.pass('no error came')
})

t.test("in the background, without a file, warnings go to the system's log", async t => {
  for (const [given, level] of [
    [undefined, 'warn'],
    ['debug', 'warn'],
    ['error', 'error'],
    ['silent', 'silent'],
  ] as const) {
    const made = await createLogger({ level: given, file: undefined, foreground: false })
    t.equal(made.level, level)
    t.equal(made.logger.isLevelEnabled('error'), level !== 'silent')
    t.notOk(made.logger.isLevelEnabled('info'))
  }
})

t.test('what is told goes on to the log as well, and quiet is about telling alone', async t => {
  const lines: unknown[] = []
  const note =
    (level: string) =>
    (...args: unknown[]): void =>
      void lines.push([level, ...args])
  const told = reportWarnings({
    debug: note('debug'),
    info: note('info'),
    warn: note('warn'),
    error: note('error'),
    isLevelEnabled: level => level === 'warn',
  })
  told.logger.debug({ a: 1 }, 'one')
  told.quiet()
  told.logger.info({ b: 2 }, 'two')
  told.logger.warn({ c: 3 }, 'three')
  told.logger.error({ d: 4 }, 'four')
  t.strictSame(lines, [
    ['debug', { a: 1 }, 'one'],
    ['info', { b: 2 }, 'two'],
    ['warn', { c: 3 }, 'three'],
    ['error', { d: 4 }, 'four'],
  ])
  t.ok(told.logger.isLevelEnabled('warn'))
  t.notOk(told.logger.isLevelEnabled('debug'))
})
