/**
 * Completing metadata-only copies while other operations run. Finding their data is tested in
 * lookup.test.ts.
 */

import { readFileSync, renameSync, statSync } from 'node:fs'
import t from 'tap'

import { findData } from '../../../../src/overlay/copy-up/metacopy.js'
import type { Node } from '../../../../src/overlay/inode/node.js'
import { Entry, Opened, Pending } from '../../../../src/overlay/ops.js'
import { E } from '../../../../src/sys/errno.js'
import {
  file,
  unionDirectories,
  type Layer,
  type UnionDirectories,
} from '../../../helpers/layers.js'
import { NOTHING_OPEN, skipParity, withKernel } from '../../../helpers/parity.js'
import * as sys from '../../../helpers/syscalls.js'
import { open, optionsOf } from '../../../helpers/union.js'
import { skipUnions, stateOf } from '../support.js'

const SIZE = 3 << 20
const DATA = 'd'.repeat(SIZE)
const TIME = { sec: 1_234_567_890, nsec: 123_456_789 }

/** A union whose upper layer has a metadata-only copy of a large file, made by the kernel. */
const prepared = async (t: Parameters<typeof unionDirectories>[0]): Promise<UnionDirectories> => {
  const where = unionDirectories(t, { lower: [{ big: file(DATA), other: 'other' }] })
  await withKernel(where, 'metacopy=on', fs => {
    t.equal(fs.chmod('big', 0o640), 0)
    t.equal(fs.setxattr('big', 'user.x', 'kept'), 0)
    t.equal(fs.utimens('big', TIME, TIME), 0)
  })
  const mark = sys.getxattr(
    { path: `${where.upper}/big`, follow: false },
    'trusted.overlay.metacopy',
  )
  t.not(typeof mark, 'number', 'the kernel has copied no data')
  return where
}

const jobOf = (call: () => number): Pending => {
  try {
    throw new Error(`answered at once: ${call()}`)
  } catch (error) {
    if (error instanceof Pending) return error
    throw error
  }
}

t.test(
  'a large one is completed while other requests are served',
  { skip: skipParity },
  async t => {
    const where = await prepared(t)
    const union = open(t, optionsOf(where))
    const opened = new Opened()
    const node = union.id('big')
    const call = (): number => union.ops.open(node, sys.O.RDWR, false, opened)
    const pending = jobOf(call)
    t.equal(jobOf(call).job, pending.job, 'a second one waits for the same job')
    t.equal(union.ops.counts().jobs, 1)
    t.equal(await union.read('big'), DATA, 'until it has all data, the lower file is read')
    t.equal(await union.write('other', 'OT'), 2)
    t.equal(await union.read('other'), 'OTher')
    t.equal(await union.done(pending.job), 0)
    const stat = await union.stat('big')
    if (typeof stat === 'number') throw new Error(`stat: ${stat}`)
    t.equal(stat.size, SIZE)
    t.strictSame(stat.mtime, BigInt(TIME.sec) * 1_000_000_000n + BigInt(TIME.nsec), 'as it was')
    t.equal(call(), 0)
    t.equal(union.pwrite(opened.fh, 'X', 1), 1)
    union.ops.release(opened.fh)
    t.equal(await union.read('big'), `dX${DATA.slice(2)}`)
    t.equal(await union.getxattr('big', 'user.x'), 'kept')
    union.forgetAll()
    t.strictSame(union.ops.counts(), NOTHING_OPEN)
    union.close()
    await withKernel(where, 'metacopy=on', fs => {
      t.equal(fs.read('big'), `dX${DATA.slice(2)}`, 'the kernel sees a whole copy')
    })
  },
)

t.test('one that loses its name while it is open', { skip: skipParity }, async t => {
  const where = await prepared(t)
  const union = open(t, optionsOf(where))
  const opened = new Opened()
  const node = union.id('big')
  t.equal(union.ops.open(node, sys.O.RDONLY, false, opened), 0)
  t.equal(await union.unlink('big'), 0)
  const writer = new Opened()
  const call = (): number => union.ops.open(node, sys.O.RDWR, false, writer)
  t.equal(await union.run(call), 0)
  t.equal(union.pwrite(writer.fh, 'X', 1), 1)
  t.equal(union.readAll(opened.fh), `dX${DATA.slice(2)}`, 'through the older descriptor, too')
  union.ops.release(writer.fh)
  union.ops.release(opened.fh)
  union.forgetAll()
  t.strictSame(union.ops.counts(), NOTHING_OPEN)
  union.close()
})

