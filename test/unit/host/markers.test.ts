import { writeSync } from 'node:fs'

import t from 'tap'

import { mark } from '../../../src/host/mark.js'
import { keyOf, keysOf, markerNames, markerOf, markersOf } from '../../../src/host/markers.js'
import { defaultUnionOptions } from '../../../src/config/defaults.js'
import { servesWritable } from '../../../src/host/servers.js'
import { close } from '../../../src/sys/io.js'
import { namedDescriptor } from '../../../src/sys/pidfd.js'

const { pid } = process

t.test('a mount has a marker as long as it lives', async t => {
  const top = t.testdir({ u: {}, w: {} })
  const union = { ...defaultUnionOptions, lower: ['/l'], upper: `${top}/u`, work: `${top}/w` }
  const keys = keysOf(union)
  t.strictSame(keys, [keyOf(`${top}/u`), keyOf(`${top}/w`)])
  t.match(keys[0], /^\d+:\d+$/)
  const marker = {
    mountpoint: '/m\n \u00e9',
    device: '0:1234567',
    lower: union.lower,
    keys,
    writable: true,
    io: 'cached',
    since: 1,
  }
  const ends = [mark(marker), mark({ ...marker, device: '0:1234568', writable: false })]
  t.match(markerOf(pid, '0:1234567'), marker)
  t.equal(markersOf(pid).length, 2)
  t.equal(new Set(markerNames(pid)).size, 2)
  t.equal(servesWritable(pid, '0:1234567'), true)
  t.equal(servesWritable(pid, '0:1234568'), false)
  for (const end of ends) end()
  t.strictSame(markersOf(pid), [])
})

t.test('other in-memory files are not markers', async t => {
  for (const text of ['null', '1', '{}', '{"keys":"x"}', '[]', '{']) {
    const fd = namedDescriptor('tsoverlay:other')
    writeSync(fd, text)
    t.strictSame(markersOf(pid), [], text)
    close(fd)
  }
  const fd = namedDescriptor('tsoverlay:other')
  writeSync(fd, '{"keys":[]}')
  t.equal(markersOf(pid).length, 1)
  writeSync(fd, ' ', 32 * 1024 * 1024)
  t.strictSame(markersOf(pid), [], 'too large to be one')
  close(fd)
})

t.test('an unreadable file is not a marker', async t => {
  const fd = namedDescriptor('tsoverlay:nothing')
  t.strictSame(markersOf(pid), [])
  t.strictSame(markerNames(pid), ['tsoverlay:nothing'])
  close(fd)
  t.equal(keyOf('/no/such/directory'), '')
  t.strictSame(markersOf(4_194_304), [])
})
