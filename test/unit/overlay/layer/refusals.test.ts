import t from 'tap'

import { workdirError, rootError } from '../../../../src/overlay/layer/refusals.js'
import { E } from '../../../../src/sys/errno.js'

t.test('the hint fits the error', async t => {
  const cases: readonly (readonly [keyof typeof E, string])[] = [
    ['ENOSPC', 'No space left on device; make room on its file system (df, df -i)'],
    ['EDQUOT', 'Disk quota exceeded; make room within the quota (quota -s)'],
    ['EMFILE', 'Too many open files; raise the limit (ulimit -n)'],
    ['EIO', 'Input/output error; is its disk in order?'],
    ['EROFS', 'Read-only file system; is its file system writable?'],
  ]
  for (const [code, said] of cases)
    t.match(workdirError('/w', -E[code]), {
      message: `workdir=/w can't be prepared: ${said}`,
      option: 'workdir',
      path: '/w',
      code,
    })
})

t.test('an unreadable root', async t => {
  for (const [isUpper, option] of [
    [true, 'upperdir'],
    [false, 'lowerdir'],
  ] as const)
    t.match(rootError({ path: '/l', isUpper }, -E.EIO), {
      message: `${option}=/l: its root can't be read: Input/output error; is its disk in order?`,
      option,
      code: 'EIO',
    })
})
