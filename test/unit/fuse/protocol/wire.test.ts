import t from 'tap'
import { Entry } from '../../../../src/overlay/ops.js'
import { flagsOfFsx, fsxOfFlags, otherFsx } from '../../../../src/fuse/protocol/fsxattr.js'
import { writeInvalAttr, DeviceNotifier } from '../../../../src/fuse/protocol/notify.js'
import { DirPacker, NEVER, Validity, writeEntry } from '../../../../src/fuse/protocol/encode.js'
import {
  decodeCaller,
  decodeName,
  decodeText,
  devMajor,
  devMinor,
} from '../../../../src/fuse/protocol/decode.js'
import { Reply, Request } from '../../../../src/fuse/protocol/wire.js'
import { opcodeName } from '../../../../src/fuse/protocol/abi.js'
import {
  cstr,
  GID,
  join,
  NODE,
  OP,
  PID,
  request,
  s32,
  u32,
  u64,
  UID,
  UNIQUE,
  zeros,
} from '../../../helpers/frames.js'
import { load, recordingLog } from '../support.js'

t.test('the header of a request', async t => {
  const req = load(request(OP.LOOKUP, cstr('x')))
  t.equal(req.wellFormed, true)
  t.equal(req.opcode, 1)
  t.equal(req.uniqueLow, Number(UNIQUE & 0xffff_ffffn))
  t.equal(req.uniqueHigh, Number(UNIQUE >> 32n))
  t.equal(req.unique, String(UNIQUE))
  t.equal(req.nodeid, Number(NODE))
  t.same([req.uid, req.gid, req.pid], [UID, GID, PID])
  t.equal(req.bodyLength, 2)
  t.equal(load(request(OP.LOOKUP, zeros(0), { unique: 5n })).unique, '5')
  t.equal(
    load(request(OP.LOOKUP, zeros(0), { unique: (1n << 63n) | 2n })).unique,
    '9223372036854775810',
  )
  const caller = { uid: 0, gid: 0, pid: 0, umask: 0 }
  decodeCaller(req, caller, 0o7022)
  t.same(caller, { uid: UID, gid: GID, pid: PID, umask: 0o22 })
})

t.test('numbers', async t => {
  const req = load(request(0, join(u32(0xffff_fffe), s32(-2), u64(-3), u64(0x1f_ffff_ffff_ffff))))
  t.equal(req.u32(0), 0xffff_fffe)
  t.equal(req.u32(4), 0xffff_fffe)
  t.equal(req.i64(8), -3)
  t.equal(req.u64(8), 2 ** 64)
  t.equal(req.u64(16), Number.MAX_SAFE_INTEGER)
  t.equal(req.i64(16), Number.MAX_SAFE_INTEGER)
  // beyond the end, where the buffer has other data
  t.same([req.u32(24), req.u64(24), req.i64(24), req.i64(20)], [0, 0, 0, 0])
})

t.test('strings', async t => {
  const req = load(request(0, join(cstr('a\xffb'), cstr(''), Buffer.from('end'))))
  t.equal(req.nul(0), 3)
  t.equal(decodeName(req, 0), 'a\xffb')
  t.equal(decodeName(req, 4), undefined, 'empty')
  t.equal(decodeName(req, 5), undefined, 'without an end, whatever follows it in the buffer')
  t.equal(decodeName(req, 500), undefined, 'beyond')
  t.equal(decodeText(req, 1), '\xffb')
  t.equal(decodeText(req, 4), undefined)
  t.equal(req.bytes(1, 2).toString('latin1'), '\xffb')
})

t.test('a copy is independent', async t => {
  const req = load(request(OP.UNLINK, cstr('name')))
  const copy = req.copy()
  req.buf.fill(0)
  t.ok(copy instanceof Request)
  t.same(copy.buf.subarray(0, copy.length), request(OP.UNLINK, cstr('name')))
  t.equal(decodeName(copy, 0), 'name')
})

