import * as fs from 'node:fs'

import t from 'tap'

import { copyUp } from '../../../../src/overlay/copy-up/copy-up.js'
import {
  ensureUpperName,
  linkNames,
  storeUpperNlink,
} from '../../../../src/overlay/copy-up/hard-links.js'
import { nlinkAdjust, setNlinkXattr } from '../../../../src/overlay/copy-up/nlink.js'
import { E } from '../../../../src/sys/errno.js'
import { link, unionDirectories, whiteout } from '../../../helpers/layers.js'
import * as sys from '../../../helpers/syscalls.js'
import { optionsOf } from '../../../helpers/union.js'
import { skipUnions, stateOf } from '../support.js'

const LOWER = { a: 'text', b: link('a'), 'd/e/c\xff': link('a') }
const inodes = (upper: string, ...names: string[]): number =>
  new Set(names.map(name => (sys.lstat(sys.AT_FDCWD, `${upper}/${name}`) as sys.Stat).ino)).size

t.test('known names are linked, others when they are looked up', async t => {
  if (skipUnions !== false) return t.comment(skipUnions)
  for (const index of [true, false]) {
    const where = unionDirectories(t, { lower: [LOWER] })
    const { u, find, complaints } = stateOf(t, optionsOf(where, { index, volatile: true }))
    const node = find('a')
    t.equal(find('d/e/c\xff'), node, 'one node')
    t.equal(copyUp(u, node), 0)
    t.equal(inodes(where.upper, 'a', 'd/e/c\xff'), 1)
    t.notOk(fs.existsSync(`${where.upper}/b`))
    if (index) {
      t.equal(find('b'), node)
      t.equal(ensureUpperName(u, node, u.nodes.root, 'b'), 0)
      t.equal(inodes(where.upper, 'a', 'b', 'd/e/c\xff'), 1)
      t.equal(ensureUpperName(u, node, u.nodes.root, 'b'), 0, 'nothing is left to do')
    }
    const real = sys.lstat(sys.AT_FDCWD, `${where.upper}/a`) as sys.Stat
    const links = index ? 3 : 2
    t.equal(real.nlink + node.nlinkAdjust, links, 'without an index the copy is a file of its own')
    t.equal(find('b') === node, index)
    t.strictSame(complaints, [])
  }
})

t.test('a name that cannot be linked keeps the lower file, with a warning', async t => {
  if (skipUnions !== false) return t.comment(skipUnions)
  const where = unionDirectories(t, { lower: [LOWER] })
  const { u, find, complaints } = stateOf(t, optionsOf(where, { volatile: true }))
  const node = find('a')
  find('d/e/c\xff')
  t.equal(copyUp(u, node), 0)
  const { links, indexKey } = node
  const indexFd = u.workdir!.indexFd
  if (links === null || indexKey === null) throw new Error('no index')
  t.equal(linkNames(u, node, indexFd, indexKey), 0, 'none of none')
  for (const one of links) one.inUpper = false
  t.equal(linkNames(u, node, indexFd, indexKey), -E.EEXIST, 'none of several')
  t.equal(complaints.length, 2)
  fs.rmSync(`${where.upper}/a`)
  t.equal(linkNames(u, node, indexFd, indexKey), 1, 'one of two')
  t.equal(linkNames(u, node, indexFd, indexKey), -E.EEXIST, 'the other one')
})

t.test('the link count is written as the kernel reads it', async t => {
  if (skipUnions !== false) return t.comment(skipUnions)
  const where = unionDirectories(t, { lower: [LOWER], upper: { f: 'x', w: whiteout } })
  const { u, find } = stateOf(t, optionsOf(where, { volatile: true }))
  const upper = u.upper!.fd
  for (const n of [0, 1, -1, 65_000, -65_000]) {
    t.equal(setNlinkXattr(u, upper, 'f', 'U', n), 0)
    const text = String(u.xattrs.value(upper, 'f', 'nlink'))
    t.match(text, /^U[+-]\d+$/)
    t.equal(nlinkAdjust(text, 5, null), n)
  }
  t.equal(setNlinkXattr(u, upper, 'none', 'U', 1), -E.ENOENT)
  t.equal(storeUpperNlink(u, find('f')), 0, 'nothing for what is not in the index')
})
