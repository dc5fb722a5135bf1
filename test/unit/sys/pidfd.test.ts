import { spawn } from 'node:child_process'
import { once } from 'node:events'
import * as fs from 'node:fs'

import t from 'tap'

import { descriptorsOf, hasOpen, readDescriptor } from '../../../src/sys/descriptors.js'
import { E } from '../../../src/sys/errno.js'
import { close, write } from '../../../src/sys/io.js'
import { hasEnded, namedDescriptor, pidfdOpen, pidfdSignal } from '../../../src/sys/pidfd.js'

t.test('a process by descriptor', async t => {
  const child = spawn('sleep', ['100'], { stdio: 'ignore' })
  const fd = pidfdOpen(child.pid ?? 0)
  t.ok(fd >= 0)
  t.notOk(hasEnded(fd))
  t.equal(pidfdSignal(fd, 0), 0)
  t.equal(pidfdSignal(fd, 15), 0)
  t.strictSame(await once(child, 'exit'), [null, 'SIGTERM'])
  t.ok(hasEnded(fd))
  t.equal(pidfdSignal(fd, 15), -E.ESRCH)
  close(fd)
  t.equal(pidfdOpen(child.pid ?? 0), -E.ESRCH)
})

t.test('only an in-memory file is read', async t => {
  const path = `${t.testdir({ 'memfd:tsoverlay:0:1:0 (deleted)': 'a text' })}/memfd:tsoverlay:0:1:0 (deleted)`
  const fd = fs.openSync(path, 'r')
  t.equal(readDescriptor(process.pid, String(fd)), undefined)
  fs.closeSync(fd)
})

t.test('a descriptor with a name, seen by others', async t => {
  const fd = namedDescriptor('tsoverlay:test')
  t.ok(fd >= 0)
  const text = Buffer.from('a text')
  t.equal(write(fd, text, 0, text.length), text.length)
  const { pid } = process
  t.match(new Map(descriptorsOf(pid)).get(String(fd)), '/memfd:tsoverlay:test')
  t.equal(readDescriptor(pid, String(fd)), 'a text')
  t.equal(hasOpen(pid, '/memfd:tsoverlay:test (deleted)'), true)
  close(fd)
  t.notOk(new Map(descriptorsOf(pid)).get(String(fd))?.includes('tsoverlay:test'))
  t.equal(readDescriptor(pid, '100000'), undefined)
  t.equal(hasOpen(pid, '/memfd:tsoverlay:test (deleted)'), false)
  t.equal(hasOpen(4_194_304, 'pipe:[1]'), undefined)
  t.strictSame(descriptorsOf(4_194_304), [], 'no such process')
  t.equal(namedDescriptor('x'.repeat(5000)), -E.ENAMETOOLONG)
})
