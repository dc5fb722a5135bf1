/**
 * Truncations that free much space run as jobs. Others are tested in attr.test.ts and
 * handles.test.ts.
 */

import * as fs from 'node:fs'

import t from 'tap'

import {
  Attr,
  Entry,
  Opened,
  SetAttr,
  SetAttrValid as V,
  type Result,
} from '../../../../src/overlay/ops.js'
import { FALLOC_FL_KEEP_SIZE } from '../../../../src/sys/constants.js'
import { E } from '../../../../src/sys/errno.js'
import { unionDirectories } from '../../../helpers/layers.js'
import * as sys from '../../../helpers/syscalls.js'
import { optionsOf } from '../../../helpers/union.js'
import { pendingOf, resultOf, skipUnions, stateOf, type State } from '../support.js'

const { O } = sys
const MIB = 1 << 20
const LARGE = 80 * MIB

/** A union with a large file `f` and a small file `g`. */
const withLarge = (t: Parameters<typeof unionDirectories>[0], writeback = false) => {
  const directories = unionDirectories(t, { lower: [{}] })
  const real = `${directories.upper}/f`
  fs.writeFileSync(real, 'first')
  const fd = fs.openSync(real, 'r+')
  t.equal(sys.fallocate(fd, 0, 0, LARGE), 0)
  fs.closeSync(fd)
  fs.writeFileSync(`${directories.upper}/g`, '')
  fs.chmodSync(real, 0o6777)
  const state = stateOf(t, optionsOf(directories, { volatile: true }), writeback)
  const id = (name: string): number => {
    const out = new Entry()
    t.equal(state.ops.lookup(1, name, out), 0)
    return out.nodeId
  }
  return { ...state, real, f: id('f'), g: id('g') }
}

const sizeTo = (size: number, valid = 0): SetAttr => {
  const set = new SetAttr()
  set.valid = V.SIZE | valid
  set.size = size
  return set
}

const ended = (ops: State['ops'], pending: ReturnType<typeof pendingOf>): Promise<Result> =>
  resultOf(pending, () => ops.runCallbacks())

t.test('by name', { skip: skipUnions }, async t => {
  const { ops, u, f, g, real } = withLarge(t)
  const out = new Attr()
  ops.requester.uid = 1000
  ops.requester.gid = 1000
  t.equal(ops.setattr(g, sizeTo(7), out), 0, 'a small file is cut at once')
  t.equal(ops.setattr(f, sizeTo(LARGE + 1), out), 0, 'also a large one that grows')
  const cut = (): Result => ops.setattr(f, sizeTo(5, V.KILL_SUIDGID), out)
  const pending = pendingOf(cut)
  t.equal(pending.answer, false)
  t.equal(pending.job.uninterruptible, true, 'a killed caller waits for it')
  t.equal(fs.statSync(real).mode & 0o7777, 0o777, 'before the data')
  const mode = new SetAttr()
  mode.valid = V.MODE
  const file = new Opened()
  const waiting = [
    () => ops.setattr(f, mode, out),
    () => ops.open(f, O.RDWR | O.TRUNC, false, file),
    () => ops.unlink(1, 'f'),
    () => ops.rename(1, 'g', 1, 'f', 0),
    () => ops.rename(1, 'f', 1, 'g', 0),
    () => ops.link(f, 1, 'h', new Entry()),
    () => ops.setxattr(f, 'user.x', Buffer.from('x'), 0, false),
    () => ops.removexattr(f, 'user.x'),
    () => ops.setFlags(f, 0),
  ].map(pendingOf)
  t.ok(
    waiting.every(({ answer }) => !answer),
    'they are asked again when it is over',
  )
  t.equal(ops.getattr(f, 0, new Attr()), 0, 'who only looks does not wait')
  t.equal(await ended(ops, pending), 0)
  t.equal(u.nodes.get(f)?.busy, null)
  t.equal(cut(), 0)
  t.equal(out.size, 5)
  t.equal(fs.readFileSync(real, 'latin1'), 'first')
  t.equal(fs.statSync(real).mode & 0o7777, 0o777)
})

t.test('by a descriptor', { skip: skipUnions }, async t => {
  const { ops, f, real } = withLarge(t, true)
  const file = new Opened()
  t.equal(ops.open(f, O.RDWR, false, file), 0)
  const before = fs.statSync(real).mtimeMs
  const set = sizeTo(5, V.FH)
  set.fh = file.fh
  const cut = (): Result => ops.setattr(f, set, new Attr())
  const pending = pendingOf(cut)
  const buffer = Buffer.alloc(8)
  for (const call of [
    () => ops.read(file.fh, buffer, 0, 8, 0),
    () => ops.write(file.fh, buffer, 0, 8, 0, false, true),
    () => ops.lseek(file.fh, 0, 3),
  ])
    t.equal(pendingOf(call).answer, false)
  t.equal(await ended(ops, pending), 0)
  t.equal(fs.statSync(real).mtimeMs, before, 'the kernel keeps the time')
  t.equal(cut(), 0)
  t.equal(fs.statSync(real).mtimeMs, before)
  t.equal(ops.read(file.fh, buffer, 0, 8, 0), 5)
  ops.release(file.fh)
})

for (const access of [O.RDONLY, O.WRONLY, O.RDWR]) {
  t.test(`at open, ${access}`, { skip: skipUnions }, async t => {
    const { ops, f, real } = withLarge(t)
    const file = new Opened()
    const open = (): Result => ops.open(f, access | O.TRUNC, false, file)
    const pending = pendingOf(open)
    t.equal(pending.answer, false)
    t.equal(await ended(ops, pending), 0)
    t.equal(open(), 0)
    t.equal(fs.statSync(real).size, 0)
    ops.release(file.fh)
    t.equal(ops.getattr(f, 0, new Attr()), 0)
  })
}

t.test('space behind the end', { skip: skipUnions }, async t => {
  const { ops, g } = withLarge(t)
  const file = new Opened()
  t.equal(ops.open(g, O.RDWR, false, file), 0)
  t.equal(sys.fallocate(file.fd, FALLOC_FL_KEEP_SIZE, 0, LARGE), 0)
  const set = (): Result => ops.setattr(g, sizeTo(0), new Attr())
  t.equal(await ended(ops, pendingOf(set)), 0)
  t.equal(set(), 0)
  ops.release(file.fh)
})

t.test('the job fails, or the union is closed before', { skip: skipUnions }, async t => {
  const { ops, u, f, real, close } = withLarge(t)
  const cut = (size: number) => pendingOf(() => ops.setattr(f, sizeTo(size), new Attr()))
  t.equal(await ended(ops, cut(-1)), -E.EINVAL)
  t.equal(u.nodes.get(f)?.busy, null)
  const pending = cut(5)
  close()
  pending.job.onDone(() => t.fail('nobody is called back'))
  t.ok([5, LARGE].includes(fs.statSync(real).size))
})
