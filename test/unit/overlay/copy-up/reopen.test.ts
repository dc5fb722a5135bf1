import * as fs from 'node:fs'

import t from 'tap'

import { HandleTable } from '../../../../src/overlay/file/handles.js'
import { Node } from '../../../../src/overlay/inode/node.js'
import { reopenHandles } from '../../../../src/overlay/copy-up/reopen.js'
import type { Union } from '../../../../src/overlay/namei/context.js'
import { scratch } from '../../../helpers/layers.js'
import * as sys from '../../../helpers/syscalls.js'
import { openFds } from '../../../helpers/union.js'

const { O } = sys

t.test('open handles read from the new file, or keep the old one', async t => {
  const top = scratch(t)
  fs.writeFileSync(`${top}/lower`, 'lower')
  fs.writeFileSync(`${top}/upper`, 'upper')
  const before = openFds()
  const directory = sys.open(top, O.PATH)
  const anchor = sys.open(`${top}/upper`, O.PATH)
  const words: string[] = []
  const u = {
    log: { warn: (_: unknown, text: string) => void words.push(text) },
  } as unknown as Union
  const table = new HandleTable()
  const node = new Node(2, sys.S.IFREG, 1)
  reopenHandles(u, node, { fd: directory, name: 'upper' })
  const two = [0, 1].map(() => table.add(node, sys.open(`${top}/lower`, O.RDONLY), false))
  const texts = (): string[] =>
    two.map(({ fd }) => {
      const buf = Buffer.alloc(10)
      return buf.latin1Slice(0, sys.pread(fd, buf, 0))
    })
  reopenHandles(u, node, { fd: directory, name: 'none' })
  t.strictSame(texts(), ['lower', 'lower'])
  t.equal(words.length, 2)
  reopenHandles(u, node, { fd: directory, name: 'upper' })
  t.strictSame(texts(), ['upper', 'upper'])
  reopenHandles(u, node, { fd: anchor, name: '' })
  t.strictSame(texts(), ['upper', 'upper'])
  t.equal(words.length, 2)
  table.closeAll()
  sys.close(anchor)
  sys.close(directory)
  t.strictSame(openFds(), before, 'those that were replaced are closed')
})
