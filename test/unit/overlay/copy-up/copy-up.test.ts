import { chmodSync, chownSync, readdirSync, readFileSync, statSync } from 'node:fs'

import t, { type Test } from 'tap'

import { Attr, Entry, Opened, Pending, SetAttr, SetAttrValid } from '../../../../src/overlay/ops.js'
import type { Fs } from '../../../helpers/fs-calls.js'
import {
  acl,
  device,
  dir,
  fifo,
  file,
  link,
  scratch,
  socket,
  symlink,
  unionDirectories,
  type Layer,
  type Traits,
  type UnionDirectories,
} from '../../../helpers/layers.js'
import { compare, NOTHING_OPEN, skipParity } from '../../../helpers/parity.js'
import * as sys from '../../../helpers/syscalls.js'
import { readTree } from '../../../helpers/tree.js'
import { open, openFds, optionsOf, leakedFds, type UnionFs } from '../../../helpers/union.js'

const CAPABILITY = '\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0'

/** Every attribute that an object can have besides its data. */
const traits: Traits = {
  uid: 1234,
  gid: 4321,
  atime: { sec: 1_234_567_890, nsec: 987_654_321 },
  mtime: { sec: -12_345, nsec: 1 },
}
const XATTRS = {
  'trusted.t': '\0\xff',
  'security.s': 's',
  'trusted.overlay.overlay.escaped': 'x',
}
const USER = { ...XATTRS, 'user.u': 'value'.repeat(50), 'user.empty': '' }
const ACCESS = acl('u::rw-,u:1000:r--,g::r--,m::rw-,o::---')
const DEFAULT = acl('u::rwx,g::r-x,g:7:-wx,m::rwx,o::--x')

const LOWER: Layer = {
  'd/': dir({ mode: 0o3751, uid: 1, gid: 2, mtime: { sec: 5, nsec: 6 } }),
  'd/file': file('content\n', {
    ...traits,
    mode: 0o6751,
    xattrs: { ...USER, 'security.capability': CAPABILITY },
  }),
  'd/acl': file('acl!', { ...traits, mode: 0o640, xattrs: { 'system.posix_acl_access': ACCESS } }),
  'd/none': file('', { ...traits, mode: 0 }),
  'd/empty': file('', traits),
  'd/directory/': dir({
    ...traits,
    mode: 0o2770,
    xattrs: { ...USER, 'system.posix_acl_default': DEFAULT, 'system.posix_acl_access': ACCESS },
  }),
  'd/directory/in/f': 'f',
  'd/symlink': symlink('to/somewhere\xff', { ...traits, xattrs: XATTRS }),
  'd/long': symlink('x'.repeat(4000)),
  'd/fifo': fifo({ ...traits, mode: 0o622, xattrs: XATTRS }),
  'd/socket': socket({ ...traits, mode: 0o4700 }),
  'd/char': device('char', 1, 3, { ...traits, mode: 0o666, xattrs: XATTRS }),
  'd/block': device('block', 259, 1_000_000, { ...traits, mode: 0o600 }),
  'd/holes': file('start', {
    ...traits,
    pieces: [
      [1 << 16, 'x'.repeat(5000)],
      [1 << 18, 'y'],
    ],
    size: (1 << 20) - 3,
  }),
  'd/hole': file('', { size: 300_000 }),
  'd/future': file('f', {
    mtime: { sec: 4_000_000_000, nsec: 0 },
    atime: { sec: 1, nsec: 999_999_999 },
  }),
}
const NAMES = Object.keys(LOWER)
  .map(path => path.replace(/\/$/, ''))
  .filter(path => path.startsWith('d/'))

