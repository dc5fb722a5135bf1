import * as fs from 'node:fs'

import * as fc from 'fast-check'
import t from 'tap'

import { E } from '../../../../src/sys/errno.js'
import type { Layer } from '../../../../src/overlay/layer/layer.js'
import {
  canFindOrigins,
  encodeOrigin as encode,
  indexName,
  originIno,
} from '../../../../src/overlay/layer/origin.js'
import { dir, fifo, link, symlink, unionDirectories, whiteout } from '../../../helpers/layers.js'
import { withKernel, skipParity } from '../../../helpers/parity.js'
import * as sys from '../../../helpers/syscalls.js'
import { openFds, readOnlyOptions } from '../../../helpers/union.js'
import { skipUnions, stateOf } from '../support.js'

const LOWER = {
  'f\xff': 'f',
  h: link('f\xff'),
  'd/': dir(),
  s: symlink('nowhere'),
  p: fifo(),
  w: whiteout,
}
const encodeOrigin = (...args: Parameters<typeof encode>): Buffer | null => {
  const origin = encode(...args)
  if (typeof origin === 'number') throw new Error(`errno ${-origin}`)
  return origin
}

const prepared = (t: Parameters<typeof unionDirectories>[0]) => {
  const where = unionDirectories(t, { lower: [LOWER, { below: 'x' }] })
  const { u } = stateOf(t, readOnlyOptions(where))
  const [layer, below] = u.lowers as [Layer, Layer]
  return { where, u, layer, below }
}

t.test('an object of any type is found again by its origin', { skip: skipUnions }, async t => {
  const { u, layer, below } = prepared(t)
  if (!layer.handles) return t.comment('no file handles here')
  const before = openFds()
  for (const name of Object.keys(LOWER).map(key => key.replace('/', ''))) {
    const origin = encodeOrigin(layer, layer.fd, name)!
    t.match(originIno(origin, u.lowers), {
      ino: Number((sys.lstat(layer.fd, name) as sys.Stat).ino),
      layer,
    })
    t.strictSame([...origin.subarray(0, 4)], [0, 0xfb, origin.length, 0], 'struct ovl_fb')
    t.match(indexName(origin), /^00fb[0-9a-f]+$/)
    t.equal(indexName(origin).length, 2 * origin.length)
  }
  const origin = encodeOrigin(layer, layer.fd, 'h')
  t.same(origin, encodeOrigin(layer, layer.fd, 'f\xff'), 'all names of a file have one')
  t.not(originIno(encodeOrigin(below, below.fd, 'below')!, u.lowers), null)
  t.equal(encode(layer, layer.fd, 'none'), -E.ENOENT)
  t.strictSame(openFds(), before)
})

t.test('an invalid value leads to no origin', { skip: skipUnions }, async t => {
  const { u, where, layer } = prepared(t)
  if (!layer.handles) return t.comment('no file handles here')
  const before = openFds()
  const origin = encodeOrigin(layer, layer.fd, 'f\xff')!
  for (let length = 0; length < origin.length; length++)
    t.equal(originIno(origin.subarray(0, length), u.lowers), null, `cut off at ${length}`)
  t.equal(originIno(Buffer.concat([origin, Buffer.from([0])]), u.lowers), null, 'too long')
  const changed = (at: number, byte: number): unknown => {
    const other = Buffer.from(origin)
    other[at] = byte
    return originIno(other, u.lowers)
  }
  t.equal(changed(0, 1), null, 'a version to come')
  t.equal(changed(1, 0xfc), null)
  t.equal(changed(3, 1), null, 'of a machine with the other order of bytes')
  t.not(changed(3, 3), null, 'unless that makes no difference')
  t.equal(changed(5, (origin[5] ?? 0) ^ 1), null, 'another file system')
  const upper = encodeOrigin(layer, layer.fd, 'f\xff', true)
  t.equal(originIno(upper!, u.lowers), null, 'an object of the upper layer')
  t.equal(originIno(origin, []), null)
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 60 }), bytes => {
      const wrong = Buffer.concat([origin.subarray(0, 21), bytes])
      wrong[2] = wrong.length
      return wrong.equals(origin) || originIno(wrong, u.lowers) === null
    }),
    { numRuns: 50 },
  )
  fs.rmSync(`${where.lower[0]}/p`)
  t.strictSame(openFds(), before)
})

t.test('an object that is gone is not found', { skip: skipUnions }, async t => {
  const { u, where, layer } = prepared(t)
  if (!layer.handles) return t.comment('no file handles here')
  const origin = encodeOrigin(layer, layer.fd, 'p')!
  fs.rmSync(`${where.lower[0]}/p`)
  t.equal(originIno(origin, u.lowers), null)
})

t.test('a file system without handles has no origins', { skip: skipUnions }, async t => {
  const { u, layer, below } = prepared(t)
  if (!layer.handles) return t.comment('no file handles here')
  const before = openFds()
  t.equal(
    canFindOrigins(u.lowers),
    originIno(encodeOrigin(layer, layer.fd, '')!, u.lowers) !== null,
  )
  const without = Object.assign(Object.create(below), { handles: false }) as Layer
  t.notOk(canFindOrigins([layer, without]))
  t.strictSame(openFds(), before)
})

t.test('the kernel writes the same', { skip: skipParity }, async t => {
  const where = unionDirectories(t, { lower: [LOWER] })
  const mark = (path: string): Buffer | number =>
    sys.getxattr({ path: `${where.upper}/${path}`, follow: false }, 'trusted.overlay.origin')
  await withKernel(where, 'index=on,uuid=on', kernel => {
    for (const path of ['f\xff', 'd', 'p']) t.equal(kernel.chmod(path, 0o700), 0)
  })
  const { u } = stateOf(t, readOnlyOptions(where))
  const layer = u.lowers[0]!
  if (!layer.handles) return t.comment('no file handles here')
  for (const path of ['f\xff', 'd', 'p'])
    t.same(encodeOrigin(layer, layer.fd, path), mark(path), path)
  t.ok(fs.existsSync(`${where.work}/index/${indexName(encodeOrigin(layer, layer.fd, 'h')!)}`))
})
