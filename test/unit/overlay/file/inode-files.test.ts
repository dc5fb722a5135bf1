import * as fs from 'node:fs'

import t from 'tap'

import type { FileHandle } from '../../../../src/overlay/inode/node.js'
import { Protect } from '../../../../src/overlay/inode/node.js'
import { ofNode, type Result } from '../../../../src/overlay/ops.js'
import { inodeFileCache, InodeFileTable } from '../../../../src/overlay/file/inode-files.js'
import { E } from '../../../../src/sys/errno.js'
import { unionDirectories } from '../../../helpers/layers.js'
import { openFds, optionsOf } from '../../../helpers/union.js'
import { skipUnions, stateOf } from '../support.js'

const handle = (got: FileHandle | Result): FileHandle => {
  if (typeof got === 'number') throw new Error(`errno ${-got}`)
  return got
}

t.test('an inode file for each node in use', { skip: skipUnions }, async t => {
  const where = unionDirectories(t, { lower: [{ f: 'f', g: 'g', h: 'h', 'd/x': 'x' }] })
  const { u, find } = stateOf(t, optionsOf(where, { volatile: true }))
  const table = new InodeFileTable(u, inodeFileCache(2))
  const [f, g, h] = [find('f'), find('g'), find('h')]
  const before = openFds().length
  const reader = handle(table.reading(ofNode(f.id)))
  t.equal(table.reading(ofNode(f.id)), reader, 'it stays')
  t.strictSame([reader.fh, reader.writable, f.handles], [0, false, [reader]])
  t.notOk(fs.existsSync(`${where.upper}/f`), 'reading copies nothing up')
  const writer = handle(table.writing(ofNode(f.id), true))
  t.ok(fs.existsSync(`${where.upper}/f`))
  t.equal(table.reading(ofNode(f.id)), writer, 'the writer reads, too')
  t.strictSame([table.size, f.handles], [1, [writer]])
  table.reading(ofNode(g.id))
  table.reading(ofNode(h.id))
  t.strictSame([table.size, f.handles], [2, null], 'the longest unused is closed')
  table.forgotten(g)
  t.strictSame([table.size, g.handles], [1, null])
  table.closeAll()
  t.ok(openFds().length <= before + 1, 'but for a directory of the upper layer')
  g.protect = Protect.APPEND
  t.equal(table.writing(ofNode(g.id), false), -E.EPERM)
  t.equal(handle(table.writing(ofNode(g.id), true)).writable, true, 'late pages are taken')
  t.equal(table.reading(ofNode(find('d').id)), -E.EBADF)
  t.equal(table.writing(ofNode(1 << 30), true), -E.ESTALE)
  table.closeAll()
})