t.test('objects of every type keep all attributes', { skip: skipParity }, async t => {
  const triggers: Record<string, (fs: Fs, path: string) => unknown> = {
    chmod: (fs, path) => (/symlink|long/.test(path) ? 0 : fs.chmod(path, 0o1701)),
    chown: (fs, path) => fs.chown(path, 77, -1),
    'chown of nothing': (fs, path) => fs.chown(path, -1, -1),
    utimens: (fs, path) => fs.utimens(path, { sec: -1, nsec: 5 }, { sec: 1 << 30, nsec: 7 }),
    setxattr: (fs, path) => fs.setxattr(path, 'trusted.new', 'new'),
    removexattr: (fs, path) => fs.removexattr(path, 'trusted.t'),
    'removexattr of what is not there': (fs, path) => fs.removexattr(path, 'trusted.none'),
    link: (fs, path) => fs.link(path, `${path}.link`),
    rename: (fs, path) => fs.rename(path, `${path}.new`),
    'rename to elsewhere': (fs, path) => fs.rename(path, `${path.replace('d/', '')}.new`),
    write: (fs, path) => (/f|hole|empty|acl|none/.test(path) ? fs.write(path, 'W', 2) : 0),
    'write nothing': (fs, path) => (/file|hole|acl/.test(path) ? fs.write(path, '') : 0),
    'truncate to nothing': (fs, path) => fs.truncate(path, 0),
    truncate: (fs, path) => fs.truncate(path, 3),
    extend: (fs, path) => fs.truncate(path, 2_000_000),
    'open with O_TRUNC': (fs, path) =>
      /f|hole|acl/.test(path) ? fs.write(path, '', 0, sys.O.TRUNC) : 0,
  }
  const special = /fifo|socket|char|block|symlink|long|directory/
  for (const [name, trigger] of Object.entries(triggers))
    for (const memory of name === 'chmod' || name === 'write' ? [true, false] : [true]) {
      const scenario = { lower: [LOWER], options: { redirectDir: 'on' as const }, memory }
      await compare(t, `${name} on ${memory ? 'tmpfs' : 'disk'}`, scenario, async fs => {
        const results: unknown[] = []
        for (const path of NAMES)
          if (!/write|trunc|extend|TRUNC/.test(name) || !special.test(path))
            results.push(path, await trigger(fs, path))
        return results
      })
    }
})

t.test('synced on disk, with and without an index', { skip: skipParity }, async t => {
  const lower = [{ ...LOWER, 'd/twin': link('d/file') }]
  for (const index of [true, false]) {
    const options = { volatile: false, index }
    await compare(t, `index ${index}`, { lower, options }, async fs => [
      await fs.write('d/file', 'W', 2),
      await fs.chmod('d/acl', 0o600),
      await fs.write('d/holes', 'hole', 100_000),
      await fs.chown('d/fifo', 5, 5),
    ])
  }
})

t.test('holes are kept', async t => {
  const where = unionDirectories(t, {
    lower: [
      {
        small: file('a', { pieces: [[900_000, 'z']] }),
        large: file('a', { pieces: [[50 << 20, 'middle']], size: 200 << 20 }),
        none: file('', { size: 100 << 20 }),
      },
    ],
  })
  const union = open(t, optionsOf(where))
  for (const path of ['small', 'large', 'none']) {
    const before = await union.stat(path)
    t.equal(await union.chmod(path, 0o600), 0)
    const after = await union.stat(path)
    if (typeof before === 'number' || typeof after === 'number') throw new Error(path)
    t.equal(after.size, before.size, path)
    t.ok(
      after.blocks <= before.blocks + 8,
      `${path}: ${before.blocks} blocks, then ${after.blocks}`,
    )
    t.equal(after.mtime, before.mtime)
    t.equal(after.ino, before.ino)
  }
  const fd = sys.open(`${where.upper}/large`, sys.O.RDONLY)
  t.equal(sys.lseek(fd, 1 << 20, sys.SEEK.DATA), 50 << 20)
  sys.close(fd)
})

