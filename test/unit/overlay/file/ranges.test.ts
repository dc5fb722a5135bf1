/** Long copies and allocations run as jobs. Short ones are tested in handles.test.ts. */

import * as fs from 'node:fs'

import t from 'tap'

import {
  Attr,
  Entry,
  Opened,
  SetAttr,
  SetAttrValid,
  type Result,
} from '../../../../src/overlay/ops.js'
import { E } from '../../../../src/sys/errno.js'
import { unionDirectories } from '../../../helpers/layers.js'
import * as sys from '../../../helpers/syscalls.js'
import { optionsOf } from '../../../helpers/union.js'
import { pendingOf, resultOf, skipUnions, stateOf } from '../support.js'

const { O } = sys
const MIB = 1 << 20

t.test('a long copy', { skip: skipUnions }, async t => {
  const directories = unionDirectories(t, { lower: [{}] })
  const data = Buffer.alloc(40 * MIB + 5)
  for (let at = 0; at < data.length; at += 4096) data.writeUInt32LE(at, at)
  fs.writeFileSync(`${directories.lower[0]}/from`, data)
  fs.writeFileSync(`${directories.upper}/to`, 'to be changed')
  const { u, ops } = stateOf(t, optionsOf(directories, { volatile: true }), true)
  const opened = (name: string, flags: number): { id: number; fh: number } => {
    const out = new Entry()
    t.equal(ops.lookup(1, name, out), 0)
    const file = new Opened()
    t.equal(ops.open(out.nodeId, flags, false, file), 0)
    return { id: out.nodeId, fh: file.fh }
  }
  const from = opened('from', O.RDONLY)
  const to = opened('to', O.RDWR)
  const copy = (offIn: number, length: number): Result =>
    ops.copyFileRange(from.fh, offIn, to.fh, 3, length, 0)

  t.equal(copy(0, 100), 100, 'a short one is done at once')
  t.equal(copy(data.length - 7, 2 ** 31), 7, 'also one that ends with the file')
  t.equal(copy(data.length, 2 ** 31), 0)

  const before = fs.statSync(`${directories.upper}/to`).mtimeMs
  const pending = pendingOf(() => copy(1, 2 ** 31 - 4096))
  t.equal(pending.answer, true)
  const set = new SetAttr()
  set.valid = SetAttrValid.MODE
  const waiting = [
    pendingOf(() => ops.write(to.fh, Buffer.from('x'), 0, 1, 0, false, true)),
    pendingOf(() => ops.setattr(to.id, set, new Attr())),
  ]
  const over: Result[] = []
  for (const { answer, job } of waiting) {
    t.equal(answer, false, 'they are asked again when it is over')
    job.onDone(result => over.push(result))
  }
  t.equal(ops.getattr(to.id, 0, new Attr()), 0, 'who only looks does not wait')
  // During the job the handles may be closed and the nodes forgotten.
  for (const { id, fh } of [from, to]) {
    ops.release(fh)
    ops.forget(id, 1)
  }
  t.ok(u.nodes.get(to.id), 'it is kept for the job')
  t.same(over, [], 'and they wait')
  t.equal(await resultOf(pending, () => ops.runCallbacks()), data.length - 1)
  t.same(over, [0, 0], 'the count is no answer of theirs')
  t.equal(u.nodes.get(to.id), undefined)
  const got = fs.readFileSync(`${directories.upper}/to`)
  t.equal(got.length, data.length + 2)
  t.ok(got.subarray(3).equals(data.subarray(1)), 'the bytes')
  t.equal(got.latin1Slice(0, 3), 'to ')
  t.equal(fs.statSync(`${directories.upper}/to`).mtimeMs, before, 'the kernel keeps the time')
})

t.test('a copy that no request waits for', { skip: skipUnions }, async t => {
  const directories = unionDirectories(t, { lower: [{}] })
  fs.writeFileSync(`${directories.upper}/from`, '')
  fs.truncateSync(`${directories.upper}/from`, 512 * MIB)
  fs.writeFileSync(`${directories.upper}/to`, '')
  const { ops, find } = stateOf(t, optionsOf(directories, { volatile: true }))
  const open = (name: string, flags: number): number => {
    const file = new Opened()
    t.equal(ops.open(find(name).id, flags, false, file), 0)
    return file.fh
  }
  const from = open('from', O.RDONLY)
  const to = open('to', O.WRONLY)
  const pending = pendingOf(() => ops.copyFileRange(from, 0, to, 0, 512 * MIB, 0))
  pending.job.cancel?.()
  const result = await resultOf(pending, () => ops.runCallbacks())
  t.ok(result > 0 && result < 512 * MIB, `it ends early: ${result}`)
})

t.test('much space', { skip: skipUnions }, async t => {
  const directories = unionDirectories(t, { lower: [{}] })
  fs.writeFileSync(`${directories.upper}/f`, '')
  const { ops, find } = stateOf(t, optionsOf(directories, { volatile: true }))
  const file = new Opened()
  t.equal(ops.open(find('f').id, O.RDWR, false, file), 0)
  const pending = pendingOf(() => ops.fallocate(file.fh, 0, 0, 20 * MIB))
  t.equal(await resultOf(pending, () => ops.runCallbacks()), 0)
  t.equal(fs.statSync(`${directories.upper}/f`).size, 20 * MIB)
  const refused = pendingOf(() => ops.fallocate(file.fh, 0, -1, 20 * MIB))
  t.equal(await resultOf(refused, () => ops.runCallbacks()), -E.EINVAL)
})

t.test('a job thread frees the space of a large file', { skip: skipUnions }, async t => {
  const directories = unionDirectories(t, { lower: [{}] })
  for (const name of ['early', 'late', 'replaced']) {
    fs.writeFileSync(`${directories.upper}/${name}`, '')
    const fd = fs.openSync(`${directories.upper}/${name}`, 'r+')
    if (name !== 'late') t.equal(sys.fallocate(fd, 0, 0, 80 * MIB), 0)
    fs.closeSync(fd)
  }
  fs.writeFileSync(`${directories.upper}/small`, '')
  const { u, ops } = stateOf(t, optionsOf(directories, { volatile: true }))
  const lookup = (name: string): number => {
    const out = new Entry()
    t.equal(ops.lookup(1, name, out), 0)
    return out.nodeId
  }
  const tasks = async (): Promise<number> => {
    const { pending } = u.pool
    while (u.pool.pending > 0) {
      await new Promise(next => setTimeout(next, 1))
      ops.runCallbacks()
    }
    return pending
  }
  const early = lookup('early')
  t.equal(ops.unlink(1, 'early'), 0)
  t.equal(await tasks(), 0)
  ops.forget(early, 1)
  t.equal(await tasks(), 1, 'large when it was removed')
  const late = lookup('late')
  const file = new Opened()
  t.equal(ops.open(late, O.RDWR, false, file), 0)
  t.equal(ops.unlink(1, 'late'), 0)
  t.equal(sys.fallocate(file.fd, 0, 0, 80 * MIB), 0)
  ops.release(file.fh)
  ops.forget(late, 1)
  t.equal(await tasks(), 1, 'large when it was closed')
  const replaced = lookup('replaced')
  const small = lookup('small')
  t.equal(ops.rename(1, 'small', 1, 'replaced', 0), 0)
  ops.forget(replaced, 1)
  t.equal(await tasks(), 1, 'replaced')
  t.equal(ops.unlink(1, 'replaced'), 0)
  ops.forget(small, 1)
  t.equal(await tasks(), 0, 'a small one is closed at once')
})