t.test(
  'one in a lower layer that has blocks, as a copy of the layer may',
  { skip: skipParity },
  async t => {
    const filled = file('\0\0\0\0', { xattrs: { 'trusted.overlay.metacopy': '' } })
    const names = ['read', 'written', 'changed', 'removed', 'replaced', 'linked']
    const layer = (of: ReturnType<typeof file> | string): Layer =>
      Object.fromEntries(names.map(name => [`d/${name}`, of]))
    const where = unionDirectories(t, {
      lower: [{ ...layer(filled), 'd/lone': filled }, layer('data')],
    })
    t.ok(statSync(`${where.lower[0]}/d/read`).blocks > 0)
    t.equal(await withKernel(where, 'metacopy=on', fs => fs.read('d/read')), 'data')

    const union = open(t, optionsOf(where))
    for (const name of [...names, 'lone']) {
      const stat = await union.stat(`d/${name}`)
      t.match(stat, { size: 4 }, name)
    }
    t.equal(await union.read('d/read'), 'data')
    t.equal(await union.write('d/written', 'D'), 1)
    t.equal(await union.read('d/written'), 'Data')
    t.equal(await union.chmod('d/changed', 0o600), 0)
    t.equal(readFileSync(`${where.upper}/d/changed`, 'latin1'), 'data')
    t.equal(await union.link('d/linked', 'd/other'), 0)
    t.equal(await union.read('d/other'), 'data')

    const id = union.id('d/removed')
    t.equal(await union.unlink('d/removed'), 0)
    const opened = new Opened()
    t.equal(union.ops.open(id, sys.O.RDONLY, false, opened), 0, 'by a path descriptor')
    t.equal(union.readAll(opened.fh), 'data')
    union.ops.release(opened.fh)

    t.equal(await union.read('d/lone'), -E.EIO)
    t.equal(await union.write('d/lone', 'D'), -E.EIO)
  },
)

const copy = (redirect: string) =>
  file('', {
    xattrs: { 'trusted.overlay.metacopy': '', 'trusted.overlay.redirect': redirect },
  })

t.test('xattrs of another file with the name are ignored', { skip: skipUnions }, async t => {
  const where = unionDirectories(t, {
    upper: { one: copy('/a'), other: copy('/b') },
    lower: [
      { a: 'a', b: 'b', two: copy('/a') },
      { a: 'a', b: 'b' },
    ],
  })
  const { u, find } = stateOf(t, optionsOf(where))
  const { root } = u.nodes
  const again = (node: ReturnType<typeof find>, name: string): number =>
    findData(u, node, root, name, {
      dir: (node.lowerDir ?? root.upperDir)!,
      name,
      real: node.real,
      birth: node.birth,
    })
  const [one, two] = [find('one'), find('two')]
  t.equal(again(one, 'one'), 0)
  t.equal(one.data?.name, 'a')
  renameSync(`${where.upper}/other`, `${where.upper}/one`)
  t.equal(again(one, 'one'), -E.ESTALE)
  t.equal(one.data?.name, 'a')
  t.equal(again(two, 'two'), 0)
  renameSync(`${where.lower[0]}/b`, `${where.lower[0]}/two`)
  t.equal(again(two, 'two'), -E.ESTALE)
  t.equal(again(two, 'none'), -E.ENOENT)
})

t.test('the data is that of the file that was found', { skip: skipUnions }, async t => {
  const where = unionDirectories(t, {
    upper: { read: copy('/a'), written: copy('/a'), shown: copy('/a') },
    lower: [{ a: 'own', secret: file('s'.repeat(100_000)) }],
  })
  const { u, ops, find } = stateOf(t, optionsOf(where))
  const nodes = ['read', 'written', 'shown'].map(find)
  for (const node of nodes) node.lookups++
  const [read, written, shown] = nodes as [Node, Node, Node]
  const lower = where.lower[0]
  renameSync(`${lower}/a`, `${lower}/b`)
  renameSync(`${lower}/secret`, `${lower}/a`)
  const opened = new Opened()
  const drained = ops.open(read.id, sys.O.RDONLY, false, opened)
  t.equal(drained < 0 ? drained : ops.read(opened.fh, Buffer.alloc(9), 0, 9, 0), -E.ESTALE)
  t.equal(ops.open(written.id, sys.O.WRONLY, false, opened), -E.ESTALE)
  t.equal(readFileSync(`${where.upper}/written`, 'latin1'), '')
  const out = new Entry()
  t.equal(ops.getattr(shown.id, -1, out.attr), 0)
  t.ok(out.attr.blocks < 100)
  renameSync(`${lower}/b`, `${lower}/a`)
  t.equal(ops.lookup(u.nodes.root.id, 'read', out), 0)
  t.equal(ops.open(out.nodeId, sys.O.RDONLY, false, opened), 0, 'looked up again')
  const room = Buffer.alloc(9)
  t.equal(room.latin1Slice(0, ops.read(opened.fh, room, 0, 9, 0)), 'own')
  ops.release(opened.fh)
})