/** Makes a call that must throw `Pending`, and returns that. */
const parked = (t: Test, call: () => number): Pending => {
  try {
    const result = call()
    t.fail(`answered at once: ${result}`)
  } catch (error) {
    if (error instanceof Pending) return error
    throw error
  }
  throw new Error('unreachable')
}

/** Asserts that `workdir/work` is empty, except for the shared whiteout. */
const tidy = (t: Test, where: UnionDirectories, name: string): void => {
  const left = readdirSync(`${where.work}/work`).filter(
    entry => !statSync(`${where.work}/work/${entry}`).isCharacterDevice(),
  )
  t.strictSame(left, [], `${name}: nothing is left in the workdir`)
}

const MEGABYTE = 'm'.repeat(1 << 20)
const BIG = file('BEGIN', {
  pieces: [1, 2, 3, 4, 5].map(i => [i << 20, MEGABYTE]),
  size: (6 << 20) + 5,
})
const BIG_SIZE = (6 << 20) + 5

t.test('large files are copied while other requests are served', async t => {
  /**
   * A test on a union with a large file: a write open of it has started a copy-up job, and `body`
   * makes other calls while it runs.
   */
  const scene = async (
    name: string,
    lower: Layer,
    body: (
      t: Test,
      union: UnionFs,
      retry: () => Promise<Opened>,
      where: UnionDirectories,
    ) => Promise<void>,
    path = 'd/big',
  ): Promise<void> => {
    await t.test(name, async t => {
      const where = unionDirectories(t, { lower: [lower] })
      const lowerBefore = readTree(where.lower[0] as string, true)
      const before = openFds()
      const union = open(t, optionsOf(where, { redirectDir: 'on' }))
      const node = union.id(path)
      const opened = new Opened()
      const call = (): number => union.ops.open(node, sys.O.RDWR, false, opened)
      const pending = parked(t, call)
      t.equal(pending.answer, false)
      t.equal(union.ops.counts().jobs, 1)
      await body(
        t,
        union,
        async () => {
          t.equal(await union.done(pending.job), 0, 'the copy is made')
          t.equal(await union.run(call), 0)
          return opened
        },
        where,
      )
      if (opened.fh !== 0) union.ops.release(opened.fh)
      union.forgetAll()
      t.strictSame(union.ops.counts(), NOTHING_OPEN)
      t.strictSame(union.loggedMessages, [])
      union.close()
      tidy(t, where, name)
      const lowerAfter = readTree(where.lower[0] as string, true)
      t.strictSame([...lowerAfter.nodes], [...lowerBefore.nodes], 'the lower layer is untouched')
      t.strictSame(await leakedFds(before), [])
    })
  }

  const lower: Layer = { 'd/big': BIG, 'd/small': 'small', 'e/other': 'other', 'e/big2': BIG }

  await scene('others', lower, async (t, union, retry, where) => {
    t.notOk(readdirSync(`${where.upper}/d`).includes('big'), 'not there before it is whole')
    t.equal(await union.write('d/small', 'SM'), 2)
    t.equal(await union.create('d/new', 0o644), 0)
    t.equal(await union.read('e/other'), 'other')
    t.strictSame(await union.list('d'), ['big', 'new', 'small'])
    const stat = await union.stat('d/big')
    t.equal(typeof stat === 'object' && stat.size, BIG_SIZE)
    const { fh, upper } = await retry()
    t.ok(upper)
    t.equal(statSync(`${where.upper}/d/big`).size, BIG_SIZE)
    t.equal(union.pwrite(fh, 'begin'), 5)
    const text = union.readAll(fh)
    t.equal(text, `begin${'\0'.repeat((1 << 20) - 5)}${MEGABYTE.repeat(5)}${'\0'.repeat(5)}`)
  })

  await scene('a second writer waits for the same copy', lower, async (t, union, retry) => {
    const other = new Opened()
    const call = (): number => union.ops.open(union.id('d/big'), sys.O.WRONLY, false, other)
    const pending = parked(t, call)
    const truncating = union.truncate('d/big', 1000)
    t.equal(union.ops.counts().jobs, 1)
    const { fh } = await retry()
    await union.done(pending.job)
    t.equal(call(), 0)
    t.equal(await truncating, 0)
    t.equal(union.pwrite(other.fh, 'other', 995), 5)
    t.match(union.readAll(fh), /other$/)
    union.ops.release(other.fh)
  })

  await scene('truncated meanwhile', lower, async (t, union, retry) => {
    const set = Object.assign(new SetAttr(), { valid: SetAttrValid.SIZE, size: 0 })
    const pending = parked(t, () => union.ops.setattr(union.id('d/big'), set, new Attr()))
    const { fh } = await retry()
    await union.done(pending.job)
    t.equal(union.ops.setattr(union.id('d/big'), set, new Attr()), 0)
    t.equal(union.readAll(fh), '')
  })

  await scene('renamed meanwhile', lower, async (t, union, retry) => {
    const renaming = union.rename('d/big', 'e/moved')
    const { fh } = await retry()
    t.equal(await renaming, 0)
    t.equal(union.pwrite(fh, 'x'), 1)
    t.equal(await union.stat('d/big'), -2)
    t.match(await union.read('e/moved'), /^xEGIN/)
  })

  await scene('its directory is renamed meanwhile', lower, async (t, union, retry, where) => {
    t.equal(await union.rename('d', 'e/d2'), 0)
    const { fh } = await retry()
    t.equal(union.pwrite(fh, 'x'), 1)
    t.match(await union.read('e/d2/big'), /^xEGIN/)
    t.equal(statSync(`${where.upper}/e/d2/big`).size, BIG_SIZE)
  })

  await scene('unlinked meanwhile', lower, async (t, union, retry, where) => {
    const reader = (await union.open('d/big', sys.O.RDONLY)) as Opened
    t.equal(await union.unlink('d/big'), 0)
    t.equal(await union.stat('d/big'), -2)
    t.equal(await union.create('d/big', 0o600), 0, 'the name is free')
    const { fh } = await retry()
    t.equal(union.pwrite(fh, 'x'), 1)
    t.match(union.readAll(fh), /^xEGIN/)
    t.match(union.readAll(reader.fh), /^xEGIN/, 'also through an older descriptor')
    t.equal(await union.read('d/big'), '')
    t.equal(statSync(`${where.upper}/d/big`).size, 0)
    union.ops.release(reader.fh)
  })

  await scene('replaced meanwhile', lower, async (t, union, retry) => {
    t.equal(await union.rename('e/other', 'd/big'), 0)
    const { fh } = await retry()
    t.equal(union.pwrite(fh, 'x'), 1)
    t.match(union.readAll(fh), /^xEGIN/)
    t.equal(await union.read('d/big'), 'other')
  })

  await scene('its directory removed meanwhile', lower, async (t, union, retry) => {
    t.equal(await union.unlink('d/big'), 0)
    t.equal(await union.unlink('d/small'), 0)
    t.equal(await union.rmdir('d'), 0)
    t.equal(await union.mkdir('d', 0o755), 0)
    const { fh } = await retry()
    t.equal(union.pwrite(fh, 'x'), 1)
    t.strictSame(await union.list('d'), [])
  })

  await scene('linked meanwhile', lower, async (t, union, retry) => {
    const linking = union.link('d/big', 'e/second')
    const { fh } = await retry()
    t.equal(await linking, 0)
    t.equal(union.pwrite(fh, 'x'), 1)
    t.match(await union.read('e/second'), /^xEGIN/)
    const stat = await union.stat('d/big')
    t.equal(typeof stat === 'object' && stat.nlink, 2)
  })

  await scene(
    'with several names, one of which goes meanwhile',
    { ...lower, 'e/link': link('d/big'), 'e/third': link('d/big') },
    async (t, union, retry, where) => {
      const unlinking = union.unlink('e/link')
      const { fh } = await retry()
      t.equal(await unlinking, 0)
      t.equal(union.pwrite(fh, 'x'), 1)
      t.match(await union.read('e/third'), /^xEGIN/)
      const stat = await union.stat('e/third')
      t.equal(typeof stat === 'object' && stat.nlink, 2)
      t.equal(readdirSync(`${where.work}/index`).length, 1)
    },
  )

  await scene(
    'several at once',
    { ...lower, 'f/1': BIG, 'f/2': BIG, 'f/3': BIG },
    async (t, union, retry) => {
      const writes = ['e/big2', 'f/1', 'f/2', 'f/3'].map(path => union.write(path, path))
      await retry()
      t.strictSame(await Promise.all(writes), [6, 3, 3, 3])
      for (const path of ['e/big2', 'f/1', 'f/2', 'f/3'])
        t.equal(((await union.read(path)) as string).slice(0, path.length), path)
    },
  )
})

