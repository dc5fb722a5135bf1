import * as fc from 'fast-check'
import t from 'tap'
import { InitFlag, InitFlag2, REFUSED_INIT_FLAGS } from '../../../../src/fuse/protocol/abi.js'
import {
  flagNames,
  negotiate,
  writeInit,
  writeInitMajor,
  type InitConfig,
  type Negotiated,
} from '../../../../src/fuse/protocol/init.js'
import { Reply } from '../../../../src/fuse/protocol/wire.js'
import { join, u16, u32, zeros } from '../../../helpers/frames.js'
import { ALL_FLAGS, ALL_FLAGS2, initRequest, load, rig } from '../support.js'

const PASSTHROUGH: InitConfig = { io: 'passthrough', writeback: false, stackDepth: 1 }
const CACHED: InitConfig = { io: 'cached', writeback: true, stackDepth: 1 }

const ask = (bytes: Buffer, initConfig: InitConfig): Negotiated => {
  const outcome = negotiate(load(bytes), initConfig)
  if (typeof outcome === 'string') throw new Error(outcome)
  return outcome
}

/** The flags of 7.45 that are requested in every io mode. */
const ALWAYS = [
  'ASYNC_READ',
  'ATOMIC_O_TRUNC',
  'BIG_WRITES',
  'DONT_MASK',
  'HAS_IOCTL_DIR',
  'DO_READDIRPLUS',
  'READDIRPLUS_AUTO',
  'PARALLEL_DIROPS',
  'POSIX_ACL',
  'ABORT_ERROR',
  'MAX_PAGES',
  'CACHE_SYMLINKS',
  'NO_OPENDIR_SUPPORT',
  'HANDLE_KILLPRIV_V2',
  'SETXATTR_EXT',
  'INIT_EXT',
  'DIRECT_IO_ALLOW_MMAP',
  'NO_EXPORT_SUPPORT',
]

/** Requested with a write-through page cache. */
const THROUGH = 'AUTO_INVAL_DATA'

t.test('every flag is either requested or refused with a reason', async t => {
  const asked = [...ALWAYS, THROUGH, 'PASSTHROUGH', 'WRITEBACK_CACHE', 'EXPLICIT_INVAL_DATA']
  const all = [...Object.keys(InitFlag), ...Object.keys(InitFlag2)]
  t.same([...asked, ...Object.keys(REFUSED_INIT_FLAGS)].toSorted(), all.toSorted())
  for (const reason of Object.values(REFUSED_INIT_FLAGS)) t.ok(reason.length > 5)
})

t.test('the answer, byte for byte', async t => {
  const rep = new Reply(256)
  const n = writeInit(rep, 0, ask(initRequest(45), PASSTHROUGH).reply)
  t.same(
    rep.buf.subarray(0, n),
    join(
      u32(7), // major
      u32(45), // minor
      u32(131072), // max_readahead
      u32(0x71f47869), // flags
      u16(64), // max_background
      u16(48), // congestion_threshold
      u32(1020 * 1024), // max_write
      u32(1), // time_gran
      u16(255), // max_pages
      u16(0), // map_alignment
      u32(0x70), // flags2: DIRECT_IO_ALLOW_MMAP, PASSTHROUGH, NO_EXPORT_SUPPORT
      u32(1), // max_stack_depth
      u16(0), // request_timeout
      zeros(22), // unused
    ),
  )
  t.equal(n, 64)
  const both = flagNames(0x71f47869, 0x70)
  t.same(both.toSorted(), [...ALWAYS, THROUGH, 'PASSTHROUGH'].toSorted())
})

t.test('minor versions', async t => {
  for (let minor = 31; minor <= 50; minor++) {
    // Before 7.36 there are only 31 flags, and the structure is shorter.
    const flags = minor >= 36 ? ALL_FLAGS : ALL_FLAGS - InitFlag.INIT_EXT
    const got = ask(initRequest(minor, flags), PASSTHROUGH)
    t.equal(got.minor, Math.min(minor, 45))
    t.equal(got.reply.minor, Math.min(minor, 45))
    t.equal(got.io, minor >= 36 ? 'passthrough' : 'cached')
    t.equal(got.reply.flags2, minor >= 36 ? 0x70 : 0)
    t.equal(got.writeback, false, 'not asked for in this mode')
  }
  for (const [minor, major] of [
    [30, 7],
    [99, 6],
  ] as const) {
    t.equal(negotiate(load(initRequest(minor, 0, 0, major)), CACHED), 'unsupported')
  }
  t.equal(negotiate(load(initRequest(1, 0, 0, 8)), CACHED), 'again')
  t.equal(negotiate(load(initRequest(45).subarray(0, 55)), CACHED), 'unsupported', 'cut off')
})

