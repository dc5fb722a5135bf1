import { readdirSync, readFileSync, statSync } from 'node:fs'

import t from 'tap'

import { Attr, Opened, SetAttr, SetAttrValid as V, StatFsOut } from '../../../../src/overlay/ops.js'
import { E } from '../../../../src/sys/errno.js'
import type { Fs } from '../../../helpers/fs-calls.js'
import {
  acl,
  dir,
  file,
  PAST,
  symlink,
  unionDirectories,
  type Layer,
} from '../../../helpers/layers.js'
import {
  alternate,
  compare,
  mountKernel,
  NOTHING_OPEN,
  skipParity,
} from '../../../helpers/parity.js'
import * as sys from '../../../helpers/syscalls.js'
import { open, optionsOf, readOnlyOptions } from '../../../helpers/union.js'

const LOWER: Layer = {
  'd/f': file('file', { xattrs: { 'user.a': 'a', 'trusted.b': '\0b', 'security.c': '' } }),
  'd/marked': file('m', {
    xattrs: { 'trusted.overlay.overlay.opaque': 'y', 'trusted.overlay.overlay.overlay.x': 'xx' },
  }),
  'd/s': symlink('x', { xattrs: { 'trusted.b': 'b' } }),
  'd/': dir({ xattrs: { 'user.a': 'a' } }),
  'e/g': 'g',
}
const CREATE = 1
const REPLACE = 2

t.test("callers' xattrs beside overlay xattrs", { skip: skipParity }, async t => {
  const names = [
    'trusted.overlay.opaque',
    'trusted.overlay.redirect',
    'trusted.overlay.overlay.opaque',
    'trusted.overlay.overlay.overlay.x',
    'trusted.overlay',
    'trusted.overlayx',
    'trusted.x',
    'user.overlay.opaque',
    'user.fuseoverlayfs.opaque',
  ]
  const steps: ((fs: Fs) => unknown)[] = [
    async fs => {
      const results: unknown[] = []
      for (const path of ['d', 'd/f', 'd/marked', 'e'])
        for (const name of names)
          results.push(
            await fs.getxattr(path, name),
            await fs.removexattr(path, name),
            await fs.setxattr(path, name, `value of ${name}`),
            await fs.getxattr(path, name),
          )
      return results
    },
    async fs => {
      const results: unknown[] = []
      for (const path of ['d', 'd/f', 'd/marked', 'e']) results.push(await fs.listxattr(path))
      return results
    },
    async fs => {
      const results: unknown[] = []
      for (const path of ['d', 'd/f', 'd/marked', 'e'])
        for (const name of names.slice(0, 4)) results.push(await fs.removexattr(path, name))
      return [results, await fs.listxattr('d/f')]
    },
    fs => fs.list('d'),
  ]
  await compare(t, 'at once', { lower: [LOWER], memory: true }, async fs => {
    const results: unknown[] = []
    for (const step of steps) results.push(await step(fs))
    return results
  })
  await alternate(t, 'in turns', { lower: [LOWER], memory: true }, steps)
})

t.test('setting and removing', { skip: skipParity }, async t => {
  for (const memory of [true, false])
    await compare(t, memory ? 'on tmpfs' : 'on disk', { lower: [LOWER], memory }, async fs => [
      await fs.setxattr('d/f', 'user.a', 'new', CREATE),
      await fs.setxattr('d/f', 'user.none', 'new', REPLACE),
      await fs.setxattr('d/f', 'user.a', 'new', REPLACE),
      await fs.setxattr('d/f', 'user.new', 'new', CREATE),
      await fs.setxattr('d/f', 'user.empty', ''),
      await fs.getxattr('d/f', 'user.empty'),
      await fs.setxattr('d/f', 'user.large', 'l'.repeat(2000)),
      await fs.setxattr('d/f', `user.${'n'.repeat(250)}`, 'x'),
      await fs.setxattr('d/f', 'unknown.x', 'x'),
      await fs.removexattr('d/f', 'user.none'),
      await fs.removexattr('e/g', 'user.none'),
      await fs.removexattr('d/f', 'user.a'),
      await fs.removexattr('d/f', 'security.c'),
      await fs.getxattr('d/f', 'user.a'),
      await fs.setxattr('d/s', 'trusted.new', 'x'),
      await fs.setxattr('d/s', 'user.new', 'x'),
      await fs.removexattr('d/s', 'trusted.b'),
      await fs.listxattr('d/f'),
      await fs.listxattr('d/s'),
      await fs.listxattr('d'),
    ])
})

