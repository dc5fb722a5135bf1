/** Numbers at the limits of their ranges. session.test.ts has the ordinary requests. */

import t from 'tap'

import { E } from '../../../../src/sys/errno.js'
import { errorReply, join, OP, reply, request, u32, u64, zeros } from '../../../helpers/frames.js'
import { rig } from '../support.js'

const FH = u64(0x77)
const LIMIT = 2n ** 53n

/** struct fuse_read_in */
const readIn = (pos: bigint, size: number): Buffer => join(FH, u64(pos), u32(size), zeros(20))
/** struct fuse_write_in */
const writeIn = (pos: bigint, size: number): Buffer => join(FH, u64(pos), u32(size), zeros(20))

t.test('all offsets are exact', async t => {
  const { ops, send } = rig()
  for (const pos of [LIMIT - 1n, LIMIT, LIMIT + 1n, 2n ** 63n - 1n]) {
    const due = pos < LIMIT ? Number(pos) : pos
    send(request(OP.READ, readIn(pos, 20)))
    t.strictSame(ops.last, ['read', 0x77, 20, due])
    send(request(OP.WRITE, join(writeIn(pos, 3), Buffer.from('abc'))))
    t.strictSame(ops.last?.slice(0, 4), ['write', 0x77, 'abc', due])
    send(request(OP.FALLOCATE, join(FH, u64(pos), u64(pos), u64(0))))
    t.strictSame(ops.last, ['fallocate', 0x77, 0, due, due])
    ops.seen = due
    t.same(send(request(OP.LSEEK, join(FH, u64(pos), u64(3)))), reply(u64(pos)))
    t.strictSame(ops.last, ['lseek', 0x77, due, 3])
    send(request(OP.COPY_FILE_RANGE, join(FH, u64(pos), u64(9), FH, u64(pos), u64(5), u64(0))))
    t.strictSame(ops.last?.slice(0, 6), ['copyFileRange', 0x77, due, 0x77, due, 5])
  }
})

t.test("a read is limited to the reply's size", async t => {
  const { ops, send, session } = rig()
  send(request(OP.READ, readIn(0n, 0xffff_ffff)))
  t.strictSame(ops.last, ['read', 0x77, session.reply.capacity, 0])
})

t.test('a write with less data than its size is refused', async t => {
  const { ops, send } = rig()
  const ask = (pos: bigint, size: number): unknown =>
    send(request(OP.WRITE, join(writeIn(pos, size), Buffer.from('abc'))))
  t.same(ask(0n, 4), errorReply(E.EINVAL))
  t.same(ask(0n, 0xffff_ffff), errorReply(E.EINVAL))
  t.strictSame(ops.calls, [])
  ask(LIMIT - 4n, 3)
  t.equal(ops.last?.[2], 'abc')
})

t.test(
  'places in a listing are safe integers, and copies are no longer than the kernel makes them',
  async t => {
    const { ops, send } = rig()
    t.same(send(request(OP.READDIR, readIn(LIMIT, 100))), errorReply(E.EINVAL))
    t.same(send(request(OP.READDIRPLUS, readIn(LIMIT, 100))), errorReply(E.EINVAL))
    t.strictSame(ops.calls, [])
    ops.results.copyFileRange = 0x7fff_f000
    const all = join(FH, u64(5), u64(9), FH, u64(5), u64(2n ** 64n - 1n), u64(0))
    t.same(send(request(OP.COPY_FILE_RANGE_64, all)), reply(u64(0x7fff_f000)))
    t.equal(ops.last?.[5], 0x7fff_f000)
  },
)

t.test('a listing that fails after some entries returns these', async t => {
  const { ops, send } = rig()
  ops.results.readdir = -E.EIO
  const some = send(request(OP.READDIR, readIn(0n, 1000))) as Buffer
  t.equal(some.readInt32LE(4), 0)
  t.ok(some.length > 16)
  t.same(send(request(OP.READDIR, readIn(0x1_0000_0005n, 1000))), errorReply(E.EIO))
})