t.test('the kernel forgets the node during a copy', async t => {
  const where = unionDirectories(t, { lower: [{ 'd/big': BIG }] })
  const union = open(t, optionsOf(where))
  const call = (): number => union.ops.open(union.id('d/big'), sys.O.RDWR, false, new Opened())
  const { job } = parked(t, call)
  union.forgetAll()
  t.ok(union.ops.counts().nodes > 1, 'the copy keeps it')
  t.equal(await union.done(job), 0)
  t.strictSame(union.ops.counts(), NOTHING_OPEN)
  t.equal(statSync(`${where.upper}/d/big`).size, BIG_SIZE)
  tidy(t, where, 'after it')
})

t.test('the union is closed during a copy', async t => {
  const where = unionDirectories(t, { lower: [{ big: BIG }] })
  const before = openFds()
  const union = open(t, optionsOf(where))
  parked(t, () => union.ops.open(union.id('big'), sys.O.RDWR, false, new Opened()))
  union.close()
  t.strictSame(await leakedFds(before), [])
  t.strictSame(readdirSync(where.upper), [])
  const again = open(t, optionsOf(where))
  t.equal(await again.write('big', 'b'), 1)
  again.close()
  tidy(t, where, 'opened again')
})

t.test('owner and mode do not come from the workdir', async t => {
  const lower: Layer = {}
  for (const mode of [0, 0o200, 0o444, 0o600, 0o666, 0o777, 0o4755, 0o2660, 0o1777]) {
    for (const id of [0, 7])
      lower[`${mode.toString(8)}-${id}`] = file('x', { mode, uid: id, gid: id })
  }
  const names = Object.keys(lower)
  const works: [string, (work: string) => void][] = [
    ['as it is made', () => {}],
    [
      'with a group for all',
      work => {
        sys.mkdirat(sys.AT_FDCWD, `${work}/work`, 0o755)
        chownSync(`${work}/work`, 0, 7)
        chmodSync(`${work}/work`, 0o2755)
      },
    ],
    [
      'with a default ACL',
      work => {
        sys.mkdirat(sys.AT_FDCWD, `${work}/work`, 0o755)
        const value = acl('u::rwx,u:7:rwx,g::rwx,m::rwx,o::r--')
        const on = { path: `${work}/work`, follow: false }
        sys.setxattr(on, 'system.posix_acl_default', Buffer.from(value, 'latin1'), 0)
      },
    ],
  ]
  for (const [title, prepare] of works) {
    await t.test(title, async t => {
      const where = unionDirectories(t, { lower: [lower] })
      prepare(where.work)
      const union = open(t, optionsOf(where))
      for (const name of names) {
        const owner = Number(name.split('-')[1])
        t.equal(await union.utimens(name, { sec: 1, nsec: 2 }, { sec: 3, nsec: 4 }), 0)
        const { mode, uid, gid } = statSync(`${where.upper}/${name}`)
        t.strictSame([(mode & 0o7777).toString(8), uid, gid], [name.split('-')[0], owner, owner])
      }
    })
  }
})