t.test('sizes', async t => {
  const union = open(t, optionsOf(unionDirectories(t, { lower: [LOWER] })))
  const id = union.id('d/f')
  const buf = Buffer.alloc(100)
  t.equal(union.ops.getxattr(id, 'trusted.b', buf, 0, 0), 2)
  t.equal(union.ops.getxattr(id, 'trusted.b', buf, 0, 1), -E.ERANGE)
  t.equal(union.ops.getxattr(id, 'trusted.b', buf, 10, 2), 2)
  t.equal(buf.latin1Slice(9, 13), '\0\0b\0')
  t.equal(union.ops.getxattr(id, 'user.none', buf, 0, 0), -E.ENODATA)
  t.equal(union.ops.listxattr(id, buf, 0, 0, true), 28)
  t.equal(union.ops.listxattr(id, buf, 0, 27, true), -E.ERANGE)
  t.equal(union.ops.listxattr(id, buf, 5, 90, true), 28)
  const list = buf.latin1Slice(5, 33).split('\0').toSorted()
  t.strictSame(list, ['', 'security.c', 'trusted.b', 'user.a'])
  t.equal(union.ops.listxattr(id, buf, 0, 90, false), 18, 'trusted ones are not for everybody')
  t.equal(union.ops.getxattr(4711, 'user.a', buf, 0, 0), -E.ESTALE)
  t.equal(union.ops.listxattr(4711, buf, 0, 0, true), -E.ESTALE)
})

t.test('a list that is empty before copy-up is empty after it', async t => {
  const union = open(t, optionsOf(unionDirectories(t, { lower: [{ 'd/f': 'text' }] })))
  const sizes = () =>
    ['d', 'd/f'].map(path => union.ops.listxattr(union.id(path), Buffer.alloc(0), 0, 0, true))
  t.strictSame(sizes(), [0, 0])
  t.equal(await union.chmod('d/f', 0o600), 0)
  t.equal(union.ops.listxattr(union.id('d/f'), Buffer.alloc(100), 0, 100, true), 0)
  t.strictSame(sizes(), [0, 0], 'although both have marks now')
})

t.test('ACLs', { skip: skipParity }, async t => {
  const ACCESS = 'system.posix_acl_access'
  const DEFAULT = 'system.posix_acl_default'
  const some = acl('u::rwx,u:7:rwx,g::r-x,m::r-x,o::---')
  await compare(t, 'acl', { lower: [LOWER], memory: true }, async fs => [
    await fs.setxattr('d/f', ACCESS, some),
    await fs.getxattr('d/f', ACCESS),
    await fs.chmod('d/f', 0o604),
    await fs.getxattr('d/f', ACCESS),
    await fs.setxattr('d', DEFAULT, some),
    await fs.mkdir('d/sub', 0o777),
    await fs.create('d/new', 0o666),
    await fs.mkdir('d/sub/deeper', 0o777),
    await fs.removexattr('d', DEFAULT),
    await fs.create('d/plain', 0o666),
    await fs.removexattr('d', DEFAULT),
    await fs.setxattr('d', DEFAULT, acl('u::rwx,g::---,o::---')),
    await fs.create('d/private', 0o666),
    await fs.removexattr('d/f', ACCESS),
    await fs.getxattr('d/f', ACCESS),
    await fs.setxattr('d/f', DEFAULT, some),
    await fs.setxattr('d/f', ACCESS, 'nonsense'),
  ])
  const where = unionDirectories(t, { lower: [{ f: file('f', { mode: 0o2755 }) }] })
  const union = open(t, optionsOf(where))
  const value = Buffer.from(some, 'latin1')
  const id = union.id('f')
  t.equal(await union.run(() => union.ops.setxattr(id, ACCESS, value, 0, true)), 0)
  const stat = await union.stat('f')
  t.equal(typeof stat === 'object' && stat.mode & 0o7777, 0o750, 'the set-group-id bit goes')
})

