/** Requests by way of a pipe, with a pair of sockets that keep messages apart in the place of /dev/fuse. */

import t, { type Test } from 'tap'
import { E } from '../../../src/sys/errno.js'
import { close, read, write } from '../../../src/sys/io.js'
import { messagePair } from '../../../src/sys/socket.js'
import { Intake } from '../../../src/fuse/intake.js'
import { Pipe } from '../../../src/fuse/pipe.js'
import { MIN_SPLICED } from '../../../src/fuse/pipe.js'
import { Request } from '../../../src/fuse/wire.js'
import { cstr, join, OP, request, u32, u64, zeros } from '../../helpers/frames.js'
import { openFds } from '../../helpers/union.js'

const HEAD = 80
const SIZE = 256 * 1024

const bytes = (length: number): Buffer => {
  const buf = Buffer.alloc(length)
  for (let i = 0; i < length; i++) buf[i] = i ^ (i >> 8)
  return buf
}

const writeOf = (data: Buffer): Buffer =>
  request(OP.WRITE, join(u64(1), u64(0), u32(data.length), zeros(20), data))

const rig = (t: Test) => {
  const pair = messagePair()
  if (typeof pair === 'number') throw new Error(`socketpair: ${pair}`)
  const [kernel, device] = pair
  const pipe = new Pipe()
  const intake = new Intake(pipe)
  const req = new Request(SIZE)
  req.fd = device
  t.teardown(() => {
    pipe.close()
    close(kernel)
    close(device)
  })
  const send = (...messages: Buffer[]): void => {
    for (const message of messages)
      t.equal(write(kernel, message, 0, message.length), message.length)
  }
  /** The next request. */
  const next = (): number => {
    req.buf.fill(0xee)
    req.source = -1
    return (req.length = intake.read(req))
  }
  const inBuffer = (): Buffer => req.buf.subarray(0, req.length)
  const inPipe = (): Buffer => {
    const buf = Buffer.alloc(SIZE)
    const n = read(req.source, buf, 0, SIZE)
    return n < 0 ? Buffer.alloc(0) : buf.subarray(0, n)
  }
  return { intake, req, send, next, inBuffer, inPipe, kernel }
}

t.test('after a large WRITE the next leaves its data in a pipe', async t => {
  const r = rig(t)
  const big = writeOf(bytes(100_000))
  const small = request(OP.UNLINK, cstr('name'))
  r.send(big)
  t.equal(r.next(), big.length)
  t.equal(r.req.source, -1, 'not the first')
  t.ok(r.inBuffer().equals(big))
  for (let i = 0; i < 3; i++) {
    r.send(big)
    t.equal(r.next(), big.length)
    t.ok(r.inBuffer().subarray(0, HEAD).equals(big.subarray(0, HEAD)), 'all but the data')
    t.ok(r.req.wellFormed)
    t.ok(r.inPipe().equals(big.subarray(HEAD)))
    t.equal(r.intake.taken, i + 1)
  }
  for (const other of [small, writeOf(bytes(MIN_SPLICED - 1)), writeOf(bytes(0)), small]) {
    r.send(other)
    t.equal(r.next(), other.length, 'any other request is in the buffer')
    t.equal(r.req.source, -1)
    t.ok(r.inBuffer().equals(other))
  }
  r.send(big)
  t.equal(r.next(), big.length)
  t.equal(r.req.source, -1, 'after two of them, all are')
  t.ok(r.inBuffer().equals(big))
  r.send(small, big)
  r.next()
  t.ok(r.inBuffer().equals(small))
  r.next()
  t.not(r.req.source, -1, 'after one of them, not')
})

t.test('nothing there, and the end', async t => {
  const r = rig(t)
  t.equal(r.next(), -E.EAGAIN)
  r.send(writeOf(bytes(MIN_SPLICED)))
  r.next()
  t.equal(r.next(), -E.EAGAIN)
  close(r.kernel)
  t.equal(r.next(), 0)
})

t.test('data that is kept, and data that is not wanted', async t => {
  const r = rig(t)
  const first = writeOf(bytes(MIN_SPLICED))
  const second = writeOf(bytes(150_000))
  r.send(first)
  r.next()
  r.send(second)
  r.next()
  t.ok(r.intake.keep(r.req))
  t.equal(r.req.source, -1)
  t.ok(r.inBuffer().equals(second), 'as if there had been no pipe')
  r.send(second)
  r.next()
  t.equal(r.inPipe().length, 150_000)
  t.notOk(r.intake.keep(r.req), 'too late')
  r.send(second)
  r.next()
  r.intake.drop(r.req)
  t.equal(r.req.source, -1)
  r.send(first)
  r.next()
  t.ok(r.inPipe().equals(first.subarray(HEAD)), 'nothing of the one before is left')
})

t.test('it leaves nothing open', async t => {
  const before = openFds()
  await t.test('used', async t => {
    const r = rig(t)
    for (let i = 0; i < 2; i++) {
      r.send(writeOf(bytes(MIN_SPLICED)))
      r.next()
    }
    t.equal(openFds().length, before.length + 4)
  })
  t.strictSame(openFds(), before)
})
