import * as fs from 'node:fs'

import t, { type Test } from 'tap'

import {
  DeviceNotifier,
  writeInvalAttr,
  writeInvalPages,
} from '../../../../src/fuse/protocol/notify.js'
import { Reply } from '../../../../src/fuse/protocol/wire.js'
import { join, s32, u32, u64 } from '../../../helpers/frames.js'
import { scratch } from '../../../helpers/layers.js'
import { recordingLog } from '../support.js'

const NODE = 0x11_2233_4455_66
/** struct fuse_out_header with FUSE_NOTIFY_INVAL_INODE, struct fuse_notify_inval_inode_out */
const message = (offset: number): Buffer =>
  join(
    u32(40), // len
    s32(2), // error: the code
    u64(0), // unique
    u64(NODE), // ino
    u64(offset), // off
    u64(0), // len
  )

t.test('the attributes of a node, with or without its pages', async t => {
  const rep = new Reply(64)
  rep.buf.fill(0xee)
  t.equal(writeInvalAttr(rep, NODE), 40)
  t.same(rep.buf.subarray(0, 40), message(-1))
  t.equal(rep.buf[40], 0xee)
  t.equal(writeInvalPages(rep, NODE), 40)
  t.same(rep.buf.subarray(0, 40), message(0))
})

const rig = (t: Test, flags: string) => {
  const path = `${scratch(t)}/device`
  fs.writeFileSync(path, '')
  const fd = fs.openSync(path, flags)
  t.teardown(() => fs.closeSync(fd))
  const log = recordingLog()
  return { path, fd, log, notifier: new DeviceNotifier(log) }
}

t.test('no notifications before the mount', async t => {
  const { path, log, notifier } = rig(t, 'r+')
  notifier.attrChanged(NODE)
  t.equal(notifier.dropPages(NODE), null)
  t.equal(fs.readFileSync(path).length, 0)
  t.strictSame(log.lines, [])
})

t.test('after the mount each message is one write', async t => {
  const { path, fd, log, notifier } = rig(t, 'r+')
  notifier.attach(fd)
  notifier.attrChanged(NODE)
  t.same(fs.readFileSync(path), message(-1))
  const pages = notifier.dropPages(NODE)
  const others = notifier.dropPages(5)
  t.equal(pages?.fd, fd)
  t.same(Buffer.from(pages?.bytes ?? []), message(0), 'bytes of its own')
  t.not(pages?.bytes, others?.bytes)
  t.same(fs.readFileSync(path), message(-1), 'which another thread is to write')
  t.strictSame(log.lines, [])
})

t.test('a refused notification is logged', async t => {
  const { fd, log, notifier } = rig(t, 'r')
  notifier.attach(fd)
  notifier.attrChanged(NODE)
  t.match(log.lines, [['warn', /invalidation/, { node: NODE, errno: 9 }]])
})

t.test('nodes that the kernel must forget', async t => {
  const { fd, notifier } = rig(t, 'r+')
  notifier.attach(fd)
  t.equal(notifier.forgetNodes([2]), null, 'a kernel that can not be asked')
  notifier.prunes = true
  const asked = notifier.forgetNodes([2, 0x1_0000_0003])
  t.equal(asked?.fd, fd)
  const bytes = Buffer.from(asked?.bytes ?? [])
  t.equal(bytes.length, 48)
  t.equal(bytes.readUInt32LE(0), 48, 'the length')
  t.equal(bytes.readInt32LE(4), 9, 'FUSE_NOTIFY_PRUNE')
  t.equal(bytes.readBigUInt64LE(8), 0n, 'it is no answer')
  t.equal(bytes.readUInt32LE(16), 2, 'how many')
  t.equal(bytes.readBigUInt64LE(32), 2n)
  t.equal(bytes.readBigUInt64LE(40), 0x1_0000_0003n)
})
