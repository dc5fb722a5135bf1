/** Supplements proc.test.ts: all bits of both words, and each thread separately. Needs root. */

import { readFileSync } from 'node:fs'

import t from 'tap'

import { dropEffective, hasCap, raiseCap, restoreFsCaps } from '../../../src/sys/caps.js'
import * as k from '../../../src/sys/constants.js'
import { E } from '../../../src/sys/errno.js'

const effective = (): bigint =>
  BigInt(`0x${/CapEff:\s*(\w+)/.exec(readFileSync('/proc/thread-self/status', 'latin1'))?.[1]}`)

t.test('every capability bit is reported', async t => {
  const set = effective()
  for (let cap = 0; cap < 64; cap++)
    t.equal(hasCap(cap), (set & (1n << BigInt(cap))) !== 0n, `${cap}`)
})

t.test('invalid capability numbers', async t => {
  for (const cap of [-1, 64, 1000, Number.NaN]) {
    t.equal(dropEffective(cap), -E.EINVAL)
    t.equal(raiseCap(cap), -E.EINVAL)
  }
})

t.test('no capset without a difference', async t => {
  const set = effective()
  t.equal(restoreFsCaps(true), 0)
  t.equal(restoreFsCaps(true), 0)
  t.equal(effective(), set)
})

t.test(
  'dropped and raised again, in either word',
  { skip: !hasCap(k.CAP_MAC_OVERRIDE) },
  async t => {
    const set = effective()
    for (const cap of [k.CAP_CHOWN, k.CAP_SETFCAP, k.CAP_MAC_OVERRIDE]) {
      t.equal(dropEffective(cap), 0)
      t.equal(dropEffective(cap), 0, 'twice is once')
      t.equal(effective(), set & ~(1n << BigInt(cap)))
      t.equal(raiseCap(cap), 0)
      t.equal(effective(), set)
    }
  },
)