t.test('attributes', { skip: skipParity }, async t => {
  const UTIME_NOW = { sec: 0, nsec: sys.UTIME_NOW }
  const UTIME_OMIT = { sec: 0, nsec: sys.UTIME_OMIT }
  const lower: Layer = {
    ...LOWER,
    'd/suid': file('s', { mode: 0o6755 }),
    'd/sgid': file('s', { mode: 0o2644 }),
  }
  await compare(t, 'set', { lower: [lower], memory: true }, async fs => [
    await fs.chmod('d/f', 0o7777),
    await fs.chmod('d', 0o1700),
    await fs.chown('d/suid', 5, -1),
    await fs.chown('d/sgid', -1, 6),
    await fs.chown('d/s', 7, 8),
    await fs.chown('e', 1000, 1000),
    await fs.truncate('d/f', 2),
    await fs.truncate('d/f', 10),
    await fs.truncate('e/g', 0),
    await fs.read('d/f'),
    await fs.truncate('d/f', -1),
    await fs.truncate('e', 5),
    await fs.readlink('d/s'),
    await fs.readlink('d/f'),
    await fs.readlink('d'),
    ...(fs.constructor.name === 'KernelFs'
      ? [await fs.utimens('e/g', UTIME_NOW, UTIME_OMIT)]
      : [
          await (fs as ReturnType<typeof open>).setattr('e/g', {
            valid: V.ATIME | V.ATIME_NOW,
          }),
        ]),
  ])
})

t.test('statfs', async t => {
  const where = unionDirectories(t, { lower: [LOWER] })
  const real = sys.statfs(where.upper)
  for (const options of [optionsOf(where), readOnlyOptions(where)]) {
    const union = open(t, options)
    const out = new StatFsOut()
    t.equal(union.ops.statfs(out), 0)
    if (typeof real === 'number') throw new Error('statfs')
    t.equal(out.blocks, real.blocks)
    t.equal(out.files, real.files)
    t.equal(out.bsize, real.bsize)
    t.equal(out.namelen, 255)
    t.ok(out.bfree >= out.bavail && out.bavail > 0 && out.ffree > 0)
    union.close()
  }
})

const IMMUTABLE = 0x10
const APPEND = 0x20
const NODUMP = 0x40
const NOATIME = 0x80

/** Sets and clears flags as chattr(1) does; other flags stay. */
const chattr = async (fs: Fs, path: string, on: number, off = 0): Promise<number> => {
  const flags = await fs.getFlags(path)
  return flags < 0 ? flags : fs.setFlags(path, (flags & ~off) | on)
}

/**
 * Every call that an inode flag of a file or its directory may forbid, unless the VFS already
 * forbids it.
 */
const attempts = async (fs: Fs, path: string, inside: string): Promise<unknown[]> => [
  await fs.getFlags(path),
  ...(path === inside
    ? [await fs.rmdir(path)]
    : [
        await fs.write(path, 'W'),
        await fs.write(path, 'A', 100, sys.O.APPEND),
        await fs.write(path, '', 0, sys.O.TRUNC),
        await fs.truncate(path, 1),
        await fs.link(path, `${path}.link`),
        await fs.rename('other', path),
        await fs.rename('other', path, sys.RENAME.EXCHANGE),
        await fs.unlink(path),
      ]),
  await fs.chmod(path, 0o600),
  await fs.chown(path, 1, 1),
  await fs.utimens(path, { sec: 1, nsec: 1 }, { sec: 1, nsec: 1 }),
  await fs.setxattr(path, 'user.x', 'x'),
  await fs.removexattr(path, 'user.x'),
  await fs.removexattr(path, 'user.a'),
  await fs.rename(path, `${path}.new`),
  await fs.create(`${inside}/made`, 0o644),
  await fs.mkdir(`${inside}/dir`, 0o755),
  await fs.symlink('x', `${inside}/symlink`),
  await fs.mknod(`${inside}/fifo`, sys.S.IFIFO | 0o600),
  await fs.link('other', `${inside}/linked`),
  await fs.rename('third', `${inside}/moved`),
  await fs.rename(`${inside}/moved`, 'third'),
  await fs.unlink(`${inside}/made`),
  await fs.rmdir(`${inside}/dir`),
  await fs.write(`${inside}/there`, 'T'),
  await fs.chmod(`${inside}/there`, 0o600),
  await fs.rename(`${inside}/there`, `${inside}/there2`),
  await fs.unlink(`${inside}/there`),
  await fs.read(path),
  await fs.list(inside),
  await fs.getFlags(path),
]

