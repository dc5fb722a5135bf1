import * as fs from 'node:fs'
import * as fc from 'fast-check'
import t from 'tap'
import * as at from '../../../src/sys/at.js'
import * as k from '../../../src/sys/constants.js'
import { E } from '../../../src/sys/errno.js'
import { close, seekdir } from '../../../src/sys/io.js'
import { Stat } from '../../../src/sys/stat.js'
import { directory } from './support.js'

const NOT_UTF8 = 'caf\xe9-\xff\x01\n'
const NAME_255 = 'n'.repeat(255)

t.test('getdents64 and Dirents', async t => {
  const d = directory(t)
  fs.mkdirSync(d.at('many'))
  const dir = d.keep(at.openat(d.fd, 'many', k.O_RDONLY | k.O_DIRECTORY))
  const want = new Map<string, number>([
    ['.', k.DT_DIR],
    ['..', k.DT_DIR],
    ['.x', k.DT_REG],
    ['...', k.DT_REG],
  ])
  for (let i = 1; i < 40; i++) want.set('n'.repeat(i), k.DT_REG)
  want.set(NAME_255, k.DT_REG).set(NOT_UTF8, k.DT_REG)
  for (const [name, type] of want) {
    if (type === k.DT_REG) close(at.openat(dir, name, k.O_CREAT | k.O_WRONLY, 0o600))
  }
  want.set('dir', k.DT_DIR).set('link', k.DT_LNK).set('fifo', k.DT_FIFO).set('wh', k.DT_CHR)
  at.mkdirat(dir, 'dir', 0o700)
  at.symlinkat('x', dir, 'link')
  at.mknodat(dir, 'fifo', k.S_IFIFO, 0, 0)
  at.mknodat(dir, 'wh', k.S_IFCHR, 0, 0)

  // A small buffer with old bytes: several calls are needed, and the padding is not zero.
  const dirents = new at.Dirents(Buffer.alloc(600, 0xaa))
  const got = new Map<string, number>()
  const after = new Map<string, number | bigint>()
  const order: string[] = []
  const st = new Stat()
  let n
  while ((n = dirents.fill(dir)) > 0) {
    while (dirents.next()) {
      const { name } = dirents
      got.set(name, dirents.type)
      order.push(name)
      after.set(name, dirents.off)
      t.equal(dirents.name, name)
      t.equal(dirents.isDots, name === '.' || name === '..', name)
      if (at.statxat(dir, name, st) === 0 && name !== '..') t.equal(dirents.ino, st.ino)
    }
    t.notOk(dirents.next())
  }
  t.equal(n, 0)
  t.notOk(dirents.next())
  t.strictSame(got, want)

  // After each cookie, the same entries follow.
  for (const i of [0, 7, 30, order.length - 2]) {
    t.equal(seekdir(dir, after.get(order[i]!)!), 0)
    t.ok(dirents.fill(dir) > 0)
    t.ok(dirents.next())
    t.equal(dirents.name, order[i + 1])
  }
  t.equal(seekdir(dir, 0), 0)
  const buf = Buffer.alloc(32_768)
  const length = at.getdents64(dir, buf)
  t.ok(length > 0)
  const all = new at.Dirents(buf, length)
  let count = 0
  while (all.next()) count++
  t.equal(count, want.size)

  t.equal(at.getdents64(dir, Buffer.alloc(8)), 0)
  t.equal(seekdir(dir, 0), 0)
  t.equal(at.getdents64(dir, Buffer.alloc(8)), -E.EINVAL)
  t.equal(at.getdents64(-1, buf), -E.EBADF)
  t.equal(dirents.fill(-1), -E.EBADF)
  t.notOk(dirents.next())
})

/** struct linux_dirent64, with garbage behind the name. */
const record = (ino: bigint, off: bigint, type: number, name: string): Buffer => {
  const size = (19 + name.length + 8) & ~7
  const out = Buffer.alloc(size, 0xaa)
  out.writeBigUInt64LE(ino, 0)
  out.writeBigUInt64LE(off, 8)
  out.writeUInt16LE(size, 16)
  out[18] = type
  out.latin1Write(`${name}\0`, 19)
  return out
}

t.test('records with any names and numbers', async () => {
  const name = fc
    .uint8Array({ minLength: 1, maxLength: 255 })
    .map(bytes => Buffer.from(bytes).latin1Slice().replaceAll(/[\0/]/g, '_'))
  const number = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })
  const entry = fc.tuple(number, number, fc.nat({ max: 15 }), name)
  const dirents = new at.Dirents(Buffer.alloc(4096))
  fc.assert(
    fc.property(fc.array(entry, { maxLength: 10 }), entries => {
      const bytes = Buffer.concat(entries.map(parts => record(...parts)))
      bytes.copy(dirents.buffer)
      dirents.reset(bytes.length)
      for (const [ino, off, type, text] of entries) {
        if (!dirents.next()) return false
        const same = BigInt(dirents.ino) === ino && BigInt(dirents.off) === off
        const dots = text === '.' || text === '..'
        if (!same || dirents.type !== type || dirents.isDots !== dots) return false
        if (dirents.name !== text) return false
      }
      return !dirents.next()
    }),
  )
})