t.test('handles opened before the copy-up', async t => {
  const where = unionDirectories(t, { lower: [{ f: 'lower text', h1: 'linked', h2: link('h1') }] })
  const union = open(t, optionsOf(where))
  for (const path of ['f', 'h1']) {
    const readers = [await union.open(path, 0), await union.open(path, 0)] as Opened[]
    t.ok(readers.every(reader => !reader.upper && !reader.writable))
    const text = await union.read(path)
    t.equal(await union.write(path, 'UPPER', 0), 5)
    for (const { fh } of readers) {
      t.equal(union.readAll(fh), `UPPER${String(text).slice(5)}`, 'show what is written later')
      t.equal(union.ops.write(fh, Buffer.from('x'), 0, 1, 0, false, false), -9)
      union.ops.release(fh)
    }
  }
  t.equal(readFileSync(`${where.lower[0]}/f`, 'latin1'), 'lower text')
  t.equal(readFileSync(`${where.lower[0]}/h2`, 'latin1'), 'linked')
})

/** An upper layer on a file system of its own, with little space or few features. */
const cramped = (
  t: Test,
  lower: Layer,
  type: 'tmpfs' | 'ramfs',
  options: string,
): UnionDirectories => {
  const where = unionDirectories(t, { lower: [lower] })
  const small = scratch(t)
  if (sys.mount('none', small, type, 0, options) < 0) throw new Error(`no ${type}`)
  for (const name of ['upper', 'work']) sys.mkdirat(sys.AT_FDCWD, `${small}/${name}`, 0o755)
  return { ...where, upper: `${small}/upper`, work: `${small}/work` }
}
const paths = (top: string): string[] => [...readTree(top, true).nodes.keys()]