t.test('features that the mount disables', async t => {
  const got = ask(initRequest(45), { ...PASSTHROUGH, acl: false })
  const names = flagNames(got.reply.flags, got.reply.flags2)
  t.same(
    names.toSorted(),
    [...ALWAYS, THROUGH, 'PASSTHROUGH'].filter(name => name !== 'POSIX_ACL').toSorted(),
  )
  const strict = ask(initRequest(45), { ...PASSTHROUGH, strictAtime: true }).reply
  t.notOk(flagNames(strict.flags, strict.flags2).includes('CACHE_SYMLINKS'))
  const writeOf = (maxWrite: number): number =>
    ask(initRequest(45), { ...CACHED, maxWrite }).reply.maxWrite
  t.equal(writeOf(65536), 65536)
  t.equal(writeOf(0), 4096, 'no less than the kernel takes')
  t.equal(writeOf(2 ** 31), 1020 * 1024, 'no more than there is room for')
})

t.test('a flag that is not offered is not requested', async t => {
  for (const initConfig of [PASSTHROUGH, CACHED]) {
    for (const [name, bit] of Object.entries(InitFlag)) {
      const got = ask(initRequest(45, ALL_FLAGS - bit), initConfig)
      const names = flagNames(got.reply.flags, got.reply.flags2)
      t.notOk(names.includes(name), name)
      if (name === 'INIT_EXT') t.equal(got.reply.flags2, 0)
      if (name === 'MAX_PAGES') t.equal(got.reply.maxPages, 0)
      if (name === 'SETXATTR_EXT') t.equal(got.setxattrExt, false)
      if (name === 'WRITEBACK_CACHE') t.equal(got.writeback, false)
    }
    for (const [name, bit] of Object.entries(InitFlag2)) {
      const got = ask(initRequest(45, ALL_FLAGS, ALL_FLAGS2 - bit), initConfig)
      t.notOk(flagNames(got.reply.flags, got.reply.flags2).includes(name), name)
      if (name === 'PASSTHROUGH') {
        t.equal(got.io, 'cached')
        t.equal(got.reply.maxStackDepth, 0)
        t.equal(got.writeback, initConfig.writeback)
      }
    }
  }
})

t.test('modes exclude each other', async t => {
  const cached = ask(initRequest(45), CACHED)
  t.equal(cached.io, 'cached')
  t.equal(cached.writeback, true)
  t.same(
    flagNames(cached.reply.flags, cached.reply.flags2).toSorted(),
    [...ALWAYS, 'WRITEBACK_CACHE', 'EXPLICIT_INVAL_DATA'].toSorted(),
  )
  t.equal(cached.noOpen, false)
  const without = ask(initRequest(45), { ...CACHED, noOpen: true })
  t.equal(without.noOpen, true)
  t.equal((without.reply.flags & InitFlag.NO_OPEN_SUPPORT) !== 0, true)
  t.equal(without.reply.flags & InitFlag.ATOMIC_O_TRUNC, 0, 'the kernel truncates by a SETATTR')
  t.equal(ask(initRequest(45), { ...PASSTHROUGH, noOpen: true }).noOpen, false)

  const through = ask(initRequest(45), { io: 'passthrough', writeback: true, stackDepth: 2 })
  t.equal(through.writeback, false)
  t.equal(through.reply.maxStackDepth, 2)
  t.equal(ask(initRequest(45), { ...CACHED, writeback: false }).writeback, false)
})

t.test('INIT_EXT with the old structure', async t => {
  const short = initRequest(45).subarray(0, 40 + 16)
  short.writeUInt32LE(short.length, 0)
  const got = ask(short, PASSTHROUGH)
  t.equal(got.io, 'cached')
  t.equal(got.reply.flags & InitFlag.INIT_EXT, 0)
})

t.test('never more than was offered', async t => {
  fc.assert(
    fc.property(
      fc.nat({ max: ALL_FLAGS }),
      fc.nat({ max: ALL_FLAGS2 }),
      fc.constantFrom(PASSTHROUGH, CACHED),
      (flags, flags2, initConfig) => {
        const { reply } = ask(initRequest(45, flags, flags2), initConfig)
        const both =
          (reply.flags & InitFlag.WRITEBACK_CACHE) !== 0 &&
          (reply.flags2 & InitFlag2.PASSTHROUGH) !== 0
        return (reply.flags & ~flags) === 0 && (reply.flags2 & ~flags2) === 0 && !both
      },
    ),
  )
  t.pass()
})

t.test('in a session', async t => {
  const newer = rig({ init: false })
  const again = newer.send(initRequest(1, 0, 0, 8)) as Buffer
  t.same(again.subarray(16, 24), join(u32(7), u32(45)))
  t.equal(newer.session.negotiated, undefined, 'the kernel asks again')
  t.ok(Buffer.isBuffer(newer.send(initRequest(45))))
  t.equal(newer.session.negotiated?.io, 'passthrough')

  const older = rig({ init: false })
  const refused = older.send(initRequest(30)) as Buffer
  t.equal(refused.readInt32LE(4), -71)
  t.match(older.session.refused, { name: 'MountError', code: 'EPROTO', message: /7\.30/ })

  const rep = new Reply(256)
  t.equal(writeInitMajor(rep, 0), 64)
})
