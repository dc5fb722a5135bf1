import t from 'tap'

import { age, oneWord, size, table } from '../../../src/cli/table.js'

t.test('paths stay on one line, and in one column', async t => {
  for (const [path, word] of [
    ['/mnt/m', '/mnt/m'],
    ['/a b', String.raw`/a\040b`],
    ['/a\nb\tc', String.raw`/a\012b\011c`],
    ['/a\\b', String.raw`/a\134b`],
    ['\u001B[31m', String.raw`\033[31m`],
    ['\u0085', String.raw`\302\205`],
    ['/é', '/é'],
  ] as const)
    t.equal(oneWord(path), word)
})

t.test('columns', async t => {
  t.strictSame(
    table(
      [
        ['A', 'B', 'C'],
        ['aa', '1', ''],
        ['a', '100', 'c'],
      ],
      new Set([1]),
    ),
    ['A     B  C', 'aa    1', 'a   100  c'],
  )
  t.strictSame(table([], new Set()), [])
})

t.test('sizes and ages', async t => {
  t.strictSame([0, 1023, 1024, 1536, 10 * 1024, 2 ** 20, 5.5 * 2 ** 30, 2 ** 60].map(size), [
    '0B',
    '1023B',
    '1.0K',
    '1.5K',
    '10K',
    '1.0M',
    '5.5G',
    '1024P',
  ])
  t.strictSame([0, 59.9, 60, 3599, 3600, 86_400, 1e7].map(age), [
    '0s',
    '59s',
    '1m',
    '59m',
    '1h',
    '1d',
    '115d',
  ])
})