t.test('a reply', async t => {
  const rep = new Reply(61)
  t.equal(rep.buf.length, 64)
  t.equal(rep.capacity, 48)
  rep.buf.fill(0xee)
  rep.header(24, -38, 0xa5b6c7d8, 0x01020304)
  rep.i64(16, -1)
  t.same(rep.buf.subarray(0, 24), join(u32(24), s32(-38), u64(UNIQUE), u64(-1)))
  rep.i64(16, Number.MAX_SAFE_INTEGER)
  t.same(rep.buf.subarray(16, 24), u64(Number.MAX_SAFE_INTEGER))
  rep.i64(16, -(2 ** 33) - 1)
  t.same(rep.buf.subarray(16, 24), u64(-(2n ** 33n) - 1n))
  rep.ino(16, 2 ** 40 + 1)
  t.same(rep.buf.subarray(16, 24), u64(2n ** 40n + 1n))
  rep.ino(16, (1n << 64n) - 1n)
  t.same(rep.buf.subarray(16, 24), u64(-1))
  rep.zero(16, 24)
  t.same(rep.buf.subarray(16, 28), join(zeros(8), Buffer.alloc(4, 0xee)))
  // outside: ignored
  rep.u32(64, 1)
  rep.i64(1000, 1)
})

t.test('entries without a node', async t => {
  const rep = new Reply(256)
  rep.buf.fill(0xee)
  writeEntry(rep, 0, new Entry(), new Validity(2.25), NEVER)
  t.same(
    rep.buf.subarray(0, 132),
    join(u64(0), u64(0), u64(2), u64(0), u32(250_000_000), zeros(92), Buffer.alloc(4, 0xee)),
  )
})

t.test('packing', async t => {
  const rep = new Reply(256)
  const dir = new DirPacker(rep)
  dir.begin(16, 32)
  t.equal(dir.add('123456789', 1, 8, 1), false, 'no room for one more byte')
  t.equal(dir.end, 16)
  t.equal(dir.add('12345678', 1, 8, 1), true)
  t.equal(dir.add('', 1, 8, 1), false)
  t.equal(dir.end, 48)
})

t.test('device numbers', async t => {
  for (const [major, minor, dev] of [
    [8, 1, 0x801],
    [0xfff, 0xfffff, 0xffff_ffff],
    [259, 70000, 0x11110370],
  ] as const) {
    t.same([devMajor(dev), devMinor(dev)], [major, minor])
  }
})

t.test('inode flags', async t => {
  t.equal(fsxOfFlags(0x10 | 0x20 | 0x8 | 0x80 | 0x40 | 0x20000000 | 0x2000000 | 1), 0x82f8)
  t.equal(flagsOfFsx(0x82f8, 1), 0x220000f9)
  t.equal(flagsOfFsx(0, 0x220000f9), 1)
  t.equal(flagsOfFsx(0, 0x8000_0000), 0x8000_0000, 'unsigned')
  t.equal(otherFsx(0x82f8), false)
  t.equal(otherFsx(0x1), true)
})

t.test('notifications', async t => {
  const rep = new Reply(64)
  const n = writeInvalAttr(rep, 0x1_0000_0042)
  t.same(
    rep.buf.subarray(0, n),
    join(
      u32(40), // len
      s32(2), // FUSE_NOTIFY_INVAL_INODE
      u64(0), // unique
      u64(0x1_0000_0042), // ino
      u64(-1), // off
      u64(0), // len
    ),
  )
  const log = recordingLog()
  const notifier = new DeviceNotifier(log)
  notifier.attrChanged(5)
  t.same(log.lines, [], 'no mount yet')
  notifier.attach(1_000_000)
  notifier.attrChanged(5)
  t.match(log.lines, [['warn', /invalidation/, { node: 5, errno: 9 }]])
})

t.test('names of opcodes', async t => {
  t.equal(opcodeName(1), 'LOOKUP')
  t.equal(opcodeName(7), 'OP_7')
  t.equal(opcodeName(4096), 'OP_4096')
})
