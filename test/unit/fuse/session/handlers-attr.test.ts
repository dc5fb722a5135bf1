/** Truncated and oversized values. session.test.ts has the ordinary requests. */

import t from 'tap'

import { E } from '../../../../src/sys/errno.js'
import {
  cstr,
  errorReply,
  join,
  OP,
  reply,
  request,
  u32,
  u64,
  zeros,
} from '../../../helpers/frames.js'
import { rig } from '../support.js'

/** struct fuse_setxattr_in of FUSE_SETXATTR_EXT */
const setxattrIn = (size: number, flags = 0): Buffer => join(u32(size), u32(0), u32(flags), u32(0))

t.test('an xattr value that is shorter than its size is refused', async t => {
  const { ops, send } = rig()
  const set = (size: number, value: string): unknown =>
    send(request(OP.SETXATTR, join(setxattrIn(size), cstr('user.\xff'), Buffer.from(value))))
  for (const size of [4, 0xffff_ffff]) t.same(set(size, 'abc'), errorReply(E.EINVAL))
  t.same(send(request(OP.SETXATTR, join(setxattrIn(0), zeros(1)))), errorReply(E.EINVAL), 'no name')
  t.strictSame(ops.calls, [])
  t.same(set(2, 'abc'), reply())
  t.strictSame(ops.last?.slice(2), ['user.\xff', 'ab', 0, false])
})

t.test('a value or a list: its length, itself, or an error', async t => {
  const { ops, send } = rig()
  const get = (room: number): unknown =>
    send(request(OP.GETXATTR, join(u32(room), u32(0), cstr('user.x'))))
  const list = (room: number): unknown => send(request(OP.LISTXATTR, join(u32(room), u32(0))))
  for (const ask of [get, list]) {
    t.same(ask(0), reply(join(u32(ops.data.length), u32(0))))
    t.same(ask(1000), reply(ops.data))
    t.same(ask(ops.data.length), reply(ops.data))
    t.same(ask(ops.data.length - 1), errorReply(E.ERANGE))
    t.same((ask(0xffff_ffff) as Buffer).subarray(16), ops.data, 'more room than a reply has')
  }
})

t.test('a list without ACLs is shorter by their length', async t => {
  const { ops, send } = rig({ tuning: { acl: false } })
  const list = (room: number): unknown => send(request(OP.LISTXATTR, join(u32(room), u32(0))))
  ops.data = Buffer.concat([
    cstr('system.posix_acl_default'),
    cstr('user.a'),
    cstr('system.posix_acl_access'),
    cstr('system.posix_acl_access2'),
  ])
  const rest = join(cstr('user.a'), cstr('system.posix_acl_access2'))
  t.same(list(1000), reply(rest))
  t.same(list(rest.length), reply(rest), 'room for the others is enough')
  t.same(list(rest.length - 1), errorReply(E.ERANGE))
  t.same(list(0), reply(join(u32(rest.length), u32(0))))
})

const setattr = (size: bigint): Buffer =>
  request(OP.SETATTR, join(u32(8), u32(0), u64(0), u64(size), zeros(64)))

t.test('a size is exact above 2^53, too', async t => {
  const { ops, send } = rig()
  send(setattr(2n ** 53n - 1n))
  t.match(ops.last, ['setattr', Number, { size: Number(2n ** 53n - 1n) }])
  for (const size of [2n ** 53n, 2n ** 53n + 1n, 2n ** 63n - 1n]) {
    send(setattr(size))
    t.match(ops.last, ['setattr', Number, { size }])
  }
})

t.test('a target that just fits is returned completely', async t => {
  const { ops, send } = rig()
  ops.data = Buffer.alloc(4095, 0xff)
  t.same(send(request(OP.READLINK)), reply(ops.data))
  ops.results.readlink = -E.EINVAL
  t.same(send(request(OP.READLINK)), errorReply(E.EINVAL))
})
