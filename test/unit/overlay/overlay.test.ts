import * as fs from 'node:fs'

import t from 'tap'

import type { IoPool } from '../../../src/overlay/jobs/pool.js'
import type { IoTask } from '../../../src/overlay/jobs/task.js'
import { Attr, Entry, Opened, ROOT_ID, SetAttr, StatFsOut } from '../../../src/overlay/ops.js'
import { Overlay } from '../../../src/overlay/overlay.js'
import { E } from '../../../src/sys/errno.js'
import { fifo, symlink, unionDirectories } from '../../helpers/layers.js'
import * as sys from '../../helpers/syscalls.js'
import { leakedFds, openFds, optionsOf } from '../../helpers/union.js'
import { pendingOf, skipUnions, stateOf } from './support.js'

const LOWER = { f: 'text', 'd/g': 'g', p: fifo(), s: symlink('\xff') }
const CALLER = { uid: 0, gid: 0, pid: 1, umask: 0 }
const prepared = (t: Parameters<typeof stateOf>[0]) => {
  const where = unionDirectories(t, { lower: [LOWER] })
  const state = stateOf(t, optionsOf(where, { volatile: true }))
  const lookup = (name: string, parent = ROOT_ID): number => {
    const out = new Entry()
    const result = state.ops.lookup(parent, name, out)
    return result < 0 ? result : out.nodeId
  }
  return { where, ...state, lookup }
}

t.test('an unknown node is stale', { skip: skipUnions }, async t => {
  const { ops, lookup } = prepared(t)
  const [entry, attr, opened, buf] = [new Entry(), new Attr(), new Opened(), Buffer.alloc(10)]
  const none = { add: () => false, room: () => false }
  const file = lookup('f')
  for (const node of [999, 0, file]) {
    const inDirectory = [
      ops.lookup(node, 'x', entry),
      ops.mknod(CALLER, node, 'x', sys.S.IFREG, 0, 0, entry),
      ops.mkdir(CALLER, node, 'x', 0, entry),
      ops.symlink(CALLER, node, 'x', 'y', entry),
      ops.create(CALLER, node, 'x', 0, 0, entry, opened),
      ops.tmpfile(CALLER, node, 0, 0, entry, opened),
      ops.link(file, node, 'x', entry),
      ops.unlink(node, 'x'),
      ops.rmdir(node, 'x'),
      ops.rename(node, 'x', ROOT_ID, 'y', 0),
      ops.rename(ROOT_ID, 'f', node, 'y', 0),
    ]
    t.strictSame(new Set(inDirectory), new Set([-E.ESTALE]), `as a directory: ${node}`)
    t.strictSame(
      [ops.readdir(node, 0, none), ops.readdirplus(node, 0, none), ops.fsyncdir(node, true)],
      [-E.ENOTDIR, -E.ENOTDIR, -E.ESTALE],
    )
    if (node === file) continue
    const any = [
      ops.getattr(node, 0, attr),
      ops.setattr(node, new SetAttr(), attr),
      ops.readlink(node, buf, 0),
      ops.link(node, ROOT_ID, 'x', entry),
      ops.open(node, 0, false, opened),
      ops.getxattr(node, 'user.x', buf, 0, 10),
      ops.listxattr(node, buf, 0, 10, true),
      ops.setxattr(node, 'user.x', buf, 0, false),
      ops.removexattr(node, 'user.x'),
      ops.getFlags(node),
      ops.setFlags(node, 0),
    ]
    t.strictSame(new Set(any), new Set([-E.ESTALE]))
    ops.forget(node, 5)
  }
})

t.test('an unknown handle is bad', { skip: skipUnions }, async t => {
  const { ops, lookup } = prepared(t)
  const buf = Buffer.alloc(10)
  const reader = new Opened()
  t.equal(ops.open(lookup('f'), sys.O.RDONLY, false, reader), 0)
  for (const fh of [999, 0])
    t.strictSame(
      new Set([
        ops.read(fh, buf, 0, 1, 0),
        ops.write(fh, buf, 0, 1, 0, false, false),
        ops.fsync(fh, false),
        ops.fallocate(fh, 0, 0, 1),
        ops.lseek(fh, 0, sys.SEEK.DATA),
        ops.copyFileRange(fh, 0, reader.fh, 0, 1, 0),
        ops.copyFileRange(reader.fh, 0, fh, 0, 1, 0),
      ]),
      new Set([-E.EBADF]),
    )
  t.equal(ops.write(reader.fh, buf, 0, 1, 0, false, false), -E.EBADF, 'open for reading only')
  ops.release(999)
  t.match(ops.counts(), { files: 1 })
})

