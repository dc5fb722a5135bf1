import t from 'tap'

import { rowsOf, type Listed } from '../../../../src/cli/commands/ls.js'

const nothing: Listed = {
  mountpoint: '/a b',
  lower: null,
  upper: null,
  work: null,
  writable: null,
  io: null,
  pid: null,
  since: null,
  age: null,
  requests: null,
  memory: null,
  mounts: null,
}

t.test('what is not known is a dash', async t => {
  const [headings, row] = rowsOf([nothing])
  t.equal(headings?.length, row?.length)
  t.strictSame(row, [String.raw`/a\040b`, '-', '-', '-', '-', '-', '-', '-'])
})

t.test('what is known', async t => {
  const known: Listed = {
    ...nothing,
    lower: ['/l 1', '/l2'],
    upper: '/u',
    work: '/w',
    writable: true,
    io: 'cached',
    pid: 12,
    since: 0,
    age: 61,
    requests: 0,
    memory: 3 * 2 ** 20,
    mounts: 2,
  }
  t.strictSame(rowsOf([known])[1], [
    String.raw`/a\040b`,
    '12',
    'cached',
    '1m',
    '0',
    '3.0M',
    '2',
    String.raw`lowerdir=/l\0401:/l2,upperdir=/u,workdir=/w`,
  ])
})
