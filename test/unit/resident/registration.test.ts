import * as fs from 'node:fs'
import { dirname } from 'node:path'

import t from 'tap'

import { Registration } from '../../../src/resident/registration.js'
import { LOCK_EX } from '../../../src/sys/constants.js'
import { close, flock } from '../../../src/sys/io.js'

const linesOf = (directory: string): number =>
  fs.readFileSync(`${directory}/pid`, 'latin1').trimEnd().split('\n').length

t.test('nothing is taken away while another server may be taking the place', async t => {
  const registration = Registration.create(`${t.testdir({})}/top/key`)
  if (typeof registration === 'string') throw new Error(registration)
  t.teardown(() => void close(registration.from))
  const { directory } = registration
  const lock = fs.openSync(dirname(directory), 'r')
  t.equal(flock(lock, LOCK_EX), 0)
  registration.hide()
  registration.end()
  t.strictSame(fs.readdirSync(directory), ['pid'])
  t.equal(linesOf(directory), 6)
  fs.closeSync(lock)
  registration.hide()
  t.equal(linesOf(directory), 3, 'clients find no pipe')
  registration.end()
  t.strictSame(fs.readdirSync(dirname(directory)), [])
})
