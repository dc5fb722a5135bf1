import t from 'tap'

import type { Listed } from '../../../../src/cli/commands/ls.js'
import {
  linesOf,
  nextSample,
  screenOf,
  sorted,
  type Order,
} from '../../../../src/cli/commands/top.js'

const listed = (mountpoint: string, more: Partial<Listed> = {}): Listed => ({
  mountpoint,
  lower: ['/l'],
  upper: null,
  work: null,
  writable: false,
  io: 'cached',
  pid: 7,
  since: 1000,
  age: 60,
  requests: 0,
  memory: 2 ** 20,
  mounts: 2,
  ...more,
})

t.test('requests per second are those since the look before', async t => {
  const first = nextSample([listed('/a', { requests: 100 }), listed('/b')], 1000)
  t.strictSame(
    first.mounts.map(one => one.rate),
    [null, null],
  )
  const all = [
    listed('/a', { requests: 150 }),
    // Another mount on the same directory, one that is new, and one that does not answer.
    listed('/b', { since: 2000, requests: 5 }),
    listed('/c', { requests: 5 }),
    listed('/d', { requests: null }),
  ]
  const second = nextSample(all, 3000, first)
  t.strictSame(
    second.mounts.map(one => one.rate),
    [25, null, null, null],
  )
  t.strictSame(
    nextSample(all, 3000, second).mounts.map(one => one.rate),
    [null, null, null, null],
    'no time has passed',
  )
})

const look = nextSample(
  [
    listed('/b', { requests: 30, memory: 5, age: 9 }),
    listed('/a', { requests: 30, memory: 6, age: 1, pid: 8 }),
    listed('/c', { requests: 50, memory: null, age: 5, pid: null }),
  ],
  2000,
  nextSample([listed('/b', { requests: 10 }), listed('/a', { pid: 8 }), listed('/c')], 1000),
)

const by = (order: Order): string =>
  sorted(look.mounts, order)
    .map(one => one.mountpoint)
    .join('')

t.test('orders', async t => {
  t.equal(by('r'), '/a/b/c', 'of another process nothing was known before')
  t.equal(by('t'), '/c/a/b')
  t.equal(by('m'), '/a/b/c')
  t.equal(by('a'), '/b/c/a')
  t.equal(by('p'), '/a/b/c')
})

t.test('lines', async t => {
  t.strictSame(linesOf(look, 't'), [
    'REQUESTS/S  REQUESTS  MEMORY  MOUNTS  PID  AGE  MODE    MOUNTPOINT',
    '         -        50       -       2    -   5s  cached  /c',
    '        30        30      6B       2    8   1s  cached  /a',
    '        20        30      5B       2    7   9s  cached  /b',
  ])
})

t.test('a screen has no more lines and columns than there are', async t => {
  const all = screenOf(look, 'm', { columns: 500, rows: 50 })
  t.equal(all[0], 'tsoverlay top: 3 mounts, 2 servers, 50 requests/s, 11B memory')
  t.match(all[1], /^by memory; keys: r requests per second, .*, q end$/)
  t.strictSame(all.slice(3), linesOf(look, 'm'))
  const cut = screenOf(look, 'm', { columns: 12, rows: 4 })
  t.strictSame(cut, ['tsoverlay to', 'by memory; k', '', 'REQUESTS/S  '])
  t.equal(
    screenOf(nextSample([], 0), 'r', { columns: 80, rows: 24 })[0],
    'tsoverlay top: 0 mounts, 0 servers, - requests/s, 0B memory',
  )
})
