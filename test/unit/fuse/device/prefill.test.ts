import * as fs from 'node:fs'

import t, { type Test } from 'tap'

import { MAX_PREFILL, Prefill } from '../../../../src/fuse/device/prefill.js'
import { Opened, UNREAD_MAX } from '../../../../src/overlay/ops.js'
import { E } from '../../../../src/sys/errno.js'
import {
  join,
  NODE,
  OP,
  RecordingOps,
  request,
  s32,
  u32,
  u64,
  zeros,
} from '../../../helpers/frames.js'
import { scratch } from '../../../helpers/layers.js'
import { recordingLog, rig } from '../support.js'

const ID = Number(NODE)
const FH = 0x77

/**
 * struct fuse_out_header with FUSE_NOTIFY_STORE, struct fuse_notify_store_out, and the file's
 * contents
 */
const message = (content: Buffer): Buffer =>
  join(
    u32(40 + content.length), // len
    s32(4), // error: the code
    u64(0), // unique
    u64(NODE), // nodeid
    u64(0), // offset
    u32(content.length), // size
    u32(0), // padding
    content,
  )

/** A union with one open file of `size` bytes. */
class OneFile extends RecordingOps {
  readonly content: Buffer
  readonly #fd: number
  result: number | undefined

  constructor(t: Test, size: number) {
    super()
    this.content = Buffer.alloc(size, 'contents')
    const path = `${scratch(t)}/file`
    fs.writeFileSync(path, this.content)
    this.#fd = fs.openSync(path, 'r')
    t.teardown(() => fs.closeSync(this.#fd))
  }
  override realFile(fh: number): number {
    this.calls.push(['realFile', fh])
    return this.result ?? this.#fd
  }
}

const opened = (unread: number): Opened => Object.assign(new Opened(), { fh: FH, unread })

const device = (t: Test, flags = 'r+') => {
  const path = `${scratch(t)}/device`
  fs.writeFileSync(path, '')
  const fd = fs.openSync(path, flags)
  t.teardown(() => fs.closeSync(fd))
  const log = recordingLog()
  return { log, prefill: new Prefill(fd, log), sent: () => fs.readFileSync(path) }
}

t.test('the contents of a file go out in one message', async t => {
  for (const size of [1, 4095, 4096, 4097, MAX_PREFILL]) {
    const { prefill, sent, log } = device(t)
    const ops = new OneFile(t, size)
    prefill.push(ID, opened(size), ops)
    t.ok(sent().equals(message(ops.content)), `${size} bytes`)
    t.equal(prefill.count, 1)
    t.strictSame(log.lines, [])
  }
})

t.test('no prefill of a file that was opened before, is empty or is long', async t => {
  const { prefill, sent } = device(t)
  const ops = new OneFile(t, 2 * MAX_PREFILL)
  for (const unread of [-1, 0]) t.ok(prefill.push(ID, opened(unread), ops))
  t.strictSame(ops.calls, [], 'nothing is read')
  t.ok(prefill.push(ID, opened(2 * MAX_PREFILL), ops))
  t.ok(prefill.push(ID, opened(UNREAD_MAX), ops), 'which may be longer')
  t.notOk(prefill.push(ID, opened(MAX_PREFILL + 1), ops), 'it is not so long')
  t.equal(sent().length, 0)
})

t.test('no prefill of a file whose length has changed or that cannot be read', async t => {
  const { prefill, sent, log } = device(t)
  const ops = new OneFile(t, 99)
  t.notOk(prefill.push(ID, opened(100), ops))
  t.notOk(prefill.push(ID, opened(98), ops))
  ops.result = -E.EIO
  t.ok(prefill.push(ID, opened(99), ops))
  t.equal(sent().length, 0)
  t.equal(prefill.count, 0)
  t.strictSame(log.lines, [], 'READ will say so')
})

t.test('after a refusal there is no further prefill', async t => {
  const { prefill, log } = device(t, 'r')
  const ops = new OneFile(t, 10)
  prefill.push(ID, opened(10), ops)
  prefill.push(ID, opened(10), ops)
  t.equal(prefill.count, 0)
  t.equal(ops.calls.length, 1)
  t.match(log.lines, [['warn', /takes no pages/, { errno: 'EBADF' }]])
})

t.test('no prefill for a kernel that may not clear the rest of the last page', async t => {
  for (const [minor, due] of [
    [40, 0],
    [41, 1],
  ] as const) {
    const { prefill } = device(t)
    rig({ prefill, minor })
    prefill.push(ID, opened(10), new OneFile(t, 10))
    t.equal(prefill.count, due, `7.${minor}`)
  }
})

t.test('prefill at an OPEN for reading, if the kernel may keep the pages', async t => {
  const O_WRONLY = 1
  const O_RDWR = 2
  for (const [io, flags, upper, stable, due] of [
    ['cached', 0, false, false, true],
    ['cached', 0, true, true, true],
    ['cached', O_WRONLY, true, true, false],
    ['cached', O_RDWR, true, true, false],
    ['passthrough', 0, false, false, true],
    ['passthrough', 0, true, true, false],
    ['passthrough', 0, true, false, false],
  ] as const) {
    const given: number[] = []
    const prefill = new Prefill(-1, recordingLog())
    prefill.push = node => given.push(node) > 0
    const { ops, send } = rig({ io, prefill })
    ops.opening = out => void Object.assign(out, { writable: flags !== 0, upper, stable })
    send(request(OP.OPEN, join(u32(flags), zeros(4))))
    t.strictSame(given, due ? [ID] : [], `${io}, ${flags}, ${upper ? 'upper' : 'lower'}`)
  }
})

t.test(
  'a file of another length than was told is not opened: its name is looked up again',
  async t => {
    const prefill = new Prefill(-1, recordingLog())
    prefill.push = () => false
    const { ops, send, session } = rig({ io: 'cached', prefill })
    const answer = send(request(OP.OPEN, join(u32(0), zeros(4))))
    t.equal((answer as Buffer).readInt32LE(4), -E.ESTALE)
    t.strictSame(ops.calls.slice(1), [
      ['release', ops.fh],
      ['markStale', ID],
    ])
    t.equal(session.ioModes?.handleCount, 0)
  },
)
