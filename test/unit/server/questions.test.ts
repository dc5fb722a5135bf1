import { closeSync, openSync, readdirSync, readFileSync, readlinkSync } from 'node:fs'

import t from 'tap'

import { askCounters, askWhich } from '../../../src/resident/ask.js'
import { answerFor, type QuestionHandlers } from '../../../src/server/questions.js'
import { pipe } from '../../../src/sys/splice.js'

const descriptors = (): string[] =>
  readdirSync('/proc/self/fd').flatMap(fd => {
    try {
      return [readlinkSync(`/proc/self/fd/${fd}`)]
    } catch {
      return []
    }
  })

/** Answers with counters, and refuses each path. */
const of = (stats: QuestionHandlers['stats']): QuestionHandlers => ({
  stats,
  explain: async names => ({ error: names.join('|') }),
})

t.test('a process is asked about one mount, or all', async t => {
  const one = answerFor(
    '0:1001',
    of(async () => ({ requests: 1 })),
  )
  const other = answerFor(
    '0:1002',
    of(async () => ({ requests: 2 })),
  )
  t.equal(one.fd, other.fd, 'they share a pipe')
  t.strictSame(await askCounters(process.pid, one.fd, '0:1002'), { '0:1002': { requests: 2 } })
  t.strictSame(await askCounters(process.pid, one.fd), {
    '0:1001': { requests: 1 },
    '0:1002': { requests: 2 },
  })
  const many = await Promise.all(Array.from({ length: 8 }, () => askCounters(process.pid, one.fd)))
  t.ok(many.every(answers => answers?.['0:1001']?.['requests'] === 1))
  other.end()
  t.strictSame(await askCounters(process.pid, one.fd), { '0:1001': { requests: 1 } })
  one.end()
  t.notOk(
    descriptors().some(target => target.includes('tsoverlay-answer')),
    'answers go with the last mount',
  )
})

t.test('mounts that do not answer or fail are omitted', async t => {
  const silent = answerFor(
    '0:1003',
    of(() => new Promise(() => {})),
  )
  const failing = answerFor(
    '0:1004',
    of(() => Promise.reject(new Error('no'))),
  )
  const well = answerFor(
    '0:1005',
    of(async () => ({ requests: 5 })),
  )
  t.strictSame(await askCounters(process.pid, well.fd), { '0:1005': { requests: 5 } })
  for (const { end } of [silent, failing, well]) end()
})

t.test('a question is only written to a pipe', async t => {
  const top = t.testdir({ file: 'text' })
  const ends = pipe()
  if (typeof ends === 'number') throw new Error(`no pipe: ${ends}`)
  const file = openSync(`${top}/file`, 'r')
  t.equal(await askCounters(process.pid, file), undefined)
  t.equal(readFileSync(`${top}/file`, 'utf8'), 'text')
  t.equal(await askCounters(process.pid, undefined), undefined)
  t.equal(await askCounters(process.pid, -1), undefined)
  t.equal(await askCounters(process.pid, 100_000), undefined)
  t.equal(await askCounters(process.pid, ends[1]), undefined, 'a pipe that nobody reads')
  for (const fd of [file, ...ends]) closeSync(fd)
})

t.test('paths are passed unchanged', async t => {
  const { fd, end } = answerFor(
    '0:1006',
    of(async () => ({})),
  )
  t.strictSame(await askWhich(process.pid, fd, '0:1006', '/a b/é/./..//\n'), {
    error: 'a b|\u00C3\u00A9|\n',
  })
  t.strictSame(await askWhich(process.pid, fd, '0:1006', '/'), { error: '' })
  t.equal(await askWhich(process.pid, fd, '0:1006', `/${'a'.repeat(4000)}`), undefined)
  t.equal(await askWhich(process.pid, fd, '0:1', '/a'), undefined, 'another mount')
  end()
})