t.test('a failure changes nothing', { skip: skipParity }, async t => {
  await t.test('no space', async t => {
    const lower: Layer = { big: BIG, 'd/half': file('h'.repeat(700_000)), 'd/tiny': 'tiny' }
    const where = cramped(t, lower, 'tmpfs', 'size=512k')
    const before = openFds()
    const union = open(t, optionsOf(where))
    const ENOSPC = -28
    t.equal(await union.write('big', 'b'), ENOSPC, 'of a thread')
    t.equal(await union.write('d/half', 'h'), ENOSPC, 'at once')
    t.equal(await union.chmod('d/half', 0o600), ENOSPC)
    t.equal(await union.rename('d/half', 'd/other'), ENOSPC)
    t.equal(await union.link('big', 'd/link'), ENOSPC)
    t.strictSame(paths(where.upper), ['.', 'd'])
    tidy(t, where, 'after it')
    t.equal(await union.read('d/half'), 'h'.repeat(700_000))
    t.equal(await union.write('d/tiny', 'T'), 1, 'what has room goes on')
    t.equal(
      await union.write('d/half', '', 0, sys.O.TRUNC),
      0,
      'also a large file without its data',
    )
    t.equal(await union.unlink('big'), 0)
    t.strictSame(await union.list('d'), ['half', 'tiny'])
    t.strictSame(union.ops.counts(), NOTHING_OPEN)
    union.close()
    t.strictSame(await leakedFds(before), [])
  })

  await t.test('no inodes', async t => {
    const lower: Layer = { 'a/b/c/f': 'f', s: symlink('x'), 'a/h1': 'h', 'a/h2': link('a/h1') }
    const where = cramped(t, lower, 'tmpfs', 'nr_inodes=9')
    const union = open(t, optionsOf(where))
    const result = await union.write('a/b/c/f', 'F')
    t.equal(result, -28)
    t.equal(await union.chown('s', 1, 1), -28)
    t.equal(await union.write('a/h1', 'H'), -28)
    tidy(t, where, 'after it')
    t.equal(await union.read('a/b/c/f'), 'f')
    t.equal(await union.read('a/h2'), 'h')
    t.strictSame(readdirSync(`${where.work}/index`), [])
  })

  await t.test('an ACL that cannot be copied', async t => {
    const lower: Layer = {
      acl: file('x', { xattrs: { 'system.posix_acl_access': ACCESS } }),
      'directory/': dir({ xattrs: { 'system.posix_acl_default': DEFAULT } }),
      'directory/f': 'f',
      plain: file('x', { xattrs: { 'user.x': 'x' } }),
    }
    const where = cramped(t, lower, 'ramfs', '')
    // The kernel copies without the ACL; the group then has permissions that the ACL's mask
    // withheld.
    const union = open(t, optionsOf(where))
    const EOPNOTSUPP = -95
    t.equal(await union.chmod('acl', 0o600), EOPNOTSUPP)
    t.equal(await union.write('acl', 'X'), EOPNOTSUPP)
    t.equal(await union.chmod('directory', 0o700), EOPNOTSUPP)
    t.equal(await union.create('directory/g', 0o644), EOPNOTSUPP)
    t.equal(await union.write('plain', 'X'), 1)
    t.equal(await union.getxattr('plain', 'user.x'), EOPNOTSUPP, 'what grants nothing may go')
    t.strictSame(paths(where.upper), ['.', 'plain'])
    tidy(t, where, 'after it')
  })

  await t.test('an upper directory that takes no new names', async t => {
    const where = unionDirectories(t, {
      lower: [
        { 'd/f': 'f', 'd/s': symlink('x'), 'd/sub/g': 'g', 'd/h1': 'h', 'd/h2': link('d/h1') },
      ],
      upper: { 'd/': dir({ flags: 0x10 }) },
    })
    const union = open(t, optionsOf(where))
    const calls = [
      () => union.write('d/f', 'F'),
      () => union.chown('d/s', 1, 1),
      () => union.create('d/sub/new', 0o644),
      () => union.write('d/h1', 'H'),
      () => union.create('d/new', 0o644),
      () => union.mkdir('d/new', 0o755),
      () => union.unlink('d/f'),
      () => union.rename('d/f', 'f'),
      () => union.rename('d/f', 'd/f2'),
      () => union.link('d/f', 'f'),
    ]
    for (const [i, call] of calls.entries()) t.ok((await call()) < 0, `call ${i}`)
    t.strictSame(readdirSync(`${where.upper}/d`), [])
    t.strictSame(readdirSync(`${where.work}/index`), [])
    tidy(t, where, 'after it')
    t.strictSame(await union.list('d'), ['f', 'h1', 'h2', 's', 'sub'])
    for (const path of ['d/f', 'd/sub/g', 'd/h1', 'd/h2'])
      t.equal(await union.read(path), path.replace(/^.*\/(.).*$/, '$1'))
    const stat = await union.stat('d/h2')
    t.equal(typeof stat === 'object' && stat.nlink, 2)
    t.strictSame(union.ops.counts(), NOTHING_OPEN)
  })
})

t.test('the nodes whose changed attributes are reported', async t => {
  const where = unionDirectories(t, { lower: [{ 'd/f': 'f', 'd/h1': 'h', 'd/h2': link('d/h1') }] })
  const union = open(t, optionsOf(where, { volatile: true }))
  const ids = ['d', 'd/f', 'd/h1'].map(path => union.id(path))
  t.equal(await union.write('d/f', 'F'), 1)
  t.ok(union.notified.includes(ids[0] as number), 'the directory, which is merged now')
  const out = new Entry()
  for (const id of ids) t.equal(union.ops.getattr(id, 0, out.attr), 0)
  union.notified.length = 0
  t.equal(await union.write('d/h1', 'H'), 1)
  t.ok(union.notified.includes(ids[0] as number), 'the directory, which has another ctime')
})
