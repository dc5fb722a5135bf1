/** src/sys/errno.ts and constants.ts compared with node:os and node:fs. */

import { constants as fsConstants } from 'node:fs'
import { constants as osConstants } from 'node:os'
import { getSystemErrorMap, getSystemErrorName } from 'node:util'
import t from 'tap'
import * as k from '../../../src/sys/constants.js'
import { E, errnoMessage, errnoName } from '../../../src/sys/errno.js'

t.test('numbers', async t => {
  for (const [name, n] of Object.entries(osConstants.errno)) {
    t.equal((E as Record<string, number>)[name], n, name)
  }
})

t.test('names and messages', async t => {
  t.equal(errnoName(E.ENOENT), 'ENOENT')
  t.equal(errnoName(-E.ENOENT), 'ENOENT')
  t.equal(errnoName(-E.ENOTSUP), 'EOPNOTSUPP', 'the canonical name')
  t.equal(errnoName(E.EWOULDBLOCK), 'EAGAIN')
  t.equal(errnoName(-9999), 'E9999')
  for (const n of getSystemErrorMap().keys()) {
    const name = getSystemErrorName(n)
    // libuv defines some of its own.
    if (n > -134 && name !== 'ENOTSUP') t.equal(errnoName(n), name)
  }
  t.equal(errnoMessage(-E.ENOENT), 'No such file or directory')
  t.equal(errnoMessage(E.EHWPOISON), 'Memory page has hardware error')
  t.equal(errnoMessage(9999), 'Unknown error 9999')
  for (const n of new Set(Object.values(E))) t.not(errnoMessage(n), `Unknown error ${n}`)
})

t.test('constants', async t => {
  const ours = k as unknown as Record<string, number>
  let compared = 0
  for (const [name, value] of Object.entries(fsConstants)) {
    if (/^[OS]_/.test(name)) {
      t.equal(ours[name], value, name)
      compared++
    }
  }
  t.ok(compared > 30)
  t.ok(Object.values(ours).every(n => Number.isSafeInteger(n)))
})
