import * as fs from 'node:fs'

import t, { type Test } from 'tap'

import { HandleTable } from '../../../src/overlay/handles.js'
import { Node } from '../../../src/overlay/node.js'
import { fdPathOpen, moveHandles } from '../../../src/overlay/reopen.js'
import type { Union } from '../../../src/overlay/union.js'
import { E } from '../../../src/sys/errno.js'
import { scratch } from '../../helpers/layers.js'
import * as sys from '../../helpers/syscalls.js'
import { openFds } from '../../helpers/union.js'

const { O } = sys

const kept = (t: Test, fd: number): number => {
  if (fd < 0) throw new Error(`errno ${-fd}`)
  t.teardown(() => sys.close(fd))
  return fd
}

t.test('what a descriptor refers to is opened again, whatever has become of its name', async t => {
  const top = scratch(t)
  fs.writeFileSync(`${top}/f`, 'text')
  const path = kept(t, sys.open(`${top}/f`, O.PATH))
  fs.rmSync(`${top}/f`)
  fs.writeFileSync(`${top}/f`, 'another')
  for (const flags of [O.RDONLY, O.RDWR, O.RDONLY | O.NOATIME, O.RDONLY | O.NOFOLLOW]) {
    const fd = kept(t, fdPathOpen(path, flags))
    t.equal(fs.readFileSync(fd, 'latin1'), 'text')
  }
  const folder = kept(t, sys.open(top, O.PATH))
  kept(t, fdPathOpen(folder, O.RDONLY | O.DIRECTORY))
  t.equal(fdPathOpen(folder, O.WRONLY), -E.EISDIR)
  t.equal(fdPathOpen(path, O.RDONLY | O.DIRECTORY), -E.ENOTDIR)
  t.equal(fdPathOpen(1_000_000, O.RDONLY), -E.ENOENT)
})

t.test('the access time may be touched where it is not one’s own file', async t => {
  if (process.geteuid?.() !== 0) return t.comment('needs root')
  const top = scratch(t)
  fs.chmodSync(top, 0o755)
  fs.writeFileSync(`${top}/f`, 'text')
  const path = kept(t, sys.open(`${top}/f`, O.PATH))
  const fd = sys.withCredentials({ uid: 1234, gid: 1234, groups: [] }, () => {
    t.equal(sys.open(`${top}/f`, O.RDONLY | O.NOATIME), -E.EPERM)
    return fdPathOpen(path, O.RDONLY | O.NOATIME)
  })
  t.equal(fs.readFileSync(kept(t, fd), 'latin1'), 'text')
})

t.test('open handles read from the new file, or go on with the old one', async t => {
  const top = scratch(t)
  fs.writeFileSync(`${top}/lower`, 'lower')
  fs.writeFileSync(`${top}/upper`, 'upper')
  const before = openFds()
  const folder = sys.open(top, O.PATH)
  const anchor = sys.open(`${top}/upper`, O.PATH)
  const words: string[] = []
  const u = {
    log: { warn: (_: unknown, text: string) => void words.push(text) },
  } as unknown as Union
  const table = new HandleTable()
  const node = new Node(2, sys.S.IFREG, 1)
  moveHandles(u, node, { fd: folder, name: 'upper' })
  const two = [0, 1].map(() => table.add(node, sys.open(`${top}/lower`, O.RDONLY), false))
  const texts = (): string[] =>
    two.map(({ fd }) => {
      const buf = Buffer.alloc(10)
      return buf.latin1Slice(0, sys.pread(fd, buf, 0))
    })
  moveHandles(u, node, { fd: folder, name: 'none' })
  t.strictSame(texts(), ['lower', 'lower'])
  t.equal(words.length, 2)
  moveHandles(u, node, { fd: folder, name: 'upper' })
  t.strictSame(texts(), ['upper', 'upper'])
  moveHandles(u, node, { fd: anchor, name: '' })
  t.strictSame(texts(), ['upper', 'upper'])
  t.equal(words.length, 2)
  table.closeAll()
  sys.close(anchor)
  sys.close(folder)
  t.strictSame(openFds(), before, 'those that were replaced are closed')
})
