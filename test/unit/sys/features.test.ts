import { release } from 'node:os'

import t from 'tap'

import { features, probeFchmodat2, probeXattrat } from '../../../src/sys/features.js'
import { fail } from '../../../src/sys/libc.js'

const [major = 0, minor = 0] = release().split('.').map(Number)
const isSince = (a: number, b: number): boolean => major > a || (major === a && minor >= b)

t.test('features are probed once', async t => {
  t.same(features, { xattrat: undefined, fchmodat2: undefined })
  for (const [name, probe, there] of [
    ['xattrat', probeXattrat, isSince(6, 13)],
    ['fchmodat2', probeFchmodat2, isSince(6, 6)],
  ] as const) {
    const found = probe()
    t.equal(features[name], found)
    // A seccomp filter may hide a system call of the kernel, but cannot add one.
    t.ok(there || !found, name)
    if (there && !found) t.comment(`${name} is filtered: errno ${-fail()}`)
  }
})
