import t from 'tap'

import { foreignDescriptors } from '../../../src/cli/descriptors.js'

const CLOEXEC = 0o2000000
const own = [
  { fd: 0, target: '/dev/pts/0', flags: 2 },
  { fd: 1, target: 'pipe:[1]', flags: 1 },
  { fd: 2, target: 'pipe:[2]', flags: 1 },
  { fd: 3, target: 'anon_inode:[eventpoll]', flags: CLOEXEC | 2 },
  { fd: 4, target: 'pipe:[40]', flags: CLOEXEC },
  { fd: 5, target: 'pipe:[40]', flags: CLOEXEC | 1 },
  { fd: 6, target: '/dev/null', flags: CLOEXEC },
]

t.test('what Node opened stays', async t => {
  t.same(foreignDescriptors(own, []), [])
})

t.test('what was inherited goes', async t => {
  const foreign = [
    { fd: 7, target: '/etc/passwd', flags: CLOEXEC },
    { fd: 8, target: '/var/log/x', flags: 1 },
    { fd: 9, target: 'pipe:[50]', flags: CLOEXEC | 1 },
    { fd: 10, target: 'pipe:[51]', flags: 1 },
    { fd: 11, target: 'pipe:[51]', flags: 0 },
    { fd: 12, target: 'socket:[60]', flags: CLOEXEC | 2 },
    { fd: 13, target: 'anon_inode:[eventfd]', flags: 2 },
    { fd: 14, target: '/dev/null', flags: 0 },
    { fd: 15, target: 'pipe:[52]', flags: CLOEXEC | 1 },
    { fd: 16, target: 'pipe:[52]', flags: CLOEXEC | 1 },
  ]
  const all = foreign.map(({ fd }) => fd)
  t.same(foreignDescriptors([...own, ...foreign], []), all)
  t.same(
    foreignDescriptors([...own, ...foreign], [12]),
    all.filter(fd => fd !== 12),
    'but what is to be kept',
  )
})