t.test('types and names', { skip: skipUnions }, async t => {
  const { ops, lookup } = prepared(t)
  const [opened, buf] = [new Opened(), Buffer.alloc(10, '.')]
  t.equal(lookup('n'.repeat(256)), -E.ENAMETOOLONG)
  t.equal(lookup('n'.repeat(255)), 0, 'a name that is free')
  t.equal(ops.open(ROOT_ID, 0, false, opened), -E.EISDIR)
  t.equal(ops.open(lookup('p'), 0, false, opened), -E.ENXIO)
  t.equal(ops.readlink(lookup('f'), buf, 0), -E.EINVAL)
  t.equal(ops.readlink(lookup('s'), buf, 3), 1)
  t.equal(buf.latin1Slice(), '...\xff......')
  const st = new StatFsOut()
  t.equal(ops.statfs(st), 0)
  t.equal(st.namelen, 255)
  t.ok(st.bavail <= st.bfree && st.bfree <= st.blocks)
})

t.test('a node lives as long as it is needed', { skip: skipUnions }, async t => {
  const { ops, lookup } = prepared(t)
  const directory = lookup('d')
  const file = lookup('g', directory)
  t.equal(lookup('g', directory), file)
  const opened = new Opened()
  t.equal(ops.open(file, sys.O.RDONLY, false, opened), 0)
  ops.forget(directory, 1)
  ops.forget(file, 2)
  t.strictSame(ops.counts(), { nodes: 3, files: 1, jobs: 0 }, 'it is open')
  ops.release(opened.fh)
  t.strictSame(ops.counts(), { nodes: 1, files: 0, jobs: 0 })
  ops.forget(ROOT_ID, 1000)
  t.ok(lookup('f') > 0, 'the root always')
})

t.test('a closed union leaves nothing open', { skip: skipUnions }, async t => {
  const before = openFds()
  const { ops, lookup, close, where } = prepared(t)
  const opened = new Opened()
  const file = lookup('f')
  t.equal(ops.open(file, sys.O.RDWR, false, opened), 0)
  t.equal(ops.unlink(ROOT_ID, 'f'), 0)
  t.equal(ops.syncfs(), 0, 'syncing is off')
  close()
  t.strictSame(await leakedFds(before), [])
  t.ok(fs.existsSync(where.upper))
})

const files = (): string[] => openFds().filter(target => target !== 'anon_inode:[eventfd]')

t.test('the layers are closed before threads are ended', { skip: skipUnions }, async t => {
  const before = files()
  const { ops, lookup, close, u } = prepared(t)
  const opened = new Opened()
  const file = lookup('f')
  t.ok(lookup('d') > 0)
  t.equal(ops.open(file, sys.O.RDWR, false, opened), 0)
  t.equal(ops.unlink(ROOT_ID, 'f'), 0)
  let left: string[] | undefined
  const end = u.pool.close.bind(u.pool)
  u.pool.close = () => {
    left = files()
    end()
  }
  t.not(files().length, before.length)
  close()
  t.strictSame(left, before)
})

t.test('a sync waits for the disk, and leaves nothing open', async t => {
  if (skipUnions !== false) return t.comment(skipUnions)
  const where = unionDirectories(t, { lower: [LOWER], upper: { 'u/': '' } })
  const { u } = stateOf(t, optionsOf(where))
  const asked: { task: IoTask; ends: (() => unknown)[] }[] = []
  const submit: IoPool['submit'] = (task, finish, abandon) => {
    asked.push({ task, ends: [() => finish?.(-E.EIO), () => abandon?.()] })
    return { onDone: () => {} }
  }
  const ops = new Overlay({ ...u, syncIsFree: false, pool: { submit } as IoPool })
  t.ok(pendingOf(() => ops.syncfs()).answer)
  t.strictSame(asked.pop()?.task, { kind: 'syncfs', fd: u.upper!.fd })
  const before = openFds()
  for (const end of [0, 1]) {
    t.ok(pendingOf(() => ops.fsyncdir(ROOT_ID, true)).answer)
    const { task, ends } = asked.pop()!
    t.match(task, { kind: 'fsync', datasync: true })
    t.equal(fs.fsyncSync((task as { fd: number }).fd), undefined, 'not an O_PATH descriptor')
    t.equal(ends[end]?.(), end === 0 ? -E.EIO : undefined)
    t.strictSame(openFds(), before)
  }
})
