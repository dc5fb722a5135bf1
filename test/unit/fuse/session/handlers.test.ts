/** The table of opcodes. session.test.ts checks every request byte for byte. */

import t from 'tap'

import { handlers } from '../../../../src/fuse/session/handlers.js'
import { E } from '../../../../src/sys/errno.js'
import { errorReply, join, OP, request, u32, u64, UNIQUE } from '../../../helpers/frames.js'
import { initRequest, rig } from '../support.js'

/** The kernel sends NOTIFY_REPLY only after FUSE_NOTIFY_RETRIEVE, which the server never sends. */
const UNHANDLED = new Set<number>([OP.NOTIFY_REPLY])

t.test('every opcode of the protocol is known, and no other', async t => {
  const known = new Set<number>(Object.values(OP))
  for (let opcode = 0; opcode < handlers.length; opcode++)
    t.equal(
      handlers[opcode] !== undefined,
      known.has(opcode) && !UNHANDLED.has(opcode),
      `${opcode}`,
    )
})

t.test('fixed parts are those of linux/fuse.h', async t => {
  const sizes: Partial<Record<keyof typeof OP, number>> = {
    FORGET: 8,
    GETATTR: 16,
    SETATTR: 88,
    MKNOD: 16,
    MKDIR: 8,
    RENAME: 8,
    LINK: 8,
    OPEN: 8,
    READ: 40,
    WRITE: 40,
    RELEASE: 24,
    FSYNC: 16,
    GETXATTR: 8,
    LISTXATTR: 8,
    CREATE: 16,
    INTERRUPT: 8,
    IOCTL: 32,
    BATCH_FORGET: 8,
    FALLOCATE: 32,
    RENAME2: 16,
    LSEEK: 24,
    COPY_FILE_RANGE: 56,
    STATX: 24,
  }
  for (const [name, size] of Object.entries(sizes))
    t.equal(handlers[OP[name as keyof typeof OP]]?.size, size, name)
})

t.test('ENOSYS only for requests that the kernel handles itself', async t => {
  const own = ['FLUSH', 'ACCESS', 'GETLK', 'SETLK', 'SETLKW', 'POLL', 'BMAP'] as const
  for (const name of own) {
    const { ops, send } = rig()
    t.same(send(request(OP[name])), errorReply(E.ENOSYS), name)
    t.strictSame(ops.calls, [])
  }
})

t.test('the root is never forgotten', async t => {
  const { ops, send } = rig()
  t.ok((send(request(OP.FORGET, u64(5), { nodeid: 1 })) as number) <= 0, 'without an answer')
  const pairs = [1, 2, 1, 3].flatMap(node => [u64(node), u64(7)])
  send(request(OP.BATCH_FORGET, join(u32(4), u32(0), ...pairs)))
  t.strictSame(ops.calls, [
    ['forget', 2, 7],
    ['forget', 3, 7],
  ])
})

t.test('a forget is limited to the entries of the request', async t => {
  const { ops, send } = rig()
  send(request(OP.BATCH_FORGET, join(u32(0xffff_ffff), u32(0), u64(2), u64(1), u64(3))))
  t.strictSame(ops.calls, [['forget', 2, 1]])
})

t.test('a kernel that is too old ends the session with a reason', async t => {
  const { session, send } = rig({ init: false })
  t.same(send(initRequest(30)), errorReply(E.EPROTO, UNIQUE))
  t.match(session.refused, { name: 'MountError', code: 'EPROTO', message: /7\.30/ })
})
