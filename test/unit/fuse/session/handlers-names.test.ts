/** Invalid names, and numbers at their limits. session.test.ts has the ordinary requests. */

import t from 'tap'

import { E } from '../../../../src/sys/errno.js'
import { cstr, errorReply, join, OP, request, u32, u64, zeros } from '../../../helpers/frames.js'
import { rig } from '../support.js'

/** The bytes before the name, for every request with a name. */
const before: Partial<Record<keyof typeof OP, Buffer>> = {
  LOOKUP: zeros(0),
  MKNOD: zeros(16),
  MKDIR: zeros(8),
  SYMLINK: zeros(0),
  LINK: zeros(8),
  CREATE: zeros(16),
  UNLINK: zeros(0),
  RMDIR: zeros(0),
  RENAME: zeros(8),
  RENAME2: zeros(16),
}

for (const [op, head] of Object.entries(before))
  t.test(`${op}: an invalid name reaches no layer`, async t => {
    const { ops, send } = rig()
    const opcode = OP[op as keyof typeof OP]
    const tail = cstr('second')
    for (const name of ['', '.', '..', 'a/b', '/', '../x'])
      t.same(send(request(opcode, join(head, cstr(name), tail))), errorReply(E.EINVAL), name)
    t.same(send(request(opcode, join(head, Buffer.from('endless')))), errorReply(E.EINVAL))
    t.strictSame(ops.calls, [])
    send(request(opcode, join(head, cstr('\xff\xfe'), tail)))
    t.ok(ops.last?.includes('\xff\xfe'), 'bytes go through')
  })

t.test('the second name is checked like the first', async t => {
  const { ops, send } = rig()
  for (const name of ['', '..', 'a/b'])
    t.same(
      send(request(OP.RENAME, join(u64(1), cstr('old'), cstr(name)))),
      errorReply(E.EINVAL),
      name,
    )
  t.same(send(request(OP.RENAME, join(u64(1), cstr('old')))), errorReply(E.EINVAL), 'none')
  t.strictSame(ops.calls, [])
  send(request(OP.SYMLINK, join(cstr('name'), cstr('../a/b'))))
  t.ok(ops.last?.includes('../a/b'), 'a target may be anything')
  t.same(send(request(OP.SYMLINK, join(cstr('name'), cstr('')))), errorReply(E.EINVAL))
})

t.test('the largest device', async t => {
  const { ops, send } = rig()
  const dev = 0xffff_ffff // 12 bits of major, 20 of minor
  send(request(OP.MKNOD, join(u32(0o20666), u32(dev), u32(0o7777), u32(0), cstr('n'))))
  t.strictSame(ops.last?.slice(3), ['n', 0o20666, 0xfff, 0xfffff])
  t.match(ops.last?.[1], { umask: 0o777 })
})

t.test('a created file that the kernel cannot open is forgotten', async t => {
  const { ops, send, session } = rig()
  Object.assign(session.ioModes!, { open: () => -E.EMFILE })
  t.same(send(request(OP.CREATE, join(zeros(16), cstr('n')))), errorReply(E.EMFILE))
  t.strictSame(ops.calls.slice(1), [
    ['release', 0x77],
    ['forget', 0x42, 1],
  ])
})
