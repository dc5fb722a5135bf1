import { spawnSync } from 'node:child_process'
import * as fs from 'node:fs'

import t from 'tap'

import { E } from '../../../src/sys/errno.js'
import { close, read, write } from '../../../src/sys/io.js'
import { messagePair, receiveFd, socketPair } from '../../../src/sys/socket.js'

const pair = (): [number, number] => {
  const made = socketPair()
  if (typeof made === 'number') throw new Error(`socketpair: ${made}`)
  return made
}

const python = spawnSync('python3', ['-c', '']).status === 0

t.test('a descriptor', { skip: !python && 'needs python3' }, async t => {
  const [ours, theirs] = pair()
  const file = `${t.testdir({ file: 'its content' })}/file`
  t.equal(receiveFd(ours), -E.EAGAIN, 'nothing yet, and it does not wait')
  const script = `import socket, sys
s = socket.socket(fileno=3)
f = open(sys.argv[1])
socket.send_fds(s, [b'x'], [f.fileno()])`
  spawnSync('python3', ['-c', script, file], { stdio: ['ignore', 'inherit', 'inherit', theirs] })
  const fd = receiveFd(ours)
  t.ok(fd > 2, `${fd}`)
  t.equal(fs.readFileSync(fd, 'utf8'), 'its content')
  const flags = /^flags:\s*([0-7]+)/m.exec(fs.readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1'))
  t.ok((Number.parseInt(flags?.[1] ?? '0', 8) & 0o2000000) !== 0, 'no child inherits it')
  close(fd)
  fs.writeSync(theirs, 'y')
  t.equal(receiveFd(ours), -E.EPROTO, 'a byte alone')
  close(theirs)
  t.equal(receiveFd(ours), -E.EPIPE, 'the other end is closed')
  close(ours)
  t.equal(receiveFd(ours), -E.EBADF)
})

t.test('messages', async t => {
  const made = messagePair()
  if (typeof made === 'number') throw new Error(`socketpair: ${made}`)
  const [ours, theirs] = made
  const buf = Buffer.alloc(16)
  t.equal(read(ours, buf, 0, 16), -E.EAGAIN, 'it does not wait')
  for (const text of ['one', 'three', '']) write(theirs, Buffer.from(text), 0, text.length)
  t.strictSame([read(ours, buf, 0, 16), read(ours, buf, 0, 16), read(ours, buf, 0, 16)], [3, 5, 0])
  close(ours)
  close(theirs)
})
