import * as fs from 'node:fs'
import { dirname } from 'node:path'

import t from 'tap'

import { Registration } from '../../../src/resident/registration.js'
import { LOCK_EX } from '../../../src/sys/constants.js'
import { close, flock } from '../../../src/sys/io.js'

const linesOf = (folder: string): number =>
  fs.readFileSync(`${folder}/pid`, 'latin1').trimEnd().split('\n').length

t.test('nothing is taken away while another server may be taking the place', async t => {
  const registration = Registration.make(`${t.testdir({})}/top/key`)
  if (typeof registration === 'string') throw new Error(registration)
  t.teardown(() => void close(registration.from))
  const { folder } = registration
  const lock = fs.openSync(dirname(folder), 'r')
  t.equal(flock(lock, LOCK_EX), 0)
  registration.hide()
  registration.end()
  t.strictSame(fs.readdirSync(folder), ['pid'])
  t.equal(linesOf(folder), 6)
  fs.closeSync(lock)
  registration.hide()
  t.equal(linesOf(folder), 3, 'clients find no pipe')
  registration.end()
  t.strictSame(fs.readdirSync(dirname(folder)), [])
})
