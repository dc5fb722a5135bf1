import { openSync, closeSync, writeFileSync } from 'node:fs'
import t from 'tap'
import { E } from '../../../src/sys/errno.js'
import { close } from '../../../src/sys/io.js'
import { isOpenForWriting, reopenForReading } from '../../../src/sys/lease.js'
import { directory } from './support.js'

t.test('whether a file is open for writing', async t => {
  const f = directory(t)
  writeFileSync(f.at('file'), 'x')
  const writer = openSync(f.at('file'), 'r+')
  const reader = f.keep(reopenForReading(writer))
  if (isOpenForWriting(reader) === -E.EINVAL) {
    t.pass('no leases on this file system')
    return
  }
  t.equal(isOpenForWriting(reader), 1)
  const other = f.keep(reopenForReading(reader))
  closeSync(writer)
  t.equal(isOpenForWriting(reader), 0)
  t.equal(isOpenForWriting(other), 0, 'nothing is left behind')
})

t.test('not a regular file', async t => {
  t.equal(reopenForReading(1_000_000), -E.ENOENT)
  t.equal(isOpenForWriting(1_000_000), -E.EBADF)
  const f = directory(t)
  const again = reopenForReading(f.fd)
  t.ok(again > 0)
  t.ok(isOpenForWriting(again) <= 0)
  close(again)
})
