import t from 'tap'

import type { Notifier } from '../../../../src/overlay/ops.js'
import { Entry, Opened } from '../../../../src/overlay/ops.js'
import { E } from '../../../../src/sys/errno.js'
import { unionDirectories } from '../../../helpers/layers.js'
import { optionsOf } from '../../../helpers/union.js'
import { skipUnions, stateOf } from '../support.js'

const CALLER = { uid: 0, gid: 0, pid: 0, umask: 0 }
const FILE = 0o100644

t.test('the kernel is asked to forget unused nodes', { skip: skipUnions }, async t => {
  const names = Object.fromEntries(Array.from({ length: 40 }, (_, i) => [`d/f${i}`, 'text']))
  const where = unionDirectories(t, { lower: [{ ...names, 'e/g': 'g' }] })
  const { u, ops } = stateOf(t, optionsOf(where, { volatile: true }))
  const asked: number[] = []
  const notifier: Notifier = {
    attrChanged: () => {},
    dropPages: () => null,
    forgetNodes: nodes => (asked.push(...nodes), null),
  }
  Object.assign(u, { notifier })
  const out = new Entry()
  const id = (parent: number, name: string): number => {
    t.equal(ops.lookup(parent, name, out), 0)
    return out.nodeId
  }
  const d = id(1, 'd')
  const e = id(1, 'e')
  const files = Array.from({ length: 40 }, (_, i) => id(d, `f${i}`))
  const opened = new Opened()
  t.equal(ops.open(files[0]!, 0, false, opened), 0)
  ops.forgetUnused()
  t.strictSame(
    asked,
    [e, ...files.slice(1, 21)],
    'the oldest half, no open file, no directory of others',
  )
  ops.release(opened.fh)
})

t.test('no new nodes are created', { skip: skipUnions }, async t => {
  const where = unionDirectories(t, { lower: [{ known: 'k', other: 'o' }] })
  const { u, ops } = stateOf(t, optionsOf(where, { volatile: true }))
  const out = new Entry()
  const opened = new Opened()
  t.equal(ops.lookup(1, 'known', out), 0)
  const { size } = u.nodes
  ops.full = true
  t.equal(ops.lookup(1, 'known', out), 0, 'one that is there')
  t.equal(ops.lookup(1, 'other', out), -E.ENOMEM)
  t.equal(ops.mkdir(CALLER, 1, 'new', 0o755, out), -E.ENOMEM)
  t.equal(ops.mknod(CALLER, 1, 'new', FILE, 0, 0, out), -E.ENOMEM)
  t.equal(ops.symlink(CALLER, 1, 'new', 'to', out), -E.ENOMEM)
  t.equal(ops.create(CALLER, 1, 'new', FILE, 0, out, opened), -E.ENOMEM)
  t.equal(ops.tmpfile(CALLER, 1, FILE, 2, out, opened), -E.ENOMEM)
  const listed: [string, boolean][] = []
  const sink = {
    room: () => true,
    add: (name: string, ...[, , , entry]: [unknown, number, number, Entry]) =>
      void listed.push([name, entry.nodeId > 0]),
  }
  t.equal(ops.readdirplus(1, 0, sink), 0)
  t.strictSame(Object.fromEntries(listed), { '.': false, '..': false, known: true, other: false })
  t.equal(u.nodes.size, size)
  ops.full = false
  t.equal(ops.lookup(1, 'other', out), 0)
})