t.test('immutable and append-only', { skip: skipParity }, async t => {
  const places = ['f', 'dir']
  const lower: Layer = {
    other: 'other',
    third: 'third',
    f: file('text', { xattrs: { 'user.a': 'a' } }),
    'dir/': dir({ xattrs: { 'user.a': 'a' } }),
    'dir/there': 'there',
  }
  for (const flags of [IMMUTABLE, APPEND, IMMUTABLE | APPEND]) {
    for (const path of places) {
      const steps: ((fs: Fs) => unknown)[] = [
        fs => chattr(fs, path, flags),
        fs => attempts(fs, path, 'dir'),
        fs => fs.getFlags(path),
        fs => chattr(fs, path, 0, flags),
        fs => fs.getFlags(path),
        fs => fs.write('f', 'now'),
        fs => fs.create('dir/now', 0o644),
      ]
      const name = `${flags.toString(16)} ${path}`
      await compare(t, name, { lower: [lower] }, async fs => {
        const results: unknown[] = []
        for (const step of steps) results.push(await step(fs))
        return results
      })
      await alternate(t, `${name} in turns`, { lower: [lower] }, steps)
      await compare(t, `${name} left so`, { lower: [lower] }, async fs => [
        await chattr(fs, path, flags),
        await fs.getFlags(path),
      ])

      const flagged: Layer = { ...lower }
      if (path === 'f') flagged['f'] = file('text', { xattrs: { 'user.a': 'a' }, flags })
      else flagged['dir/'] = dir({ xattrs: { 'user.a': 'a' }, flags })
      await compare(t, `${name} in the lower layer`, { lower: [flagged] }, fs =>
        attempts(fs, path, 'dir'),
      )
    }
  }
})

t.test('a flagged file stays removable in the upper layer', { skip: skipParity }, async t => {
  const where = unionDirectories(t, { lower: [{ f: 'f', 'd/': dir() }] })
  const union = open(t, optionsOf(where))
  t.equal(await chattr(union, 'f', IMMUTABLE), 0)
  t.equal(await chattr(union, 'd', APPEND | NODUMP), 0)
  t.equal((await union.getFlags('f')) & IMMUTABLE, IMMUTABLE)
  const flags = (path: string): number => {
    const fd = sys.open(`${where.upper}/${path}`, sys.O.RDONLY)
    const value = sys.getFlags(fd)
    sys.close(fd)
    return value & (IMMUTABLE | APPEND | NODUMP)
  }
  t.strictSame([flags('f'), flags('d')], [0, NODUMP])
  const marks = ['f', 'd'].map(path =>
    String(
      sys.getxattr({ path: `${where.upper}/${path}`, follow: false }, 'trusted.overlay.protattr'),
    ),
  )
  t.strictSame(marks, ['i', 'a'])
  t.strictSame(await union.listxattr('f'), [])
  t.equal(await chattr(union, 'f', NOATIME, IMMUTABLE), 0)
  t.strictSame(await union.listxattr('f'), [])
})

t.test('a copy keeps the flags of its lower file or directory', { skip: skipParity }, async t => {
  const lower: Layer = {
    f: file('text', { flags: NOATIME | NODUMP }),
    'dir/': dir({ flags: NOATIME }),
    'dir/f': file('text', { flags: NOATIME }),
  }
  await compare(t, 'flags at copy-up', { lower: [lower] }, async fs => {
    const results: unknown[] = []
    for (const path of ['dir/f', 'dir', 'f']) {
      results.push(await fs.chmod(path, 0o700))
      results.push((await fs.getFlags(path)) & (NOATIME | NODUMP))
    }
    return results
  })
})

t.test('flags on what has none', { skip: skipParity }, async t => {
  const union = open(t, optionsOf(unionDirectories(t, { lower: [LOWER] })))
  t.equal(await union.getFlags('d/s'), -E.ENOTTY)
  t.equal(await union.setFlags('d/s', 0), -E.ENOTTY)
})

