import * as fc from 'fast-check'
import t from 'tap'

import { Layer, RealDir } from '../../../../src/overlay/layer/layer.js'
import { Links } from '../../../../src/overlay/inode/links.js'
import { NodeTable } from '../../../../src/overlay/inode/nodes.js'
import { Node } from '../../../../src/overlay/inode/node.js'
import { Attr } from '../../../../src/overlay/ops.js'
import { fillAttr, shownNlink } from '../../../../src/overlay/inode/shown-attr.js'
import { Place } from '../../../../src/overlay/inode/place.js'
import { locate } from '../../../../src/overlay/inode/real-object.js'
import { shownIno } from '../../../../src/overlay/layer/context.js'
import type { Union } from '../../../../src/overlay/namei/context.js'
import { E } from '../../../../src/sys/errno.js'
import { Stat } from '../../../../src/sys/stat.js'
import * as sys from '../../../helpers/syscalls.js'

const layer = (index: number, fsIndex = 0): Layer =>
  new Layer({
    index,
    path: `/${index}`,
    fd: 10 + index,
    dev: fsIndex,
    fsIndex,
    uuid: Buffer.alloc(16),
    handles: true,
    isPrivate: false,
  })

/** In the form that src/sys returns: a number while it is a safe integer, else a bigint. */
const ino = fc
  .oneof(
    fc.bigInt({ min: 1n, max: 2n ** 44n - 1n }),
    fc.bigInt({ min: 1n, max: 2n ** 54n - 1n }),
    fc.constantFrom(1n, 2n, 2n ** 44n, 2n ** 53n),
  )
  .map(n => (n <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(n) : n))

t.test('numbers of a union', async t => {
  t.test('two file systems never show one number for two small ones', async () => {
    const small = fc.integer({ min: 1, max: 2 ** 44 - 1 })
    const fsIndex = fc.integer({ min: 0, max: 500 })
    fc.assert(
      fc.property(fsIndex, small, fsIndex, small, (fsA, a, fsB, b) => {
        const [x, y] = [
          shownIno({ fsCount: 501 }, layer(1, fsA), a),
          shownIno({ fsCount: 501 }, layer(1, fsB), b),
        ]
        return (x === y) === (fsA === fsB && a === b) && Number.isSafeInteger(x)
      }),
    )
  })

  t.test('any number fits in 64 bits, and is a number of its own in its file system', async () => {
    fc.assert(
      fc.property(ino, ino, fc.integer({ min: 0, max: 500 }), (a, b, fsIndex) => {
        const [x, y] = [a, b].map(n => shownIno({ fsCount: 501 }, layer(1, fsIndex), n))
        const fits = [x, y].every(n => BigInt.asUintN(64, BigInt(n!)) === BigInt(n!))
        return fits && (x === y) === (a === b)
      }),
    )
  })

  t.test('one file system shows them as they are', async t => {
    t.equal(shownIno({ fsCount: 1 }, layer(1, 3), 5), 5)
    t.equal(shownIno({ fsCount: 3 }, layer(1, 0), 2n ** 63n), 2n ** 63n)
  })
})

t.test('the location of a real object', async t => {
  const upper = layer(0)
  const lower = layer(1)
  const gone = new RealDir(lower, null, 'gone')
  const u = {
    fds: { get: (dir: RealDir) => (dir === gone ? -E.EIO : dir.layer.fd) },
    workdir: { indexFd: 99 },
  } as unknown as Union
  const nodes = new NodeTable(1, [upper.root, lower.root])
  const at = (node: Node): unknown => {
    const place = new Place()
    const result = locate(u, node, place)
    return result < 0 ? result : [place.fd, place.name]
  }
  const file = (): Node => nodes.create(sys.S.IFREG, 5)

  t.strictSame(at(nodes.root), [10, ''])
  t.equal(at(nodes.create(sys.S.IFDIR, 7, [])), -E.ENOENT, 'a removed directory')
  const low = file()
  t.equal(at(low), -E.ENOENT)
  low.lowerDir = lower.root
  low.lowerName = 'real\xff'
  t.strictSame(at(low), [11, 'real\xff'])
  low.lowerDir = gone
  t.equal(at(low), -E.EIO, 'the error of the directory')
  const up = file()
  up.upper = true
  t.equal(at(up), -E.ENOENT, 'without a name')
  nodes.addName(up, nodes.root, 'name', true)
  t.strictSame(at(up), [10, 'name'])
  up.links = new Links()
  up.links.add(nodes.root, 'lower', false)
  up.links.add(nodes.root, 'second', true)
  t.strictSame(at(up), [10, 'second'], 'of several names one that the upper layer has')
  up.links.remove(nodes.root, 'second')
  t.equal(at(up), -E.ENOENT)
  up.indexKey = '00fb'
  t.strictSame(at(up), [99, '00fb'])
  up.orphanFd = 42
  t.strictSame(at(up), [42, ''], 'the orphan fd comes first')
})

const linksOf = (change: object, real: number): number =>
  shownNlink(
    { isDir: false, dirs: [], unlinked: false, nlinkAdjust: 0, ...change } as never,
    {
      nlink: real,
    } as Stat,
  )

t.test('the link count of a union', async t => {
  t.equal(linksOf({}, 3), 3)
  t.equal(linksOf({ nlinkAdjust: -2 }, 3), 1)
  t.equal(linksOf({ nlinkAdjust: -5 }, 3), 0, 'never less than none')
  t.equal(linksOf({ isDir: true, dirs: [1] }, 7), 7)
  t.equal(linksOf({ isDir: true, dirs: [1, 2] }, 7), 1, 'a merged directory')
  t.equal(linksOf({ isDir: true, dirs: [1, 2], unlinked: true }, 7), 0)
})

t.test('attributes are the real ones, but number and link count', async t => {
  const st = new Stat()
  for (let i = 0; i < st.buffer.length; i++) st.buffer[i] = (i * 7 + 1) & 0x7f
  const out = new Attr()
  const node = new Node(2, sys.S.IFREG, 2n ** 63n)
  node.nlinkAdjust = 1
  fillAttr({ idmap: null }, node, st, out)
  t.strictSame([out.ino, out.nlink], [2n ** 63n, st.nlink + 1])
  const own = new Set([4, 8, 9]) // nlink, ino
  const rest = (words: Uint32Array): number[] => [...words].filter((_, i) => !own.has(i))
  t.strictSame(rest(out.words), rest(st.words))
})
