import * as fs from 'node:fs'
import t from 'tap'
import { Attr, ROOT_ID } from '../../../../src/overlay/ops.js'
import { E } from '../../../../src/sys/errno.js'
import { file, unionDirectories } from '../../../helpers/layers.js'
import { NOTHING_OPEN } from '../../../helpers/parity.js'
import { open, optionsOf } from '../../../helpers/union.js'
import * as sys from '../../../helpers/syscalls.js'

const { O } = sys

for (const writeback of [false, true]) {
  const kind = writeback ? 'with write-back' : 'without write-back'

  t.test(`a file that was changed beneath is another node, ${kind}`, async t => {
    for (const layer of ['lower', 'upper'] as const) {
      const where = unionDirectories(t, { lower: [{ a: file('1'), b: file('1') }], upper: {} })
      const real = layer === 'lower' ? where.lower[0] : where.upper
      const union = open(t, optionsOf(where), { writeback })
      for (const name of ['a', 'b']) fs.writeFileSync(`${real}/${name}`, 'content')
      const [a, b] = [union.id('a'), union.id('b')]
      t.equal(union.id('a'), a, 'the same while nothing changes')
      fs.writeFileSync(`${real}/a`, 'something else')
      fs.writeFileSync(`${real}/new`, 'content')
      fs.renameSync(`${real}/new`, `${real}/b`)
      const attr = new Attr()
      t.equal(union.ops.getattr(a, 0, attr), 0)
      t.equal(attr.size, 14)
      t.equal(await union.open('a', O.RDONLY).then(o => typeof o), 'object', 'by its name')
      t.not(union.id('a'), a)
      t.not(union.id('b'), b)
      t.equal(union.ops.getattr(a, 0, attr), -E.ESTALE, 'the name is to be looked up again')
      union.forgetAll()
    }
  })

  t.test(`what the union changes itself stays the same node, ${kind}`, async t => {
    const where = unionDirectories(t, {
      lower: [Object.fromEntries(Array.from('abcdefgh', name => [name, file('content')]))],
      upper: {},
    })
    const union = open(t, optionsOf(where), { writeback })
    const changes: [string, () => Promise<number>][] = [
      ['a', () => union.chmod('a', 0o600)],
      ['b', () => union.truncate('b', 3)],
      ['c', () => union.write('c', 'more', 10)],
      ['d', () => union.utimens('d', { sec: 1, nsec: 2 }, { sec: 3, nsec: 4 })],
      ['e', () => union.link('e', 'e2')],
      ['f', () => union.rename('f', 'f2').then(() => union.rename('f2', 'f'))],
      ['g', () => union.setxattr('g', 'user.x', '1')],
      ['h', () => union.chown('h', 1, 2)],
    ]
    for (const [name, change] of changes) {
      const before = union.id(name)
      for (let again = 0; again < 2; again++) {
        t.ok((await change()) >= (name === 'e' && again > 0 ? -E.EEXIST : 0), name)
        t.equal(union.id(name), before, `${name}, change ${again}`)
      }
    }
    union.forgetAll()
    t.strictSame(union.ops.counts(), NOTHING_OPEN)
  })
}

t.test('all names of a lower file get the new node at once', async t => {
  const where = unionDirectories(t, { lower: [{ a: file('1') }], upper: {} })
  const [lower] = where.lower
  fs.linkSync(`${lower}/a`, `${lower}/b`)
  const union = open(t, optionsOf(where))
  t.equal(union.id('a'), union.id('b'))
  const before = union.id('a')
  fs.writeFileSync(`${lower}/a`, 'changed')
  const now = union.id('b')
  t.not(now, before)
  t.equal(union.id('a'), now)
  t.equal(await union.chmod('a', 0o600), 0)
  t.equal(fs.readFileSync(`${where.upper}/b`, 'utf8'), 'changed', 'both are copied up')
  union.forgetAll()
  t.strictSame(union.ops.counts(), NOTHING_OPEN)
  t.ok(union.id('a') > ROOT_ID)
  union.forgetAll()
})