t.test('open files', async t => {
  const where = unionDirectories(t, {
    upper: { u: file('upper', { mode: 0o4755 }) },
    lower: [{ l: 'lower', suid: file('suid', { mode: 0o6755 }), plain: 'plain' }],
  })

  await t.test('modes', async t => {
    const union = open(t, optionsOf(where))
    const { ops } = union
    const reader = (await union.open('l', sys.O.RDONLY)) as Opened
    t.strictSame([reader.writable, reader.upper, reader.privileged], [false, false, false])
    t.equal(union.pwrite(reader.fh, 'x'), -E.EBADF)
    t.equal(ops.fallocate(reader.fh, 0, 0, 10), -E.EBADF)
    t.equal(await union.run(() => ops.fsync(reader.fh, false)), 0)
    const writer = (await union.open('u', sys.O.WRONLY)) as Opened
    t.strictSame([writer.writable, writer.upper, writer.privileged], [true, true, true])
    t.equal(ops.read(writer.fh, Buffer.alloc(1), 0, 1, 0), -E.EBADF, 'write-only')
    t.equal(ops.copyFileRange(writer.fh, 0, reader.fh, 0, 1, 0), -E.EBADF)
    t.equal(ops.copyFileRange(reader.fh, 1, writer.fh, 2, 3, 0), 3)
    t.equal(await union.read('u'), 'upowe')
    const append = (await union.open('u', sys.O.WRONLY | sys.O.APPEND)) as Opened
    t.equal(union.pwrite(append.fh, 'A', 0), 1, 'the kernel has found the place')
    t.equal(await union.read('u'), 'Apowe')
    t.equal(union.pwrite(writer.fh, '!', 10), 1)
    t.equal(await union.read('u'), 'Apowe\0\0\0\0\0!')
    t.equal(ops.fallocate(writer.fh, 0, 0, 100), 0)
    t.equal(ops.fallocate(writer.fh, sys.FALLOC.PUNCH_HOLE | sys.FALLOC.KEEP_SIZE, 0, 5), 0)
    t.equal(((await union.read('u')) as string).length, 100)
    t.equal(ops.fallocate(writer.fh, 0, -1, 5), -E.EINVAL)
    t.equal(await union.run(() => ops.fsync(writer.fh, true)), 0)
    t.equal(await union.run(() => ops.syncfs()), 0)
    const directory = new Opened()
    t.equal(await union.run(() => ops.fsyncdir(1, false)), 0)
    for (const { fh } of [reader, writer, append]) ops.release(fh)
    t.equal(await union.run(() => ops.open(1, 0, false, directory)), -E.EISDIR)
    t.equal(ops.open(4711, 0, false, directory), -E.ESTALE)
    t.strictSame(ops.counts(), NOTHING_OPEN)
    union.close()
  })

  await t.test('holes are found', async t => {
    const holes = unionDirectories(t, {
      lower: [{ f: file('start', { pieces: [[1 << 20, 'middle']], size: 3 << 20 }) }],
    })
    const union = open(t, optionsOf(holes))
    const { fh } = (await union.open('f', sys.O.RDONLY)) as Opened
    t.equal(union.ops.lseek(fh, 4096, sys.SEEK.DATA), 1 << 20)
    t.equal(union.ops.lseek(fh, 0, sys.SEEK.HOLE), 4096)
    t.equal(union.ops.lseek(fh, 2 << 20, sys.SEEK.DATA), -E.ENXIO)
    union.ops.release(fh)
  })

  await t.test('with write-back', async t => {
    const union = open(t, optionsOf(where), { writeback: true })
    const writer = (await union.open('plain', sys.O.WRONLY)) as Opened
    t.equal(union.readAll(writer.fh), 'plain', 'the kernel can read through it')
    union.ops.release(writer.fh)
    const before = statSync(`${where.upper}/plain`).mtimeMs
    const late = (await union.open('plain', sys.O.WRONLY)) as Opened
    t.equal(union.pwrite(late.fh, 'later', 0, false, true), 5)
    t.equal(statSync(`${where.upper}/plain`).mtimeMs, before, 'its time is the kernel’s to tell')
    union.ops.release(late.fh)
    union.close()
  })

  await t.test('write-back without new times copies nothing up', async t => {
    const lower = unionDirectories(t, { lower: [{ f: file('f', { mtime: PAST }), g: 'g' }] })
    const union = open(t, optionsOf(lower), { writeback: true })
    const [id, attr] = [union.id('f'), new Attr()]
    const told = Object.assign(new SetAttr(), { mtimeSec: PAST.sec, mtimeNsec: PAST.nsec })
    told.valid = V.MTIME | V.CTIME
    t.equal(union.ops.setattr(id, told, attr), 0)
    t.equal(attr.mtimeSec, PAST.sec)
    told.valid |= V.FH
    t.equal(union.ops.setattr(id, told, attr), 0, 'through a handle')
    t.strictSame(readdirSync(lower.upper), [])
    told.mtimeNsec++
    t.equal(await union.run(() => union.ops.setattr(id, told, attr)), 0)
    t.strictSame(readdirSync(lower.upper), ['f'], 'another time is one')
    union.close()
  })

  await t.test('set-id bits', async t => {
    const union = open(t, optionsOf(where))
    const mode = async (): Promise<number> => {
      const stat = await union.stat('suid')
      return typeof stat === 'number' ? stat : stat.mode & 0o7777
    }
    const { fh, privileged } = (await union.open('suid', sys.O.RDWR)) as Opened
    t.ok(privileged)
    t.equal(await mode(), 0o6755, 'copied up with them')
    t.equal(union.pwrite(fh, 'x', 0, false), 1)
    t.equal(await mode(), 0o6755)
    // A caller other than this process, which may be in the group of the file.
    Object.assign(union.ops.requester, { uid: 1000, gid: 1000, umask: 0, pid: 0 })
    t.equal(union.pwrite(fh, 'x', 0, true), 1)
    t.equal(await mode(), 0o755)
    t.equal(await union.chmod('suid', 0o6755), 0)
    t.equal(await union.setattr('suid', { valid: V.SIZE | V.KILL_SUIDGID, size: 1 }), 0)
    t.equal(await mode(), 0o755)
    t.equal(await union.chmod('suid', 0o6744), 0)
    const opened = new Opened()
    const id = union.id('suid')
    t.equal(union.ops.open(id, sys.O.WRONLY | sys.O.TRUNC, true, opened), 0)
    t.equal(await mode(), 0o744, 'O_TRUNC too')
    union.ops.release(opened.fh)
    union.ops.release(fh)
    union.close()
  })

  await t.test('through a handle', async t => {
    const union = open(t, optionsOf(where))
    const { fh } = (await union.open('plain', sys.O.RDWR)) as Opened
    const id = union.id('plain')
    t.equal(await union.unlink('plain'), 0)
    const attr = new Attr()
    const set = (change: Partial<SetAttr>): number =>
      union.ops.setattr(id, Object.assign(new SetAttr(), { fh, ...change }), attr)
    t.equal(set({ valid: V.FH | V.SIZE, size: 2 }), 0)
    t.strictSame([attr.size, attr.nlink], [2, 0])
    t.equal(set({ valid: V.FH | V.MODE, mode: 0o4711 }), 0)
    t.equal(attr.mode & 0o7777, 0o4711)
    t.equal(set({ valid: V.MTIME | V.ATIME, mtimeSec: -5, mtimeNsec: 7, atimeSec: 1 }), 0)
    t.strictSame([attr.mtimeSec, attr.mtimeNsec, attr.atimeSec], [-5, 7, 1])
    t.equal(set({ valid: V.UID | V.GID, uid: 3, gid: 4 }), 0)
    t.strictSame([attr.uid, attr.gid], [3, 4])
    t.equal(union.ops.setxattr(id, 'user.x', Buffer.from('x'), 0, false), 0)
    t.equal(union.ops.getxattr(id, 'user.x', Buffer.alloc(1), 0, 1), 1)
    union.ops.release(fh)
    union.forgetAll()
    t.strictSame(union.ops.counts(), NOTHING_OPEN)
    union.close()
  })
})

t.test('a metadata-only copy while it is read', { skip: skipParity }, async t => {
  const where = unionDirectories(t, { lower: [{ f: 'the data' }] })
  t.equal(mountKernel(where, 'metacopy=on'), 0)
  sys.fchmodat(sys.AT_FDCWD, `${where.merged}/f`, 0o600)
  sys.umount(where.merged)
  const union = open(t, optionsOf(where))
  const reader = (await union.open('f', sys.O.RDONLY)) as Opened
  t.notOk(reader.upper, 'the file that serves it will be another one')
  t.equal(union.readAll(reader.fh), 'the data')
  t.equal(await union.write('f', 'THE'), 3)
  t.equal(union.readAll(reader.fh), 'THE data')
  union.ops.release(reader.fh)
  const stat = await union.stat('f')
  t.equal(typeof stat === 'object' && stat.mode & 0o777, 0o600)
  t.equal(readFileSync(`${where.lower[0]}/f`, 'latin1'), 'the data')
})
