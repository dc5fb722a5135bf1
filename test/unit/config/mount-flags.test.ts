import * as fc from 'fast-check'
import t from 'tap'

import { addMountFlag, isMountFlag } from '../../../src/config/mount-flags.js'
import type { MountFlag } from '../../../src/config/types.js'

const opposites: [MountFlag, MountFlag][] = [
  ['ro', 'rw'],
  ['nosuid', 'suid'],
  ['nodev', 'dev'],
  ['noexec', 'exec'],
  ['noatime', 'atime'],
  ['nodiratime', 'diratime'],
  ['relatime', 'norelatime'],
  ['strictatime', 'nostrictatime'],
  ['lazytime', 'nolazytime'],
  ['sync', 'async'],
  ['nosymfollow', 'symfollow'],
]
const word = fc.constantFrom<MountFlag>(...opposites.flat(), 'dirsync')
const flagsOf = (words: MountFlag[]): number => words.reduce(addMountFlag, 0)

t.test('the later of two opposites wins in any context', async () => {
  const words = fc.array(word, { maxLength: 6 })
  fc.assert(
    fc.property(words, fc.constantFrom(...opposites), (before, [on, off]) => {
      const bit = flagsOf([on])
      return (
        (flagsOf([...before, on]) & bit) === bit &&
        (flagsOf([...before, on, off]) & bit) === 0 &&
        flagsOf([...before, off, on]) === flagsOf([...before, on])
      )
    }),
  )
})

t.test('repetition changes nothing; there is at most one atime mode', async () => {
  const times = ['noatime', 'relatime', 'strictatime'] as const
  fc.assert(
    fc.property(fc.array(word), word, (words, last) => {
      const flags = flagsOf([...words, last])
      const rules = times.filter(rule => (flags & flagsOf([rule])) !== 0)
      return flags === flagsOf([...words, last, last]) && rules.length <= 1
    }),
  )
})

t.test('numbers of mount(2), and unknown words', async t => {
  t.equal(flagsOf(['ro', 'nosuid', 'nodev', 'noexec', 'sync']), 0x1f)
  t.equal(flagsOf(['noatime', 'nodiratime']), 0xc00)
  t.equal(flagsOf(['dirsync', 'nosymfollow']), 0x180)
  for (const wrong of ['', 'RO', 'toString', '__proto__', 'loud'])
    t.notOk(isMountFlag(wrong), wrong)
  for (const good of opposites.flat()) t.ok(isMountFlag(good), good)
})
