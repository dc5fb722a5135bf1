import * as fs from 'node:fs'

import t from 'tap'

import { listReal, openRead, removeTree } from '../../../src/sys/real-dir.js'
import { E } from '../../../src/sys/errno.js'
import { build, dir, fifo, PAST, scratch, symlink } from '../../helpers/layers.js'
import * as sys from '../../helpers/syscalls.js'

const count = (): number => fs.readdirSync('/proc/self/fd').length

t.test('a listing has every entry, and touches nothing', async t => {
  const top = scratch(t)
  const names = Array.from({ length: 1500 }, (_, i) => `${i}${'n'.repeat(30)}`)
  build(top, Object.fromEntries([...names, '\xff\xfe', '...'].map(name => [`d/${name}`, ''])))
  build(top, { 'types/d/': '', 'types/p': fifo(), 'types/s': symlink('x') })
  const fd = sys.open(top, sys.O.PATH)
  t.teardown(() => sys.close(fd))
  const before = count()
  const seen = new Set<string>()
  t.equal(
    listReal(fd, 'd', name => seen.add(name).size > 0),
    0,
  )
  t.strictSame(seen, new Set(fs.readdirSync(`${top}/d`, 'latin1')))
  t.equal(seen.size, 1502, 'more than one call gives')
  const own = sys.open(`${top}/d`, sys.O.PATH)
  let few = 0
  t.equal(
    listReal(own, '', () => ++few < 3),
    0,
  )
  t.equal(few, 3, 'until it is told to stop')
  sys.close(own)
  const types = new Map<string, unknown>()
  listReal(fd, 'types', (name, ino, type) => types.set(name, [BigInt(ino), type]).size > 0)
  for (const [name, type] of [
    ['d', 4],
    ['p', 1],
    ['s', 10],
  ] as const)
    t.strictSame(types.get(name), [(sys.lstat(fd, `types/${name}`) as sys.Stat).ino, type])
  const past = BigInt(PAST.sec) * 1_000_000_000n + BigInt(PAST.nsec)
  t.equal((sys.lstat(fd, 'types') as sys.Stat).atime, past)
  const none = (): boolean => t.fail('nothing to list')
  t.equal(listReal(fd, 'none', none), -E.ENOENT)
  t.equal(listReal(fd, 'types/s', none), -E.ENOTDIR)
  t.equal(count(), before)
})

t.test(
  'a file is read whosever it is',
  { skip: process.geteuid?.() !== 0 && 'needs root' },
  async t => {
    const top = scratch(t)
    fs.chmodSync(top, 0o755)
    fs.writeFileSync(`${top}/f`, '')
    const fd = sys.open(top, sys.O.PATH)
    t.teardown(() => sys.close(fd))
    const opened = sys.withCredentials({ uid: 1234, gid: 1, groups: [] }, () => openRead(fd, 'f'))
    t.ok(opened >= 0, 'without O_NOATIME')
    sys.close(opened)
    t.equal(openRead(fd, 'none'), -E.ENOENT)
  },
)

t.test('a tree is removed, and nothing that it points to', async t => {
  const top = scratch(t)
  build(top, {
    'keep/file': 'x',
    'tree/a/b/c/d/e\xff': 'x',
    'tree/a/link': symlink('../../keep'),
    'tree/p': fifo(),
    'tree/none/': dir({ mode: 0 }),
    'tree/empty/': '',
    file: 'x',
    link: symlink('keep'),
  })
  const fd = sys.open(top, sys.O.RDONLY)
  t.teardown(() => sys.close(fd))
  const before = count()
  for (const name of ['tree', 'file', 'link', 'none']) t.equal(removeTree(fd, name), 0, name)
  t.strictSame(fs.readdirSync(top), ['keep'])
  t.strictSame(fs.readdirSync(`${top}/keep`), ['file'])
  t.equal(count(), before)
})

t.test(
  'what cannot be removed is an error',
  { skip: process.geteuid?.() !== 0 && 'needs root' },
  async t => {
    const top = scratch(t)
    build(top, { 'tree/a/fast': 'x', 'tree/b': 'x' })
    const file = sys.open(`${top}/tree/a/fast`, sys.O.RDONLY)
    const IMMUTABLE = 0x10
    const set = sys.setFlags(file, IMMUTABLE)
    const fd = sys.open(top, sys.O.RDONLY)
    t.teardown(() => {
      sys.setFlags(file, 0)
      sys.close(file)
      sys.close(fd)
    })
    if (set < 0) return t.comment('no inode flags here')
    const before = count()
    t.equal(removeTree(fd, 'tree'), -E.ENOTEMPTY)
    t.strictSame(fs.readdirSync(`${top}/tree`), ['a'], 'the rest is gone')
    t.equal(count(), before)
  },
)
