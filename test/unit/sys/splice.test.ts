/** src/sys/splice.ts on real files. */

import * as fs from 'node:fs'
import t from 'tap'
import { openat } from '../../../src/sys/at.js'
import * as k from '../../../src/sys/constants.js'
import { E } from '../../../src/sys/errno.js'
import { read, write } from '../../../src/sys/io.js'
import * as s from '../../../src/sys/splice.js'
import { directory, type Directory } from './support.js'

const openPipe = (d: Directory): [number, number] => {
  const ends = s.pipe()
  if (typeof ends === 'number') throw new Error(`pipe: ${ends}`)
  ends.forEach(fd => d.keep(fd))
  return ends
}

t.test('a pipe that never blocks, of a chosen size', async t => {
  const d = directory(t)
  const [from, into] = openPipe(d)
  const buf = Buffer.alloc(16)
  t.equal(read(from, buf, 0, 16), -E.EAGAIN)
  t.equal(s.splice(from, d.keep(openat(d.fd, 'f', k.O_CREAT | k.O_WRONLY, 0o600)), 5), -E.EAGAIN)
  t.equal(s.setPipeSize(into, 3 * 4096), 4 * 4096)
  const file = d.keep(openat(d.fd, 'g', k.O_CREAT | k.O_RDWR, 0o600))
  write(file, Buffer.alloc(65536, 7), 0, 65536)
  t.equal(s.spliceFrom(file, 0, into, 65536), 4 * 4096, 'as much as there is room')
  t.equal(s.spliceFrom(file, 0, into, 1), -E.EAGAIN)
  t.equal(s.setPipeSize(into, 4096), -E.EBUSY)
  t.equal(s.setPipeSize(file, 4096), -E.EBADF)
})

t.test('between files and a pipe', async t => {
  const d = directory(t)
  const [from, into] = openPipe(d)
  fs.writeFileSync(d.at('a'), '0123456789')
  const a = d.keep(openat(d.fd, 'a', k.O_RDONLY))
  const b = d.keep(openat(d.fd, 'b', k.O_CREAT | k.O_WRONLY, 0o600))
  t.equal(s.spliceFrom(a, 3, into, 4), 4)
  t.equal(s.spliceFrom(a, 8, into, 100), 2, 'up to the end')
  t.equal(s.spliceFrom(a, 10, into, 100), 0)
  t.equal(s.spliceFrom(a, 2 ** 40, into, 100), 0)
  t.equal(s.spliceFrom(d.fd, 0, into, 100), -E.EINVAL, 'a directory')
  t.equal(s.splice(from, b, 100), 6)
  t.equal(fs.readFileSync(d.at('b'), 'latin1'), '345689')
  t.equal(s.splice(from, a, 1), -E.EBADF, 'open for reading only')
})

t.test('memory by reference', async t => {
  const d = directory(t)
  const [from, into] = openPipe(d)
  const buf = Buffer.allocUnsafeSlow(4096).fill('a')
  t.equal(s.vmsplice(into, buf, 8, 4), 4)
  t.equal(s.vmsplice(into, buf, 4000, 97), -E.EFAULT)
  buf.fill('b')
  const got = Buffer.alloc(8)
  t.equal(read(from, got, 0, 8), 4)
  t.equal(got.latin1Slice(0, 4), 'bbbb')
})
